"""Reading traces: what is prose, what is the same program, where an answer stands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.curate.traces import hint, model, solved, tool, trace
from toolreason.curate import text
from toolreason.types import Source


def words(masked: str) -> str:
    return " ".join(masked.replace(text.BLANK, " ").split())


def test_prose_is_what_model_and_hints_say_outside_of_code() -> None:
    one = trace(model("Hm."), hint(), model("print(1)\n```\nok"), tool("print(1)", "no"), model("<python>x</python> end"))
    masked = text.prose(one.segments)
    assert len(masked) == len(one.text)
    assert words(masked) == "Hm. Wait, maybe using Python here is a good idea: ok end"
    assert words(text.prose(one.segments, Source.MODEL)) == "Hm. ok end"


@given(st.lists(st.sampled_from(["```python\n", "```\n", "~~~\n", "word ", "\n", "é🧮"]), max_size=12).map("".join))
def test_prose_has_each_character_at_its_place_or_a_blank(said: str) -> None:
    one = trace(model(said), tool("x", "y"), model(said))
    masked = text.prose(one.segments)
    assert all(a in (b, text.BLANK) for a, b in zip(masked, one.text, strict=True))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("print(6*7)", "print( 6 * 7 )  # product\n\n", True),
        ("if x:\n  y()\n", "if x:\n        y()\n", True),
        ("x = 1", "x = 2", False),
        ("print('a b')", "print('a  b')", False),
        ("if x:\n  y()\nz()", "if x:\n  y()\n  z()", False),
        ("this is 'no program", "this is   'no program", True),
        ("\0", "\0 ", True),
    ],
)
def test_programs_are_the_same_up_to_comments_and_layout(one: str, other: str, same: bool) -> None:
    assert (text.program(one) == text.program(other)) is same


def test_traces_are_the_same_by_programs_and_without_any_by_words() -> None:
    assert text.identity(solved("print(6*7)")) == text.identity(solved("print(6 * 7)", id_="other"))
    assert text.identity(solved("print(6*7)")) != text.identity(solved("print(42)"))
    assert text.identity(trace(model("a  b"))) == text.identity(trace(model("a b"))) != text.identity(trace(model("a c")))


@pytest.mark.parametrize(
    ("answer", "said", "found"),
    [
        ("42", "it is 42.", True),
        ("42", "it is 42.0", True),
        ("42", "142, 42.5, 0.42, x42", False),
        ("1,234", "1234", True),
        ("1234", "$1,234$ dollars", True),
        ("-3", "-3", True),
        (r"\frac{1}{2}", "0.5", True),
        (r"x^{2}+1", "x^2+1", True),
        ("Paris", "in paris!", True),
        ("Paris", "Parisian", False),
        ("", "anything", False),
        ("7", "9" * 5000, False),
    ],
)
def test_an_answer_is_found_as_a_number_of_equal_value_or_as_written(answer: str, said: str, found: bool) -> None:
    assert text.mentions(answer, said) is found


def test_the_share_of_repeated_runs() -> None:
    once = " ".join(f"w{n}" for n in range(30))
    assert text.repeated_share(once, 3) == 0
    assert text.repeated_share(f"{once} {once}", 3) == pytest.approx(28 / 58)
    assert text.repeated_share("a a a", 3) == 0  # too short to tell
