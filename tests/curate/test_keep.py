"""The keep rule: plain wrong, hinted right, and what cannot be told is counted apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.curate.traces import CODEC, hint, model, row, solved, tool, trace
from toolreason.curate import keep, pipeline
from toolreason.curate.keep import Plain
from toolreason.curate.settings import CurateSettings
from toolreason.curate.steps import sieve
from toolreason.policies.scripted import END
from toolreason.types import StopReason, Trajectory

SETTINGS = CurateSettings()


def plain(right: bool | None, stop: StopReason = StopReason.ANSWERED) -> Trajectory:
    return trace(model("I guess."), right=right, stop=stop)


@pytest.mark.parametrize(
    ("rollouts", "state"),
    [
        ([plain(False)], Plain.WRONG),
        ([plain(True)], Plain.RIGHT),
        ([plain(None)], Plain.UNSCORED),
        ([plain(False, StopReason.LENGTH)], Plain.UNFINISHED),
        ([plain(True, StopReason.ABORTED)], Plain.MISSING),
        ([plain(False), plain(True)], Plain.RIGHT),
        ([plain(False), plain(None)], Plain.UNSCORED),
        ([plain(False), plain(False)], Plain.WRONG),
        ([plain(False), plain(False, StopReason.ABORTED)], Plain.WRONG),
        ([replace(plain(False), verdict=None)], Plain.UNSCORED),
    ],
)
def test_plain_is_wrong_only_where_every_rollout_was_judged_wrong(rollouts: list[Trajectory], state: Plain) -> None:
    assert keep.plain_states(rollouts, SETTINGS) == {"p": state}


def test_a_plain_rollout_that_ran_out_of_tokens_counts_as_wrong_on_request() -> None:
    settings = CurateSettings(plain_answered=False)
    assert keep.plain_states([plain(False, StopReason.LENGTH)], settings) == {"p": Plain.WRONG}


def test_only_right_and_finished_hinted_traces_of_such_problems_stay_and_each_other_is_told_why() -> None:
    states = {"p": Plain.WRONG, "easy": Plain.RIGHT, "open": Plain.UNSCORED}
    rows = [
        row(solved(id_="good")),
        row(solved(id_="wrong", right=False)),
        row(solved(id_="unscored", right=None)),
        row(solved(id_="cut", stop=StopReason.LENGTH)),
        row(solved(id_="aborted", stop=StopReason.ABORTED)),
        row(solved(problem="easy")),
        row(solved(problem="open")),
        row(solved(problem="other")),
    ]
    left, step = sieve("keep", rows, lambda one: keep.hint_rft(one, states))
    assert [one.trajectory.id for one in left] == ["good"]
    assert step.fell == {
        "wrong": 1,
        "unscored": 1,
        "did not end with an answer": 1,
        "aborted": 1,
        "plain was right": 1,
        "plain unscored": 1,
        "no plain rollout": 1,
    }
    told = step.to_dict()
    assert (told["rows"], told["rows_left"], told["problems"], told["problems_left"]) == (8, 1, 4, 1)


def test_a_step_keeps_three_examples_and_counts_all() -> None:
    _, step = sieve("keep", [row(solved(id_=str(n), right=False)) for n in range(9)], keep.right)
    assert step.fell["wrong"] == 9
    assert [one["id"] for one in step.examples["wrong"]] == ["0", "1", "2"]


def test_an_answer_that_only_the_verifier_reads_is_one_too() -> None:
    program = "def f(): return 0\n"
    wrote = trace(model("A program."), right=False, stop=StopReason.NO_ANSWER, answer=program)
    assert keep.plain_states([wrote], SETTINGS) == {"p": Plain.WRONG}
    assert keep.right(row(trace(model("A program."), stop=StopReason.NO_ANSWER, answer=program))) is None
    assert keep.plain_states([trace(model("?"), right=False, stop=StopReason.NO_ANSWER, answer=None)], SETTINGS) == {
        "p": Plain.UNFINISHED
    }


def test_a_row_whose_only_cell_goes_with_the_text_after_its_answer_falls() -> None:
    said = model("I get \\boxed{42}.\nSo the answer is \\boxed{42}.\n")
    cell = tool("print(6*7)", "42\n")
    late = trace(said, hint(), model("print(6*7)\n```\n"), cell, model(f"Yes, \\boxed{{42}}.{END}"))
    made = pipeline.hint_rft([plain(False)], [row(late)], CODEC, SETTINGS)
    assert not made.rows
    assert {step.name: dict(step.fell) for step in made.steps if step.fell} == {"filters again": {"no executed cell": 1}}
    assert len(pipeline.rft([row(late)], CODEC, SETTINGS).rows) == 1
