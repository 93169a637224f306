"""Where a hint can go: in the reasoning, at its turns, never in code or a quotation."""

import random
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest

from toolreason.errors import SettingsError
from toolreason.policies.base import Finish
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.strategies import places
from toolreason.strategies.base import View
from toolreason.strategies.places import Kind, Place, find
from toolreason.types import Cell, CellResult, Outcome, Segment, Source

POLICY = ScriptedPolicy([])
PROMPT = Segment(Source.PROMPT, "Wait, what is 2?", (1, 2))


def said(text: str) -> Segment:
    return Segment(Source.MODEL, text, POLICY.encode(text, special=True))


def view(*texts: Segment | str, end: str = "", stop: str | None = None) -> View:
    segments = [text if isinstance(text, Segment) else said(text) for text in texts]
    last = segments[-1]
    segments[-1] = said(last.text + end)
    finish = Finish.END if end or stop is None else Finish.STOP
    return View((PROMPT, *segments), finish, stop, len(end), decode=POLICY.decode)


def marked(text: str, **options: str) -> list[str]:
    """The kinds found in a text, with what follows each."""
    seen = view(text, **options)
    whole = seen.segments[-1].text
    return [f"{place.kind}: {whole[place.at : place.at + 12]}" for place in find(seen)]


def test_conjunctions_are_found_at_the_start_of_a_sentence() -> None:
    text = "It is 3. Wait, no. I wait, Waiting. Alternatively, 4.\nBut wait, hm.\n\nHmm, 5"
    assert marked(text)[:-1] == [
        "conjunction: Wait, no. I ",
        "conjunction: Alternativel",
        "conjunction: But wait, hm",
        "conjunction: Hmm, 5",
    ]


def test_code_and_quotations_hold_no_place() -> None:
    code = "Look:\n```python\n# a.\nWait, 1\n```\n> Wait, said he.\nSo 3. Wait, 4"
    assert marked(code) == ["conjunction: Wait, 4", "stop: "]
    hint = Segment(Source.HINT, "Let me:\n```python\n", (9,))
    opened = view(hint, "x = 1.\nWait, 2\n```\nDone. Wait, 3")
    assert [place.kind for place in find(opened)] == [Kind.CONJUNCTION, Kind.STOP]
    assert opened.segments[-1].text[find(opened)[0].at :] == "Wait, 3"


def test_a_result_ends_what_is_looked_at() -> None:
    tool = Segment(Source.TOOL, "```output\nWait, I\n", (9,), cell=Cell("1", "x", CellResult(Outcome.OK)))
    found = find(view("One. Wait, a\n```python\nx\n```\n", tool, "Two. Wait, b"))
    assert [(place.kind, place.at) for place in found] == [(Kind.CONJUNCTION, 5), (Kind.STOP, 12)]


def test_the_answer_begins_its_line_and_is_not_the_first_thing_said() -> None:
    assert marked("Hm.\n\nSo the box: \\boxed{2}", end="<|im_end|>") == ["answer: So the box: ", "stop: <|im_end|>"]
    assert marked("\\boxed{2}") == ["stop: "]


def test_thinking_ends_before_its_mark_and_what_follows_is_no_place() -> None:
    text = "<think>So. Wait, 3\n</think>\n\nOk. Wait, \\boxed{3}"
    assert marked(text, end="<|im_end|>") == ["conjunction: Wait, 3\n</th", "think_end: </think>\n\nOk"]
    assert marked("<think>So 3\n</think>", stop="</think>") == ["think_end: </think>"]


def test_early_conjunctions_are_left_out_by_the_number_of_tokens_before_them() -> None:
    text = "A. Wait, b. Wait, c"
    before = len(POLICY.encode("A. Wait, b. "))
    assert len(find(view(text), before)) == 2
    assert len(find(view(text), before + 1)) == 1
    assert [place.kind for place in find(view(text), 10_000)] == [Kind.STOP]  # the end is never too early


def test_many_turns_in_a_long_text_cost_few_decodings() -> None:
    decoded = 0

    def decode(ids: Sequence[int]) -> str:
        nonlocal decoded
        decoded += 1
        return POLICY.decode(ids)

    seen = replace(view("So it is three. Wait, no. " * 500, end="<|im_end|>"), decode=decode)
    assert len(find(seen, 48)) == 499
    assert decoded < 10


@pytest.mark.parametrize(
    "formula", ["\\[\nx = 2\n= \\boxed{4}\n\\]", "$$\n\\boxed{4}\n$$", "Final answer: $$x = \\boxed{4}$$", "\\boxed{4}"]
)
def test_a_display_formula_around_the_answer_is_not_torn_apart(formula: str) -> None:
    text = f"First \\[ 2 \\] and $$ 2 $$ too.\n{formula}\nDone."
    [answer] = [place for place in find(view(text, end="<|im_end|>")) if place.kind is Kind.ANSWER]
    assert text[answer.at :] == f"{formula}\nDone."


def test_what_follows_thoughts_that_were_closed_before_is_no_reasoning() -> None:
    assert [place.kind for place in find(view("<think>Hm.</think>", "So. Wait, 3.\nIt is \\boxed{3}", end="<|im_end|>"))] == [
        Kind.STOP
    ]


def test_a_text_without_an_end_and_without_turns_has_no_place() -> None:
    assert find(View((PROMPT,))) == ()
    assert find(View((PROMPT, said("so on")), Finish.LENGTH)) == ()


@pytest.mark.parametrize("text", ["\n" * 40_000, " " * 40_000, ". " * 40_000, "> " * 40_000, "Wait, " * 20_000, "```\n" * 20_000])
def test_no_text_takes_long(text: str) -> None:
    started = time.perf_counter()
    find(View((PROMPT, Segment(Source.MODEL, text)), Finish.END))
    assert time.perf_counter() - started < 5


FOUND = (Place(Kind.CONJUNCTION, 3, 9), Place(Kind.CONJUNCTION, 20, 26), Place(Kind.ANSWER, 30, 30), Place(Kind.STOP, 50, 50))


@pytest.mark.parametrize(("name", "at"), [("end", 50), ("answer", 30), ("last", 20), ("all", 3)])
def test_each_name_chooses_its_place(name: str, at: int) -> None:
    chosen = places.chooser(name)(FOUND, random.Random(0))
    assert chosen is not None
    assert chosen.at == at
    only_end = places.chooser(name)(FOUND[-1:], random.Random(0))
    assert only_end == FOUND[-1]


def test_random_takes_all_but_the_answer_and_the_same_with_the_same_seed() -> None:
    chosen = [places.chooser("random")(FOUND, random.Random(seed)) for seed in range(60)]
    assert {place.at for place in chosen if place} == {3, 20, 50}
    assert chosen == [places.chooser("random")(FOUND, random.Random(seed)) for seed in range(60)]


def second(found: tuple[Place, ...], draw: random.Random) -> Place:
    return found[1]


def test_a_chooser_of_ones_own_is_named_by_module_and_function() -> None:
    assert places.chooser(f"{__name__}:second")(FOUND, random.Random(0)) == FOUND[1]
    for wrong, told in [
        ("middle", "there are start, end"),
        ("no.module:f", "cannot be imported"),
        (f"{__name__}:none", "cannot be"),
    ]:
        with pytest.raises(SettingsError, match=told):
            places.chooser(wrong)
    with pytest.raises(SettingsError, match="no function"):
        places.chooser(f"{__name__}:FOUND")
