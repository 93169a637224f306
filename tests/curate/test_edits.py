"""Changes keep a trajectory exact, whatever its text: ids read as text, sources stay, and no other token is touched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.curate.traces import CODEC, hint, model, prompt, tool
from toolreason.curate.edits import Unaligned, remove, remove_shifted, rewrite
from toolreason.curate.text import starts
from toolreason.types import Segment, Source

PIECES = st.sampled_from(["```\n", "```python\n", "\n\n", "    ", "é", "日本", "🧮", "a", "Wait", " the", "<|im_end|>", "ab ab"])
TEXTS = st.lists(PIECES, max_size=6).map("".join)
KINDS = st.sampled_from(["model", "hint", "tool"])
ROWS = st.lists(st.tuples(KINDS, TEXTS), max_size=5).map(lambda parts: (prompt(), *map(_segment, parts)))


def _segment(part: tuple[str, str]) -> Segment:
    kind, text = part
    if kind == "tool":
        return tool("x", text)
    return model(text) if kind == "model" else Segment(Source.HINT, CODEC.decode(CODEC.encode(text)), CODEC.encode(text))


def text_of(segments: tuple[Segment, ...]) -> str:
    return "".join(segment.text for segment in segments)


def ids_of(segments: tuple[Segment, ...]) -> tuple[int, ...]:
    return tuple(token for segment in segments for token in segment.token_ids)


def check(before: tuple[Segment, ...], after: tuple[Segment, ...]) -> None:
    assert CODEC.decode(ids_of(after)) == text_of(after)
    left = iter([segment.source for segment in before])
    assert all(segment.source in left for segment in after)  # the same sources in the same order, some perhaps gone
    assert [s for s in after if s.source is Source.PROMPT] == [s for s in before if s.source is Source.PROMPT]
    assert all(segment in before for segment in after if segment.source is Source.TOOL)
    for segment in after:
        assert segment.logprobs is None or len(segment.logprobs) == len(segment.token_ids)


@given(ROWS, st.integers(0, 80), st.integers(0, 40))
def test_a_removal_takes_just_these_characters_as_whole_tokens_or_nothing(rows: tuple[Segment, ...], at: int, length: int) -> None:
    text = text_of(rows)
    start = len(rows[0].text) - 5 + at
    end = min(start + length, len(text))
    try:
        after = remove(rows, start, end, CODEC.decode)
    except Unaligned:
        return
    assert text_of(after) == text[: min(start, len(text))] + text[max(end, start) :]
    check(rows, after)
    gone = len(ids_of(rows)) - len(ids_of(after))
    front = next((n for n, (a, b) in enumerate(zip(ids_of(rows), ids_of(after), strict=False)) if a != b), len(ids_of(after)))
    assert ids_of(rows)[:front] + ids_of(rows)[front + gone :] == ids_of(after)  # one stretch of tokens went


@given(ROWS, st.integers(0, 80), st.integers(0, 40))
def test_log_probabilities_stay_just_where_what_came_before_is_unchanged(rows: tuple[Segment, ...], at: int, length: int) -> None:
    start = len(rows[0].text) + at
    try:
        after = remove(rows, start, start + length, CODEC.decode)
    except Unaligned:
        return
    whole, position = ids_of(rows), 0
    for segment, begin in zip(after, starts(after), strict=True):
        position += len(segment.token_ids)
        if segment.source is Source.MODEL and segment.token_ids:
            assert (segment.certainties is None) == (segment.logprobs is None)
            if segment.logprobs is not None:
                assert whole[:position] == ids_of(after)[:position]
            elif length:
                assert begin + len(segment.text) > start


@given(ROWS, st.integers(0, 80), st.integers(0, 20))
def test_a_shifted_removal_leaves_the_text_that_was_asked_for(rows: tuple[Segment, ...], at: int, length: int) -> None:
    text = text_of(rows)
    start = min(len(rows[0].text) + at, len(text))
    end = min(start + length, len(text))
    try:
        after = remove_shifted(rows, start, end, CODEC.decode)
    except Unaligned:
        return
    assert text_of(after) == text[:start] + text[end:]
    check(rows, after)


@given(ROWS, st.integers(0, 80), st.integers(0, 8), TEXTS)
def test_what_is_written_anew_is_encoded_alone(rows: tuple[Segment, ...], at: int, length: int, new: str) -> None:
    text = text_of(rows)
    start = len(rows[0].text) + at
    end = start + length
    try:
        after = rewrite(rows, start, end, new, CODEC)
    except Unaligned:
        return
    assert text_of(after) == text[:start] + new + text[end:]
    check(rows, after)
    changed = [n for n, (one, other) in enumerate(zip(rows, after, strict=True)) if one.token_ids != other.token_ids]
    assert len(changed) <= 1


def test_a_span_inside_a_token_is_refused_and_shifting_finds_the_boundary() -> None:
    rows = (prompt(), model("so the the end"))  # " the" is one token
    at = text_of(rows).index("the ")
    with pytest.raises(Unaligned):
        remove(rows, at, at + 4, CODEC.decode)
    after = remove_shifted(rows, at, at + 4, CODEC.decode)
    assert after[1].text == "so the end"
    assert after[1].token_ids == CODEC.encode("so the end")


def test_prompts_and_parts_of_results_do_not_change() -> None:
    rows = (prompt(), model("a"), tool("x", "42"), model("b"))
    begin = starts(rows)
    with pytest.raises(Unaligned):
        remove(rows, 0, 3, CODEC.decode)
    with pytest.raises(Unaligned):
        remove(rows, begin[2] + 3, begin[3], CODEC.decode)
    assert [s.source for s in remove(rows, begin[2], begin[3], CODEC.decode)] == [Source.PROMPT, Source.MODEL, Source.MODEL]
    with pytest.raises(Unaligned):
        rewrite((prompt(), hint()), begin[1], begin[1] + 1, "x", CODEC)
