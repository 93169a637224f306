"""Delayed computation and distrust: each kind on a trace made by hand, and the near misses that must not count."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolreason import failures
from toolreason.failures import DelayedKind, DistrustKind, delayed, distrust
from toolreason.stats import Tally
from toolreason.types import Cell, CellResult, Judgement, Outcome, Segment, Source, StopReason, Trajectory, Verdict

QUESTION = "A box holds 17 rows of 23 eggs. How many eggs are there?"


def ran(code: str, output: str, outcome: Outcome = Outcome.OK) -> tuple[Segment, Segment]:
    """The model's cell and its result."""
    cell = Cell("c", code, CellResult(outcome, output))
    return Segment(Source.MODEL, f"```python\n{code}\n```\n"), Segment(Source.TOOL, f"```output\n{output}\n```\n", cell=cell)


def trace(*parts: str | Segment | tuple[Segment, Segment], question: str = QUESTION) -> Trajectory:
    """A prompt and then: the model's words, segments, cells with their results."""
    segments = [Segment(Source.PROMPT, question)]
    for part in parts:
        segments += [Segment(Source.MODEL, part)] if isinstance(part, str) else [part] if isinstance(part, Segment) else part
    return Trajectory("id", "p", "hint_infer", "scripted", tuple(segments), StopReason.ANSWERED, verdict=Verdict(Judgement.WRONG))


PRODUCT = ran("print(17 * 23)", "391")
BOXED = r"So the answer is \boxed{391}."


def kinds(one: Trajectory) -> tuple[list[str], list[str]]:
    return [found.kind for found in delayed(one)], [found.kind for found in distrust(one)]


# what counts


@pytest.mark.parametrize(
    "by_hand",
    [
        "First, 17 * 23 = 391. Let me check with code.\n",
        "We have 17 times 23 is 391.\n",
        r"$17 \times 23 = 17 \times 20 + 17 \times 3 = 340 + 51 = \boxed{391}$" + "\n",
        "- **340 + 51 = 391**\n",
    ],
)
def test_a_number_worked_out_before_the_cell_that_prints_it_is_delayed(by_hand: str) -> None:
    one = trace(by_hand, PRODUCT, BOXED)
    (found,) = delayed(one)
    assert (found.kind, found.segment, found.cell) == (DelayedKind.REPEATED, 1, 3)
    assert "391" in found.excerpt
    assert distrust(one) == []


def test_a_rounded_number_worked_out_by_hand_is_delayed_too() -> None:
    one = trace("So 100 / 37 ≈ 2.703.\n", ran("a = 100\nb = a / 37\nprint(b)", "2.7027027027027026"), r"\boxed{2.7}")
    assert kinds(one) == ([DelayedKind.REPEATED], [])


def test_a_hand_result_that_the_later_cell_shows_to_be_wrong_is_delayed() -> None:
    one = trace("17 * 23 = 381.\n", ran("rows = 17\neggs = 23\nprint(eggs * rows)", "391"), BOXED)
    (found,) = delayed(one)
    assert (found.kind, found.segment, found.cell) == (DelayedKind.CORRECTED, 1, 3)


def test_the_same_code_again_is_distrust() -> None:
    again = ran("# once more\nprint( 17*23 )", "391")
    (found,) = distrust(trace(PRODUCT, "Let me be sure.\n", again, BOXED))
    assert (found.kind, found.segment, found.cell) == (DistrustKind.RERUN, 5, 2)
    assert found.excerpt == "# once more print( 17*23 )"


def test_another_way_to_the_same_printed_number_without_new_numbers_is_distrust() -> None:
    again = ran("total = 0\nfor _ in range(17):\n    total += 23\nprint(total)", "391")
    assert kinds(trace(PRODUCT, again, BOXED)) == ([], [DistrustKind.RECOMPUTED])


