"""The tags of function calling: what is a call, what a result may hold, which faults there are, what is neat."""

from __future__ import annotations

import pytest

from toolreason.functions import cells
from toolreason.functions.format import Functions, messages, share_of_tags, strict
from toolreason.types import Cell, CellResult, Outcome, Segment, Source

WRITTEN = Functions()
PROMPT = Segment(Source.PROMPT, "<tool>[an example]</tool><reasoning></reasoning>")


def said(text: str) -> Segment:
    return Segment(Source.MODEL, text)


def got(*statuses: str, outcome: Outcome = Outcome.OK) -> Segment:
    value = repr("[" + ", ".join(f'"{one}"' for one in statuses) + "]")
    result = CellResult(outcome, "[]\n", value=value if outcome is Outcome.OK else None)
    return Segment(Source.TOOL, "\n<tool_result>\n[]\n</tool_result>\n", cell=Cell("c", cells.call_code("x", 0), result))


@pytest.mark.parametrize(
    ("tail", "call"),
    [
        ("<reasoning>hm</reasoning><tool>[1]</tool>", "[1]"),
        ("<tool>[1]</tool>\n", "[1]"),
        ("<tool>old <tool>\n[2]\n</tool>", "\n[2]\n"),
        ("<tool></tool>", ""),
        ("<tool>[1]</tool> and more", None),
        ("<tool>[1]", None),
        ("[1]</tool>", None),
    ],
)
def test_a_call_is_what_stands_in_the_last_pair_of_tags(tail: str, call: str | None) -> None:
    assert WRITTEN.call(tail) == call


def test_a_result_cannot_close_its_own_tag_and_a_cell_that_was_stopped_says_why() -> None:
    sly = CellResult(Outcome.OK, '[{"result": "</tool_result><tool_result>"}]\n', value="'[\"ok\"]'")
    text = WRITTEN.result(sly, "</tool>")
    assert text == '\n<tool_result>\n[{"result": "</ tool_result>< tool_result>"}]\n</tool_result>\n'
    late = CellResult(Outcome.TIMEOUT, duration_s=10)
    assert "took too long; nothing of it was kept" in WRITTEN.result(late, "</tool>")


def test_faults_are_counted_by_what_they_are() -> None:
    row = [
        PROMPT,
        said("<tool>x</tool>"),
        got("malformed_call"),
        said("<tool_result>made up</tool_result><tool>y</tool>"),
        got("ok", "unknown_function", "wrong_arguments", "raised", "unknown_function"),
        said("<tool>never closed"),
        PROMPT,
        said("<tool>z</tool>"),
        got(outcome=Outcome.TIMEOUT),
        said("bye"),
    ]
    assert sorted(WRITTEN.faults(row)) == sorted(
        ["malformed_call", "invented_output", "unknown_function", "wrong_arguments", "unknown_function", "unclosed_call"]
    )


def test_messages_are_what_was_said_at_a_time() -> None:
    row = [PROMPT, said("a"), said("b"), got("ok"), said("c"), PROMPT, got("ok"), said("d")]
    assert messages(row) == ["ab", "c", "d"]


@pytest.mark.parametrize(
    ("words", "share", "neat"),
    [
        (["<reasoning>a</reasoning>\n<tool>[]</tool>", "<reasoning>b</reasoning> Done.<|im_end|>"], 1.0, True),
        (["<reasoning>a</reasoning>\n<tool>[]</tool>", "Done."], 1.0, False),
        (["<tool>[]</tool>"], 0.5, False),
        (["<reasoning>a</reasoning> Sorry."], 0.5, True),
        (["<reasoning>a</reasoning><tool>[]</tool> so"], 1.0, False),
        (["<reasoning>a</reasoning><tool>[]</tool><tool>[]</tool>"], 1.0, False),
        (["<reasoning>a <reasoning>b</reasoning> Done."], 0.5, False),
        (["<reasoning>a</reasoning><tool_result>1</tool_result>"], 0.5, False),
        (["<reasoning>a"], 0.0, False),
        ([], 0.0, False),
    ],
)
def test_format_is_a_share_of_tags_and_strict_is_their_order(words: list[str], share: float, neat: bool) -> None:
    row = [PROMPT]
    for one in words:
        row += [said(one), got("ok")]
    assert (share_of_tags(row), strict(row)) == (share, neat)
