"""The keep rule: plain wrong, hinted right, and what cannot be told is counted apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.curate.traces import model, row, solved, trace
from toolreason.curate import keep
from toolreason.curate.keep import Plain
from toolreason.curate.settings import CurateSettings
from toolreason.curate.steps import sieve
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