def test_working_a_printed_number_out_again_by_hand_is_distrust() -> None:
    one = trace(PRODUCT, "Check: 17 * 20 = 340 and 17 * 3 = 51, and 340 + 51 = 391.\n" + BOXED)
    (found,) = distrust(one)
    assert (found.kind, found.segment, found.cell) == (DistrustKind.BY_HAND, 3, 2)
    assert "340 + 51 = 391" in found.excerpt


def test_prose_that_gives_another_result_than_the_printed_one_contradicts_it() -> None:
    one = trace(PRODUCT, "But 17 * 23 = 381, as one sees, and the code printed 391.\n")
    assert kinds(one) == ([], [DistrustKind.CONTRADICTED])


def test_an_answer_that_passes_the_printed_number_over_contradicts_it() -> None:
    (found,) = distrust(trace(PRODUCT, r"Therefore the answer is \boxed{408}."))
    assert (found.kind, found.segment, found.cell) == (DistrustKind.CONTRADICTED, 3, 2)
    assert found.excerpt.endswith("(printed: 391)")
    assert "408" in found.excerpt


def test_an_answer_held_on_to_against_the_printed_number_contradicts_it() -> None:
    one = trace("It should be 408 eggs.\n", PRODUCT, r"The code says 391, yet the answer is \boxed{408}.")
    assert kinds(one) == ([], [DistrustKind.CONTRADICTED])


@pytest.mark.parametrize(
    "words",
    [
        "Hmm, the code must be wrong.",
        "The output seems to be incorrect here.",
        "That result might be off, I think.",
        "Let me recompute this manually.",
        "I'll just verify it by hand.",
        "I don't trust the code.",
        "Ignoring the output, we go on.",
    ],
)
def test_words_of_doubt_after_code_that_ran_well_are_distrust(words: str) -> None:
    one = trace(PRODUCT, words + " " + BOXED)
    (found,) = distrust(one)
    assert (found.kind, found.segment, found.cell) == (DistrustKind.DOUBTED, 3, 2)
    assert words[:12] in found.excerpt


