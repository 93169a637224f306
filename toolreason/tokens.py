"""The exact-token rules: text is derived from ids, and a cut falls on a token boundary.

A text that is inserted is encoded once, on its own, and its ids are appended; what was sampled is never encoded again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from toolreason.types import Segment

Decode = Callable[[Sequence[int]], str]

REPLACEMENT = "\ufffd"
CONTEXT = 8  # tokens of history that a decoder may look at (SentencePiece drops the space before a first token)


def text_after(decode: Decode, before: Sequence[int], new: Sequence[int]) -> str:
    """The text that `new` adds after `before`: what decoding both together has beyond decoding `before` alone.

    Falls back to decoding `new` alone where the two overlap in one character (`before` ends inside a multi-byte one).
    """
    head = list(before[-CONTEXT:])
    prefix = decode(head)
    whole = decode([*head, *new])
    if not prefix.endswith(REPLACEMENT) and whole.startswith(prefix):
        return whole[len(prefix) :]
    return decode(new)


def cut(decode: Decode, segment: Segment, end: int) -> Segment:
    """The longest run of whole tokens of `segment` whose text ends at or before character `end`.

    Log-probabilities go with their tokens. A token that holds part of a character stays only if the whole character stays.
    A text-only segment is cut at the character.
    """
    if end >= len(segment.text):
        return segment
    if not segment.token_ids:
        return replace(segment, text=segment.text[:end])
    return first(decode, segment, _boundary(decode, segment, max(end, 0)))


def drop_last(decode: Decode, segment: Segment, tokens: int = 1) -> Segment:
    """`segment` without its last `tokens` tokens (an end token that is taken back before a hint)."""
    return first(decode, segment, max(len(segment.token_ids) - tokens, 0))


def first(decode: Decode, segment: Segment, keep: int) -> Segment:
    """The first `keep` tokens of a segment, with what belongs to them."""
    return replace(
        segment,
        text=_prefix(decode, segment, keep),
        token_ids=segment.token_ids[:keep],
        logprobs=None if segment.logprobs is None else segment.logprobs[:keep],
        certainties=None if segment.certainties is None else segment.certainties[:keep],
    )


def rest(segment: Segment, kept: Segment) -> Segment:
    """What `segment` has beyond `kept`, its beginning."""
    keep = len(kept.token_ids)
    return replace(
        segment,
        text=segment.text[len(kept.text) :],
        token_ids=segment.token_ids[keep:],
        logprobs=None if segment.logprobs is None else segment.logprobs[keep:],
        certainties=None if segment.certainties is None else segment.certainties[keep:],
    )


def _prefix(decode: Decode, segment: Segment, keep: int) -> str:
    """The text of the first `keep` tokens, as a prefix of the segment's own text (which may rest on what stood before it)."""
    text = decode(segment.token_ids[:keep])
    lead = len(segment.text) - len(decode(segment.token_ids))  # a space the decoder drops at the very start
    return segment.text[:lead] + text if lead > 0 and keep else text


def _boundary(decode: Decode, segment: Segment, end: int) -> int:
    """The largest number of tokens whose text is a prefix of the segment's and not longer than `end`."""
    low, high = 0, len(segment.token_ids)
    while low < high:  # text length grows with the number of tokens, up to characters that are not yet whole
        middle = (low + high + 1) // 2
        if len(_prefix(decode, segment, middle)) <= end:
            low = middle
        else:
            high = middle - 1
    while low and not _clean(_prefix(decode, segment, low), segment.text, end):
        low -= 1
    return low


def _clean(prefix: str, text: str, end: int) -> bool:
    return len(prefix) <= end and text.startswith(prefix)
