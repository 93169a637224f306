"""Where the final answer stands in a response."""

import time

import pytest

from toolreason.types import Cell, CellResult, Outcome, Segment, Source
from toolreason.verify import extract

TEN_BOXES = " ".join(rf"\boxed{{{n}}}" for n in range(1, 11))


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("no answer here: 42", None),
        ("", None),
        (r"so \boxed{42}", "42"),
        (r"so \boxed {42}", "42"),
        (r"so \fbox{42}", "42"),
        (r"$\boxed{\frac{1}{2}}$", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\left\{ x \mid x > 0 \right\}}", r"\left\{ x \mid x > 0 \right\}"),
        (r"\boxed{\text{a {nested} word}}", r"\text{a {nested} word}"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{x = \boxed{3} }", "3"),
        (r"\boxed{}", None),
        (r"\boxed{3} but \boxed{  }", None),
        (r"\boxed{3} and then \boxed{4", "3"),
        (r"{ \boxed{3}", "3"),
        (r"} \boxed{3} }", "3"),
        (r"\boxed 3", None),
        (TEN_BOXES, "10"),
        ("<answer>7</answer>", "7"),
        ("<answer>7</answer> no, <answer> 8 </answer>", "8"),
        (r"<answer>7</answer> \boxed{9}", "7"),
        (r"<answer>\boxed{9}</answer>", "9"),
        (r"<answer></answer> \boxed{9}", "9"),
        (r"<answer>7 \boxed{9}", "9"),
        ("<answer>a <answer>b</answer>", "b"),
        (r"\boxed{5}<|im_end|>", "5"),
        (r"\boxed{5<|im_end|>}", "5"),
        ("<answer>5</s></answer><|endoftext|>", "5"),
        ("```python\nprint(r'\\boxed{1}')\n```\nIt is \\boxed{2}.", "2"),
        ("It is \\boxed{2}.\n```python\nprint(r'\\boxed{1}')\n```\n", "2"),
        ("```python\nprint(r'\\boxed{1}')\n", None),
        ("~~~\n\\boxed{1}\n~~~", None),
        ("````\n```\n\\boxed{1}\n```\n````", None),
        ("<think>\\boxed{1}</think> \\boxed{2}", "2"),
    ],
)
def test_the_last_answer_counts(response, answer):
    assert extract.answer(response) == answer


@pytest.mark.parametrize("piece", [r"\boxed{", "<answer>", r"\boxed{}", "}", "```\n", "answer ", "\\", "{", "Answer:" + " " * 50])
def test_degenerate_repetition_takes_linear_time(piece):
    start = time.process_time()
    response = piece * 20_000
    extract.answer(response)
    extract.choice(response, ("x", "y"))
    extract.program(response)
    assert time.process_time() - start < 20  # quadratic would be minutes


def test_deeply_nested_boxes_are_opened():
    assert extract.answer(r"\boxed{" * 20_000 + "3" + "}" * 20_000) == "3"


CHOICES = ("red", "blue", "dark green")


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        (r"\boxed{B}", "B"),
        (r"\boxed{(B)}", "B"),
        (r"\boxed{b}", "B"),
        (r"\boxed{B.}", "B"),
        (r"\boxed{\text{(B)}}", "B"),
        (r"\boxed{B) blue}", "B"),
        (r"\boxed{B: blue}", "B"),
        (r"\boxed{\text{blue}}", "B"),
        (r"\boxed{Dark  Green}", "C"),
        ("<answer>C</answer>", "C"),
        ("Answer: (B)", "B"),
        ("First I thought Answer: A.\n**Answer:** **B**", "B"),
        ("The answer is C.", "C"),
        ("The answer is a difficult one", None),
        (r"\boxed{D}", None),
        (r"\boxed{A and B}", None),
        (r"\boxed{A) red or B) blue}", None),
        (r"\boxed{purple}", None),
        ("B", None),
    ],
)
def test_the_chosen_letter(response, letter):
    assert extract.choice(response, CHOICES) == letter


def test_a_letter_names_the_option_at_its_place_even_where_options_are_letters():
    assert extract.choice(r"\boxed{B}", ("B", "A")) == "B"
    assert extract.choice(r"\boxed{Y}", ("X", "Y")) == "B"


@pytest.mark.parametrize(
    ("response", "program"),
    [
        ("```python\na\n```\n```py\nb\n```", "b\n"),
        ("```python\na\n```\n```output\n3\n```", "a\n"),
        ("```python\na\n```\n```\nb\n```", "a\n"),
        ("```\nb\n```", "b\n"),
        ("```python\na\n```\n```python\nb", "a\n"),
        ("```python\n```", None),
        ("def f(): pass", None),
    ],
)
def test_the_last_whole_python_block_is_the_program(response, program):
    assert extract.program(response) == program


def tool(text):
    return Segment(Source.TOOL, text, cell=Cell("c", "", CellResult(Outcome.OK)))


def test_only_the_model_and_hints_speak():
    segments = [
        Segment(Source.PROMPT, r"Put it in \boxed{1}. "),
        Segment(Source.MODEL, "I run\n```python\nprint(5)"),
        tool("\n```output\n\\boxed{2}\n```\n"),
        Segment(Source.HINT, "Wait. "),
        Segment(Source.MODEL, r"So \boxed{3}"),
    ]
    text = extract.own_text(segments)
    assert "boxed{1}" not in text
    assert "boxed{2}" not in text
    assert extract.answer(text) == "3"  # the block that the output interrupted swallows nothing
    assert extract.answer(extract.own_text(segments[:3])) is None