# what does not


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param((PRODUCT, BOXED), id="a result that is taken"),
        pytest.param(("There are 17 rows of 23.\n", PRODUCT, "So 17 * 23 = 391. " + BOXED), id="a result that is stated"),
        pytest.param(("So 17 * 23 = 391.\n", BOXED), id="no cell at all"),
        pytest.param(("So 17 * 23 = 391.\n", ran("assert 17 * 23 == 391\nprint(391)", "391")), id="the number is in the code"),
        pytest.param(("It may be 391.\n", PRODUCT, BOXED), id="a guess is no computation"),
        pytest.param(("The box is 391 = large.\n", PRODUCT, BOXED), id="a number on the left is no result"),
        pytest.param(("So 3 + 4 = 7.\n", ran("print(3 + 4)", "7"), r"\boxed{7}"), id="small numbers say nothing"),
        pytest.param(("So 50 + 50 = 100.\n", ran("print(50 * 2)", "100"), r"\boxed{100}"), id="round numbers say nothing"),
        pytest.param(("So 20 + 3 = 23.\n", ran("print(23)", "23"), r"\boxed{23}"), id="the number is in the question"),
        pytest.param(("17 * 20 = 340.\n", PRODUCT, BOXED), id="only a step is done by hand"),
        pytest.param(("f(17) * 23 = 381.\n", PRODUCT, BOXED), id="another operation than it looks"),
        pytest.param(("17 * 23 = 390 + 1, so\n", PRODUCT, BOXED), id="the equation goes on"),
        pytest.param(("100 / 37 ≈ 3.\n", ran("print(100 / 37)", "2.7027"), r"\boxed{2.7}"), id="a rounded result"),
        pytest.param((ran("17 * 23 = x", "", Outcome.ERROR), PRODUCT, BOXED), id="trying again after an error"),
        pytest.param((ran("print(17 * 23)", "", Outcome.TIMEOUT), PRODUCT, BOXED), id="the same code after a timeout"),
        pytest.param((ran("17 * 23", ""), PRODUCT, BOXED), id="the same work after a forgotten print"),
        pytest.param((ran("x = 17 * 23\nprint(x)", "391"), ran("print(int(x))", "391"), BOXED), id="printed again, not worked out"),
        pytest.param((ran("print(random())", "0.3111"), ran("print(random())", "0.7222"), "."), id="the same code, another output"),
        pytest.param((ran("print(sum(range(28)))", "378"), ran("print(sum(range(29)) - 28)", "378"), r"\boxed{378}"),
                     id="a new number in the code is a new input"),
        pytest.param((PRODUCT, "That leaves 391 + 9 = 400 eggs. " + r"\boxed{400}"), id="an answer derived from the result"),
        pytest.param((PRODUCT, r"Of these 391 a third breaks, which leaves \boxed{260}."), id="the result is used"),
        pytest.param((PRODUCT, r"In hundreds that is \boxed{3.91}."), id="a change of unit"),
        pytest.param((ran("print(2 / 7)", "0.2857142857142857"), r"\boxed{0.286}"), id="a rounded answer"),
        pytest.param((ran("print(3, 119)", "3 119"), r"\boxed{122}"), id="m + n of what was printed"),
        pytest.param((ran("print(f(5))", "True"), r"\boxed{408}"), id="no number was printed"),
        pytest.param((ran("print(*range(9, 60))", " ".join(map(str, range(9, 60)))), r"\boxed{408}"), id="a listing"),
        pytest.param((PRODUCT, r"Which means \boxed{\text{many}}."), id="an answer that is no number"),
        pytest.param((PRODUCT, r"So the larger is \boxed{23}."), id="an answer from the question"),
        pytest.param((PRODUCT, ran("1/0", "", Outcome.ERROR), r"\boxed{408}"), id="the last cell failed"),
        pytest.param((ran("1/0", "", Outcome.ERROR), "The code is wrong. I'll do it by hand."), id="doubt of code that failed"),
        pytest.param((ran("half = 48 / 2\nprint(48 + half)", "72.0"), "In May 48 / 2 = 24, in all 48 + 24 = 72."),
                     id="the code's own steps explained"),
        pytest.param((ran("a = 30 * 7\nprint(a // 4)", "52"), r"The whole is \boxed{210}."), id="an answer that the code had"),
        pytest.param((PRODUCT, "I see, my calculation was wrong. " + BOXED), id="doubt of oneself"),
        pytest.param((PRODUCT, "If the code is wrong we would see it. " + BOXED), id="an if"),
        pytest.param((PRODUCT, "It would be hard to compute that by hand. " + BOXED), id="praise of the tool"),
        pytest.param((PRODUCT, "There is nothing wrong with the output; the code isn't wrong. " + BOXED), id="the contrary"),
    ],
)  # fmt: skip
def test_near_misses_do_not_count(parts: tuple[str | tuple[Segment, Segment], ...]) -> None:
    assert kinds(trace(*parts)) == ([], [])


def test_a_hints_words_and_unexecuted_code_are_not_the_models_reasoning() -> None:
    hint = Segment(Source.HINT, "So 17 * 23 = 391. Let me verify it by hand, the code must be wrong.\n```python\n")
    cell = Cell("c", "print(17 * 23)", CellResult(Outcome.OK, "391"))
    code, result = Segment(Source.MODEL, "print(17 * 23)\n```\n"), Segment(Source.TOOL, "391\n", cell=cell)
    assert kinds(trace("```\n17 * 23 = 391\n```\n", hint, code, result, BOXED)) == ([], [])
    assert kinds(trace(PRODUCT, hint, code, result, BOXED)) == ([], [DistrustKind.RERUN])


