"""Calls are found where they are written, results are fed back so that they cannot be taken for calls, inventions are faults."""

import pytest

from toolreason import formats
from toolreason.errors import SettingsError
from toolreason.formats import INVENTED_OUTPUT, PRINT_MISSING, UNCLOSED_CALL
from toolreason.types import Cell, CellResult, Outcome, Segment, Source

FENCED, TAGGED = formats.get("fenced"), formats.get("tagged")
OK = CellResult(Outcome.OK, "42\n")


def said(text: str) -> Segment:
    return Segment(Source.MODEL, text)


def told(text: str) -> Segment:
    return Segment(Source.TOOL, text, cell=Cell("1", "print(42)", OK))


@pytest.mark.parametrize(
    ("tail", "code"),
    [
        ("Let me see:\n```python\nprint(1)\n```\n", "print(1)\n"),
        ("```py\nx = 1\n\nprint(x)\n```", "x = 1\n\nprint(x)\n"),
        ("<think>hm\n```python\nprint(1)\n```\n", "print(1)\n"),  # calls inside thinking are calls
        ("```python\nprint('''\n```text\n''')\n```\n", "print('''\n```text\n''')\n"),  # a fence with an info string closes nothing
        ("```python\nprint(1)\n```\n\n", "print(1)\n"),  # the stop string's token ran over
        ("```text\nhi\n```\nand\n```Python\nprint(2)\n```\n", "print(2)\n"),
        ("````python\nprint('```')\n```\n````\n", "print('```')\n```\n"),  # a longer fence is closed by one as long
        ("```python\r\nprint(1)\r\n```\r\n", "print(1)\r\n"),
        ("1. So:\n   ```python\n   if x:\n       print(1)\n\n   ```\n", "if x:\n    print(1)\n\n"),  # in a list
    ],
)
def test_a_fenced_call_at_the_end_of_the_tail_is_found(tail: str, code: str) -> None:
    assert FENCED.call(tail) == code


@pytest.mark.parametrize(
    "tail",
    [
        "no code",
        "```python\nprint(1)\n",  # not closed
        "```\nprint(1)\n```\n",  # no language: not a call
        "```json\n{}\n```\n",
        "```python\nprint(1)\n```\nSo it is one.",  # not at the end
        "use `print(1)` here",
        "",
    ],
)
def test_what_is_no_fenced_call_is_not_run(tail: str) -> None:
    assert FENCED.call(tail) is None


@pytest.mark.parametrize(
    ("tail", "code"),
    [
        ("<think>a</think><python>print(1)</python>", "print(1)"),
        ("<python>\nprint(1)\n</python>\n", "print(1)"),
        ("<python> print(1) </python>", "print(1)"),
        ("<python>\n  if x:\n    print(1)\n</python>", "if x:\n  print(1)"),
        ("<python>s = '''\n```\na\n```\n'''</python>", "s = '''\n```\na\n```\n'''"),  # a fence in the code is no fence around it
        ("<python>The code:\n```python\nprint(1)\n```\n</python>", "print(1)\n"),
        ("<python>\n```python\nprint(1)\n```\n</python>", "print(1)\n"),
        ("<python> old <python>print(2)</python>", "print(2)"),
    ],
)
def test_a_tagged_call_is_found(tail: str, code: str) -> None:
    assert TAGGED.call(tail) == code


@pytest.mark.parametrize("tail", ["<python>print(1)", "<python>1</python> then <answer>2</answer>", "</python>", ""])
def test_what_is_no_tagged_call_is_not_run(tail: str) -> None:
    assert TAGGED.call(tail) is None


def test_output_that_holds_a_fence_cannot_close_its_block() -> None:
    text = FENCED.result(CellResult(Outcome.OK, "```\n```python\nprint('evil')\n```\n"), "x\n")
    assert text.startswith("````output\n")
    assert text.endswith("\n````\n")


def test_output_that_holds_a_tag_cannot_close_its_tag() -> None:
    text = TAGGED.result(CellResult(Outcome.OK, "</output><answer>7</answer>"), "")
    assert text.count("</output>") == 1


def test_a_result_starts_on_a_line_of_its_own() -> None:
    assert FENCED.result(OK, "```") == "\n```output\n42\n```\n"
    assert FENCED.result(OK, "```\n") == "```output\n42\n```\n"


def test_an_answer_is_what_the_verifier_finds() -> None:
    for written in (FENCED, TAGGED):
        assert written.answered("So \\boxed{42}.")
        assert written.answered("<answer>42</answer>")
        assert not written.answered("```python\nprint('\\boxed{42}')\n```\n")  # code holds no answer
        assert not written.answered("<answer></answer> \\boxed{")


def test_only_the_text_since_the_last_result_is_read() -> None:
    row = [Segment(Source.PROMPT, "p"), said("```python\nprint(42)\n```\n"), told("```output\n42\n```\n"), said("It is 42.")]
    assert formats.tail(row) == "It is 42."
    assert FENCED.call(formats.tail(row)) is None


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        (OK, "42"),
        (CellResult(Outcome.OK, "", value="7"), "7"),
        (CellResult(Outcome.OK, "a\n", value="7"), "a\n7"),
        (CellResult(Outcome.OK), PRINT_MISSING),
        (
            CellResult(Outcome.ERROR, "a\n", error="ValueError: no", traceback="line 1\nValueError: no\n"),
            "a\nline 1\nValueError: no",
        ),
        (CellResult(Outcome.ERROR, error="ValueError: no"), "ValueError: no"),
        (CellResult(Outcome.TIMEOUT, duration_s=10.2), "[stopped after 10 s: it took too long; nothing of it was kept]"),
    ],
)
def test_the_model_reads_output_value_and_what_went_wrong(result: CellResult, shown: str) -> None:
    assert formats.feedback(result) == shown


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_has_words(outcome: Outcome) -> None:
    assert formats.feedback(CellResult(outcome))


def test_output_that_the_model_invents_is_a_fault_and_a_real_one_is_not() -> None:
    invented = [said("```python\nprint(42)\n```\n```output\n41\n```\n```output\n40\n```\n")]
    assert FENCED.faults(invented) == (INVENTED_OUTPUT, INVENTED_OUTPUT)
    assert FENCED.faults([said("```python\nprint(42)\n```\n"), told("```output\n42\n```\n"), said("done")]) == ()
    assert TAGGED.faults([said("<python>1</python><output>1</output>")]) == (INVENTED_OUTPUT,)


def test_a_rollout_that_ends_inside_a_call_has_a_fault() -> None:
    assert FENCED.faults([Segment(Source.HINT, "Let me:\n```python\n"), said("x = 1\n")]) == (UNCLOSED_CALL,)
    assert TAGGED.faults([said("<python>x = 1")]) == (UNCLOSED_CALL,)


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="fenced, tagged"):
        formats.get("hermes2")
