"""Changes to a row of segments that keep it exact: whole tokens go, and what is written anew is encoded on its own.

Positions are characters of the whole text. Sources never change; prompts never change; a result goes whole or not at all.

Log-probabilities and certainties belong to what stood before their token. A segment that loses tokens from its middle loses its
own, and so does every later one; what is cut off at the end of a text costs none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from toolreason.curate.text import starts
from toolreason.tokens import Decode, cut, first, rest
from toolreason.types import Segment, Source

SHIFTS = 16


class Unaligned(Exception):
    """The change does not fall on token boundaries, or falls into what must not change. The row is left out."""


class Codec(Protocol):
    """The tokenizer of the policy that sampled: `toolreason.policies.tokenizer.ChatTokenizer` is one."""

    @property
    def end_ids(self) -> Collection[int]: ...

    def encode(self, text: str, *, special: bool = False) -> tuple[int, ...]: ...

    def decode(self, token_ids: Sequence[int]) -> str: ...


def remove(segments: Sequence[Segment], start: int, end: int, decode: Decode) -> tuple[Segment, ...]:
    """The segments without characters `start` to `end`. Raises Unaligned where these are not whole tokens."""
    out, later = list[Segment](), False
    for segment, begin in zip(segments, starts(segments), strict=True):
        low, high = max(start - begin, 0), min(end - begin, len(segment.text))
        if high <= low:
            out.append(_unsure(segment) if later else segment)
            continue
        head, tail = _around(segment, low, high, decode)
        if tail.token_ids:
            out.append(_joined(head, tail))
        elif head.token_ids:
            out.append(_unsure(head) if later else head)
        later = True
    return tuple(out)


def remove_shifted(segments: Sequence[Segment], start: int, end: int, decode: Decode) -> tuple[Segment, ...]:
    """As `remove`, with the span moved to token boundaries where that leaves the same text: of `ab ab` either `ab ` or ` ab`."""
    text = "".join(segment.text for segment in segments)
    for low, high in _shifts(text, start, end):
        try:
            return remove(segments, low, high, decode)
        except Unaligned:
            continue
    raise Unaligned(text[start:end])


def rewrite(segments: Sequence[Segment], start: int, end: int, new: str, codec: Codec) -> tuple[Segment, ...]:
    """The segments with `new` in place of characters `start` to `end` of one model segment.

    The whole tokens around the place are encoded anew, alone; all other ids stay. Raises Unaligned.
    """
    out, later = list[Segment](), False
    for segment, begin in zip(segments, starts(segments), strict=True):
        low, high = start - begin, end - begin
        if low < 0 or high > len(segment.text) or later:
            out.append(_unsure(segment) if later else segment)
            continue
        if segment.source is not Source.MODEL:
            raise Unaligned(f"{segment.source} text is not rewritten")
        head = cut(codec.decode, segment, low)
        upto = _reaching(segment, high, codec.decode)
        piece = segment.text[len(head.text) : low] + new + segment.text[high : len(upto.text)]
        ids = codec.encode(piece)
        middle = Segment(segment.source, piece, ids)
        out.append(_joined(_joined(head, middle), rest(segment, upto)))
        later = True
    if not later:
        raise Unaligned("the place reaches over several segments")
    return tuple(out)


def _around(segment: Segment, low: int, high: int, decode: Decode) -> tuple[Segment, Segment]:
    """What stands before and after these characters of one segment."""
    whole = low == 0 and high == len(segment.text)
    if segment.source is Source.PROMPT or (segment.source is Source.TOOL and not whole):
        raise Unaligned(f"{segment.source} text does not change")
    if whole:
        nothing = first(decode, segment, 0)
        return nothing, nothing
    head, upto = cut(decode, segment, low), cut(decode, segment, high)
    if len(head.text) != low or len(upto.text) != high:
        raise Unaligned(segment.text[low:high])
    return head, rest(segment, upto)


def _reaching(segment: Segment, end: int, decode: Decode) -> Segment:
    """The fewest whole tokens whose text reaches at least to `end`."""
    upto = cut(decode, segment, end)
    for keep in range(len(upto.token_ids), len(segment.token_ids) + 1):
        upto = first(decode, segment, keep)
        if len(upto.text) >= end and segment.text.startswith(upto.text):
            return upto
    raise Unaligned(segment.text[end:])


def _joined(head: Segment, tail: Segment) -> Segment:
    return replace(head, text=head.text + tail.text, token_ids=head.token_ids + tail.token_ids, logprobs=None, certainties=None)


def _unsure(segment: Segment) -> Segment:
    """The segment without what was measured after a text that has changed."""
    return segment if segment.source is not Source.MODEL else replace(segment, logprobs=None, certainties=None)


def _shifts(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    yield start, end
    low, high = start, end
    while low > 0 and start - low < SHIFTS and text[low - 1] == text[high - 1]:
        low, high = low - 1, high - 1
        yield low, high
    low, high = start, end
    while high < len(text) and low - start < SHIFTS and text[low] == text[high]:
        low, high = low + 1, high + 1
        yield low, high
