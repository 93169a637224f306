"""Each filter has a trace that it drops and a neighbour that it leaves."""

from __future__ import annotations

import pytest

from tests.curate.traces import HINT_TEXT, hint, model, row, solved, tool, trace
from toolreason.curate import filters
from toolreason.curate.settings import CurateSettings
from toolreason.types import Outcome, Problem, Reference, ReferenceKind, Trajectory

SETTINGS = CurateSettings(min_cells=1)
FAILED = tool("1/0", error="ZeroDivisionError: division by zero")
ANSWER = model(r"It is \boxed{42}.")


def reason(name: str, one: Trajectory, settings: CurateSettings = SETTINGS, question: str = "") -> str | None:
    problem = Problem("p", question) if question else None
    fall = filters.FILTERS[name](row(one, problem=problem), settings)
    return fall.reason if fall else None


def test_a_clean_trace_passes_all_filters() -> None:
    assert {reason(name, solved()) for name in filters.FILTERS} == {None}


def test_format_faults() -> None:
    faulty = solved(faults=("invented_output",))
    assert reason("format faults", faulty) == "format faults"
    assert reason("format faults", faulty, CurateSettings(max_faults=1)) is None


def test_a_hinted_trace_without_a_cell_falls() -> None:
    assert reason("executed cells", trace(hint(), ANSWER)) == "no executed cell"
    assert reason("executed cells", trace(ANSWER), CurateSettings()) is None


def test_more_failures_than_allowed_or_a_failure_at_the_end() -> None:
    good, other = tool("x", "42"), tool("2/0", error="ZeroDivisionError: division by zero")
    assert reason("failed executions", trace(FAILED, other, good, ANSWER)) is None
    assert reason("failed executions", trace(FAILED, FAILED, good, ANSWER)) == "a failed program again"
    assert reason("failed executions", trace(FAILED, FAILED, good, ANSWER), CurateSettings(drop_failed_again=False)) is None
    assert reason("failed executions", trace(FAILED, FAILED, FAILED, good, ANSWER)) == "many failed cells"
    assert reason("failed executions", trace(good, FAILED, ANSWER)) == "the last cell failed"
    hung = tool("while 1: pass", outcome=Outcome.TIMEOUT)
    assert reason("failed executions", trace(good, hung, ANSWER)) == "the last cell failed"
    assert reason("failed executions", trace(good, FAILED, ANSWER), CurateSettings(last_cell_ok=False)) is None


def test_loops_of_words_lines_and_programs() -> None:
    words = " ".join(f"word{n}" for n in range(60))
    assert reason("repetition", trace(model(words))) is None
    assert reason("repetition", trace(model(f"{words} {words}"))) == "repeats itself"
    lines = "".join(f"{' '.join(f'v{n}w{k}' for k in range(9))}\nlet me check\n" for n in range(5))
    assert reason("repetition", trace(model(lines))) == "one line again and again"
    assert reason("repetition", trace(model(lines.removesuffix("let me check\n")))) is None
    again = [tool("print( 6*7 )  # once more", "42"), tool("print(6*7)", "42")]
    assert reason("repetition", trace(*again, ANSWER)) is None
    assert reason("repetition", trace(*again, again[0], ANSWER)) == "one program again and again"


def test_repeated_code_and_hints_are_no_loop() -> None:
    code = "".join(f"value_{n} = compute(value, {n}, key=lambda one: one.first, reverse=True)\n" for n in range(9))
    cell = [hint(), model(f"{code}```\n"), tool(code, "1")]
    assert reason("repetition", trace(*cell, *cell, ANSWER)) is None
    assert HINT_TEXT.count("Python") == 1


def test_length_counts_tokens_after_the_prompt() -> None:
    one = solved()
    assert reason("length", one, CurateSettings(max_tokens=one.tokens())) is None
    assert reason("length", one, CurateSettings(max_tokens=one.tokens() - 1)) == "too long"


def test_an_answer_that_an_error_told_first_is_leaked() -> None:
    told = tool("assert f() == 42", error="AssertionError: expected 42")
    assert reason("leaked answers", trace(model("Let me test."), told, ANSWER)) == "answer in an error"
    assert reason("leaked answers", trace(model("It may be 42."), told, ANSWER)) is None
    assert reason("leaked answers", trace(told, ANSWER), CurateSettings(drop_leaked=False)) is None
    printed = tool("print(42); 1/0", "42\n", error="ZeroDivisionError: 42 / 0")
    assert reason("leaked answers", trace(printed, ANSWER)) is None


def test_a_line_number_in_a_traceback_is_no_leak() -> None:
    at = tool("?", error='File "<cell 1>", line 42\nSyntaxError: invalid syntax')
    assert reason("leaked answers", trace(at, ANSWER)) is None


def test_the_reference_counts_where_it_is_known_in_any_spelling() -> None:
    reference = Reference(ReferenceKind.MATH, answer="1,234.50")
    told = tool("?", error="ValueError: 1234.5 is odd")
    one = row(trace(told, model(r"\boxed{1234.5}"), answer="x"), problem=Problem("p", "?", reference))
    fall = filters.leaked_answer(one, SETTINGS)
    assert fall is not None
    assert fall.reason == "answer in an error"


@pytest.mark.parametrize(
    ("question", "said", "falls"),
    [
        ("What is it?", "The answer is near, 答案是四十二", True),
        ("What is it?", "The angle \u03b1 and \u03b2 in \u211d, \U0001d465 too, déjà vu", False),  # Greek, mathematical
        ("6乘7是多少?", "我们计算 $x = \\frac{a}{b}$ 得到答案", False),
        ("6乘7是多少?", "我们计算 first of all the product", True),
        ("7かける6は?", "計算すると答えはカタカナ", False),
        ("Сколько?", "Ответ сорок два", False),
    ],
)
def test_letters_of_scripts_that_the_question_does_not_use(question: str, said: str, falls: bool) -> None:
    found = reason("language mixing", trace(model(said)), question=question)
    assert found == ("mixes languages" if falls else None)


def test_code_and_tool_output_mix_no_languages() -> None:
    cell = [model("```python\nprint('答案')\n```\n"), tool("print('答案')", "答案答案")]
    assert reason("language mixing", trace(*cell, ANSWER), question="What?") is None
    assert reason("language mixing", trace(*cell, ANSWER)) is None  # by the prompt