def test_tagged_calls_are_code_as_well() -> None:
    cell = Cell("c", "x = 17 * 23\nprint(x)", CellResult(Outcome.OK, "391"))
    call = Segment(Source.MODEL, "<think>hm</think><python>x = 17 * 23\n# 17 * 23 = 391\nprint(x)</python>")
    one = trace(call, Segment(Source.TOOL, "\n<output>\n391\n</output>\n", cell=cell), r"<answer>\boxed{391}</answer>")
    assert kinds(one) == ([], [])


def test_findings_name_the_segment_in_which_they_stand() -> None:
    hint = Segment(Source.HINT, "Let me use Python.\n```python\n")
    code = Segment(Source.MODEL, "print(17 * 23)\n```\n")
    result = PRODUCT[1]
    one = trace("Let us see.\n", "And 340 + 51 = 391.\n", hint, code, result, BOXED)
    assert [(found.segment, found.cell) for found in delayed(one)] == [(2, 5)]


# what is made of it


def test_a_collection_counts_rollouts_with_calls_in_which_a_mode_was_found() -> None:
    tally = Tally(4)
    tally.add(trace("17 * 23 = 391.\n", "340 + 51 = 391.\n", PRODUCT, BOXED))
    tally.add(trace(PRODUCT, "The code must be wrong. " + BOXED))
    tally.add(trace(PRODUCT, BOXED))
    tally.add(trace(PRODUCT, BOXED), resumed=True)
    tally.add(trace(BOXED))
    one = tally.summary()
    assert (one.with_calls, one.failures) == (4, {"delayed": 0.25, "distrust": 0.25})
    assert Tally(0).summary().failures == {}


def test_findings_are_shown_as_notes_and_as_data() -> None:
    from toolreason import render

    one = trace("17 * 23 = 381\x1b[2J.\n", PRODUCT, "The code must be wrong. " + BOXED)
    header = render.header(one).plain
    assert "delayed computation, corrected in segment 1: 17 * 23 = 381" in header
    assert "distrust of results, doubted in segment 4: The code must be wrong." in header
    assert "\x1b" not in header
    assert [(row["mode"], row["kind"], row["segment"]) for row in failures.to_rows(one)] == [
        ("delayed", "corrected", 1),
        ("distrust", "doubted", 4),
    ]


# what a model may write


WILD = [
    "", "\0", "9" * 5000, "1e999", "9**9**9**9 = 12345", "= " * 400, "17 * 23 = " * 400, "(" * 3000, "```python\n" * 200, "\ud800",
    "1,234,567,890.5 + 0 = 1", "is " * 2000, "0 / 0 = 13", "20 % 0 = 14", "<python>" * 500, r"\boxed{" * 300, "5 ** 64 = 77",
    "+".join(["1"] * 900), "x = 9 ** 60\n" + "x * x * " * 200 + "x", " " * 20000 + "=",
]  # fmt: skip


@pytest.mark.parametrize("text", WILD, ids=range(len(WILD)))
def test_wild_text_and_code_neither_raise_nor_take_long(text: str) -> None:
    started = time.perf_counter()
    kinds(trace(text, ran(text, text), text, ran(text, text), text + r" \boxed{" + text + "}", question=text))
    assert time.perf_counter() - started < 5


@given(st.lists(st.one_of(st.text(), st.sampled_from(WILD)), min_size=3, max_size=3))
def test_any_text_is_analysed_without_an_error(texts: list[str]) -> None:
    kinds(trace(texts[0], ran(texts[1], texts[2]), texts[0], ran(texts[1], texts[2]), texts[2]))


def test_long_traces_take_time_in_proportion() -> None:
    line = "So 17 * 23 = 391 and the code gives 391, hence 340 + 51 = 391.\n"

    def seconds(lines: int) -> float:
        one = trace(line * lines, PRODUCT, line * lines)
        started = time.perf_counter()
        kinds(one)
        return time.perf_counter() - started

    seconds(200)
    assert seconds(1600) < 8 * seconds(200) * 4 + 0.5
