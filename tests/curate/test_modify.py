"""The modifications: what they change, what they leave, and that what they leave is exact."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.curate.traces import CODEC, HINT_TEXT, hint, model, prompt, row, solved, tool, trace
from toolreason.curate import modify
from toolreason.curate.settings import CurateSettings
from toolreason.curate.steps import Fall, Row
from toolreason.policies.scripted import END
from toolreason.types import Segment, Source, TakenBack, Trajectory
from toolreason.verify import extract

SETTINGS = CurateSettings()


def changed(*segments: Segment, settings: CurateSettings = SETTINGS) -> Row | Fall:
    return modify.modified(row(trace(*segments)), CODEC, settings)


def response(done: Row | Fall) -> str:
    assert isinstance(done, Row), done
    assert modify.exact(done.trajectory, CODEC)
    return done.trajectory.response


def test_a_clean_trace_is_the_same_object() -> None:
    one = row(solved())
    assert modify.modified(one, CODEC, SETTINGS) is one


@pytest.mark.parametrize(
    ("line", "after"),
    [
        ("```python3\n", "```python\n"),
        ("``` python\n", "```python\n"),
        ("```py\n", "```python\n"),
        ("```Python title=x\n", "```python\n"),
        ("````py\n", "````python\n"),
    ],
)
def test_fences_of_python_have_one_style(line: str, after: str) -> None:
    close = "`" * (4 if line.startswith("````") else 3) + "\n"
    before = model(f"Now:\n{line}print(1)\n{close}")
    done = changed(before, tool("print(1)", "1"), model(r"\boxed{42}"))
    assert response(done).startswith(f"Now:\n{after}print(1)\n{close}")
    assert isinstance(done, Row)
    assert done.edits == (f"fence: {line.strip().lstrip('`').strip()} -> python",)
    edited, rest = done.trajectory.segments[1], done.trajectory.segments[2:]
    assert edited.logprobs is None
    assert [s.token_ids for s in rest] == [tool("print(1)", "1").token_ids, model(r"\boxed{42}").token_ids]
    assert [s.logprobs for s in rest] == [None, None]  # they were measured after another text


def test_where_taking_away_does_it_no_token_is_encoded_anew() -> None:
    before = model("```python3\nx\n```\n")
    done = changed(before, model(r"\boxed{42}"))
    assert isinstance(done, Row)
    kept = done.trajectory.segments[1].token_ids
    left = iter(before.token_ids)
    assert all(token in left for token in kept)
    assert len(kept) == len(before.token_ids) - 1


def test_other_fences_and_results_stay() -> None:
    said = "```json\n{}\n```\n~~~py\nx\n~~~\n```python\ny\n```\nSee ```py in a line"
    assert response(changed(model(said), model(r" \boxed{42}"))) == said + r" \boxed{42}"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Wait, Wait, that is odd.", "Wait, that is odd."),
        ("Hm. Wait, wait, that is odd.", "Hm. Wait, that is odd."),
        ("Wait. Wait. Wait, so?", "Wait, so?"),
        ("But, but why", "But why"),
        ("Alternatively Alternatively, no", "Alternatively, no"),
        ("Wait, what? Wait, no.", "Wait, what? Wait, no."),
        ("Waiter, Wait, no", "Waiter, Wait, no"),
        ("```python\n# Wait, Wait, x\n```\n", "```python\n# Wait, Wait, x\n```\n"),
        ("Wait,\n```text\nx\n```\nWait, no", "Wait,\n```text\nx\n```\nWait, no"),
    ],
)
def test_doubled_conjunctions_become_one(before: str, after: str) -> None:
    assert response(changed(model(before + r" \boxed{42}"))) == after + r" \boxed{42}"


def test_a_hint_that_doubles_the_models_word_stays_whole() -> None:
    before = [model("So 12. Wait,"), hint(), model("print(42)\n```\n"), tool("print(42)", "42"), model(r"\boxed{42}")]
    done = changed(*before)
    assert response(done).startswith("So 12. " + HINT_TEXT + "print(42)")
    assert isinstance(done, Row)
    assert done.trajectory.segments[2] == hint()


def test_words_on_both_sides_of_a_result_are_not_doubled() -> None:
    before = [model("```python\nprint(42)\n```\n"), tool("print(42)", "42"), model(r"Wait, no. \boxed{42}")]
    assert response(changed(model("Wait, "), *before)).count("Wait,") == 2


def test_what_follows_the_second_final_answer_goes_and_the_end_token_stays() -> None:
    said = "First \\boxed{42}.\nSo \\boxed{42}$.\n"
    done = changed(model(f"{said}Human: another question? \\boxed{{42}}{END}"))
    assert response(done) == said.rstrip("\n") + END
    assert isinstance(done, Row)
    last = done.trajectory.segments[-1]
    assert last.token_ids[-1] in CODEC.end_ids
    assert last.logprobs is None


def test_without_an_end_token_the_log_probabilities_stay() -> None:
    before = model("\\boxed{42}\n\\boxed{42}\nand so on")
    done = changed(before)
    assert isinstance(done, Row)
    last = done.trajectory.segments[-1]
    assert before.logprobs is not None
    assert last.logprobs == before.logprobs[: len(last.token_ids)]


def test_calls_after_the_second_answer_go_with_their_results() -> None:
    cell = [hint(), model("print(42)\n```\n"), tool("print(42)", "42")]
    done = changed(model(r"\boxed{42}"), *cell, model("So \\boxed{42}\n"), *cell, model(rf"\boxed{{42}}{END}"))
    assert isinstance(done, Row)
    assert len(done.trajectory.cells) == 1
    assert done.trajectory.response.endswith(f"So \\boxed{{42}}{END}")


@pytest.mark.parametrize(
    "said",
    [
        r"\boxed{41} no, \boxed{42} and nothing more",
        r"\boxed{42} or \boxed{41}? No: \boxed{42}",
        "\\boxed{42}\n\\[\\boxed{42}\n\\]\n",
        "<think>\\boxed{42}\n\\boxed{42}\nhm</think>It is \\boxed{42}.",
        "```python\nprint('\\\\boxed{42}')\n```\n\\boxed{42}\nfine",
        "\\boxed{42} and \\boxed{42",
    ],
)
def test_nothing_goes_where_the_final_answer_does_not_stand_twice_before_it(said: str) -> None:
    assert response(changed(model(said + END))) == said + END


def test_equal_answers_in_other_spelling_count_as_the_same() -> None:
    done = changed(model("\\boxed{1{,}234}\n<answer>1,234</answer>\nand then"))
    assert response(done) == "\\boxed{1{,}234}\n<answer>1,234</answer>"


def test_each_modification_can_be_switched_off() -> None:
    said = "Wait, Wait,\n```py\nx\n```\n\\boxed{42}\n\\boxed{42}\nmore"
    off = CurateSettings(fences=False, conjunctions=False, after_answer=False)
    assert response(changed(model(said), settings=off)) == said
    done = changed(model(said))
    assert isinstance(done, Row)
    assert [edit.partition(":")[0] for edit in done.edits] == ["after the second answer", "fence", "doubled"]


def test_a_fence_that_reaches_over_segments_costs_the_row() -> None:
    done = changed(model("```p"), hint("y\nx\n```\n"), model(r"\boxed{42}"))
    assert isinstance(done, Fall)
    assert done.reason == "fences: not on token boundaries"


def test_what_was_taken_back_is_dropped_only_with_a_modification() -> None:
    taken = (TakenBack(2, model("x")),)
    for said, left in (("Wait, so", taken), ("Wait, Wait, so", ())):
        one = replace(trace(model(said), model(r"\boxed{42}")), taken_back=taken)
        done = modify.modified(row(one), CODEC, SETTINGS)
        assert isinstance(done, Row)
        assert done.trajectory.taken_back == left


def test_ids_of_another_tokenizer_are_noticed() -> None:
    one = trace(model("fine"))
    assert modify.exact(one, CODEC)
    other = replace(one.segments[1], token_ids=(1_000_000,) * len(one.segments[1].token_ids))
    assert not modify.exact(replace(one, segments=(one.segments[0], other)), CODEC)
    assert not modify.exact(replace(one, segments=(Segment(Source.PROMPT, "text only"),)), CODEC)


PIECES = st.sampled_from(
    [
        "```py\n",
        "```python3\n",
        "```python\n",
        "```\n",
        "Wait, ",
        "Wait",
        "wait",
        " ",
        "\n",
        "\\boxed{42}",
        "\\boxed{4}",
        "é🧮",
        " the",
        "x",
    ]
)
TEXTS = st.lists(PIECES, max_size=14).map("".join)
TRACES = st.tuples(TEXTS, TEXTS, TEXTS, st.booleans())


@given(TRACES)
def test_whatever_was_said_a_modified_trace_is_exact_and_means_the_same(parts: tuple[str, str, str, bool]) -> None:
    first, second, third, ended = parts
    before = trace(model(first), hint(), model(second), tool("x", "42 Wait, Wait,"), model(third + END * ended))
    done = modify.modified(row(before), CODEC, SETTINGS)
    if isinstance(done, Fall):
        return
    after = done.trajectory
    assert modify.exact(after, CODEC)
    assert after.segments[0] == prompt()
    sources = iter(segment.source for segment in before.segments)
    assert all(segment.source in sources for segment in after.segments)
    assert all(segment in before.segments for segment in after.segments if segment.source is Source.TOOL)
    assert extract.answer(own(after)) == extract.answer(own(before))
    assert after.tokens() <= before.tokens() + 6 * sum(edit.startswith("fence") for edit in done.edits)
    again = modify.modified(done, CODEC, SETTINGS)
    assert isinstance(again, Fall) or again.trajectory == after  # nothing is left to do


def own(one: Trajectory) -> str:
    return extract.own_text(one.segments)


def test_the_step_counts_and_shows() -> None:
    rows = [row(solved(id_="a")), row(trace(model(r"Wait, Wait, \boxed{42}"), id_="b"))]
    rows.append(row(trace(model("```p"), hint("y\nx\n```\n"), id_="c")))
    left, step = modify.modify(rows, CODEC, SETTINGS)
    assert [one.trajectory.id for one in left] == ["a", "b"]
    assert (step.changed, step.fell) == ({"doubled": 1}, {"fences: not on token boundaries": 1})
    assert step.examples["changed: doubled"][0]["id"] == "b"
