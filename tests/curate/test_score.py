"""The score: each part moves it as its sentence says."""

from __future__ import annotations

import pytest

from tests.curate.traces import hint, model, row, solved, tool, trace
from toolreason.curate import score
from toolreason.curate.settings import CurateSettings

SETTINGS = CurateSettings(max_tokens=1000)
ANSWER = model(r"\boxed{42}")


def test_the_weights_share_out_one() -> None:
    assert sum(score.WEIGHTS.values()) == pytest.approx(1)


def test_an_answer_that_a_cell_gave_first_beats_one_it_confirms_and_that_one_it_never_gave() -> None:
    def grounded(*segments: object) -> float:
        return score.parts(trace(*segments), SETTINGS)["grounded"]  # type: ignore[arg-type]

    assert grounded(hint(), model("print(6*7)\n```\n"), tool("print(6*7)", "42"), ANSWER) == 1
    assert grounded(model("It is 42."), tool("print(6*7)", "42.0"), ANSWER) == 0.5
    assert grounded(model("print(42)\n"), tool("print(42)", "42"), ANSWER) == 0.5  # the code holds it
    assert grounded(tool("print(1)", "1"), ANSWER) == 0
    assert grounded(tool("f()", error="ValueError: 42"), ANSWER) == 0
    assert grounded(ANSWER) == 0


def test_failures_faults_and_length_cost() -> None:
    good = score.scored(row(solved()), SETTINGS)
    failed = trace(tool("1/0", error="E"), *solved().segments[1:])
    assert score.scored(row(failed), SETTINGS).parts["clean"] == 0.5
    assert score.scored(row(solved(faults=("invented_output",))), SETTINGS).parts["format"] == 0.5
    assert score.scored(row(solved()), CurateSettings(max_tokens=1)).parts["short"] == 0
    assert 0.9 < good.score <= 1
    assert good.score == pytest.approx(score.total(good.parts), abs=1e-6)


def test_the_score_does_not_look_at_the_verdict() -> None:
    right, wrong = solved(), solved(right=False)
    assert score.parts(right, SETTINGS) == score.parts(wrong, SETTINGS)
