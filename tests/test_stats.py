"""Intervals and tests against published or hand-computed values; what a tally counts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolreason.stats import Rate, Tally, bootstrap_ratio, holm, mcnemar, paired, sign_flip, wilson
from toolreason.types import Cell, CellResult, Judgement, Outcome, Segment, Source, StopReason, TakenBack, Trajectory, Verdict


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662), (0, 0, 0.0, 1.0)],
)
def test_wilson_interval_has_the_known_values(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=1e-4)  # 81/263: Newcombe 1998, table I


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_rate_and_stays_a_share(case: tuple[int, int]) -> None:
    low, high = wilson(*case)
    assert 0 <= low <= case[0] / case[1] <= high <= 1


@pytest.mark.parametrize(
    ("first", "second", "p"), [(0, 0, 1.0), (5, 5, 1.0), (5, 15, 0.041389), (0, 6, 0.03125), (1, 9, 0.021484), (10, 0, 0.001953)]
)
def test_mcnemar_has_the_known_exact_values_and_is_symmetric(first: int, second: int, p: float) -> None:
    assert mcnemar(first, second) == pytest.approx(p, abs=1e-6)
    assert mcnemar(second, first) == mcnemar(first, second)


def test_mcnemar_of_large_counts_does_not_overflow() -> None:
    assert 0 < mcnemar(2400, 2600) < 0.01


def test_pairs_count_only_keys_that_both_conditions_have() -> None:
    pairs = paired(
        {"a": True, "b": True, "c": False, "d": False, "e": True}, {"a": True, "b": False, "c": True, "d": False, "f": True}
    )
    assert (pairs.both, pairs.only_first, pairs.only_second, pairs.neither) == (1, 1, 1, 1)


def trajectory(judgement: Judgement | None, *, stop: StopReason = StopReason.ANSWERED, outcome: Outcome = Outcome.OK) -> Trajectory:
    cell = Cell("c1", "print(1)", CellResult(outcome))
    segments = (
        Segment(Source.PROMPT, "ab", (1, 2)),
        Segment(Source.MODEL, "abc", (1, 2, 3)),
        Segment(Source.TOOL, "a", (1,), cell=cell),
    )
    verdict = None if judgement is None else Verdict(judgement, reason="why" if judgement is Judgement.UNSCORED else "")
    return Trajectory("id", "p", "plain", "scripted", segments, stop, verdict=verdict, faults=("invented_output",), error="gone")


def test_unscored_and_aborted_rollouts_are_in_no_rate() -> None:
    tally = Tally(5)
    for judgement in (Judgement.CORRECT, Judgement.WRONG, Judgement.UNSCORED):
        tally.add(trajectory(judgement))
    tally.add(trajectory(None, stop=StopReason.ABORTED))
    one = tally.summary(wall_s=2.0)
    assert (one.accuracy, one.correct, one.scored, one.unscored, one.aborted, one.finished) == (0.5, 1, 2, 1, 1, 3)
    assert one.unscored_reasons == {"why": 1}
    assert one.tokens == {"prompt": 6, "model": 9, "hint": 0, "tool": 3}
    assert one.tokens_per_s == 6.0  # 12 model tokens, the aborted rollout's among them, in 2 s
    assert one.last_error == "gone"


def test_failing_cells_are_shares_by_outcome() -> None:
    tally = Tally(4)
    for outcome in (Outcome.OK, Outcome.OK, Outcome.TIMEOUT, Outcome.ERROR):
        tally.add(trajectory(Judgement.WRONG, outcome=outcome))
    one = tally.summary()
    assert one.failing_cells == {"timeout": 0.25, "error": 0.25}
    assert (one.calls, one.cells, one.faults, one.stops) == (1.0, 4, {"invented_output": 4}, {"answered": 4})


def test_nothing_scored_is_no_accuracy_rather_than_zero() -> None:
    one = Tally(0).summary()
    assert one.accuracy is None
    assert (one.low, one.high) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("differences", "p"),
    [([], 1.0), ([0, 0], 1.0), ([3, 2, 1], 0.25), ([2, -1], 1.0), ([1, 1, 1, 2], 0.125), ([4, 1, -1], 0.75), ([2] * 10, 2 / 1024)],
)
def test_sign_flip_counts_all_assignments_of_signs(differences: list[int], p: float) -> None:
    assert sign_flip(differences) == p
    assert sign_flip([-one for one in differences]) == p


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5))
def test_sign_flip_of_single_samples_is_mcnemars_exact_test(first: int, second: int, ties: int) -> None:
    assert sign_flip([1] * first + [0] * ties + [-1] * second) == pytest.approx(mcnemar(first, second), rel=1e-12)


def test_sign_flip_of_thousands_of_problems_does_not_overflow() -> None:
    assert 0 < sign_flip([1] * 2600 + [-1] * 2400) < 0.01


@pytest.mark.parametrize(
    ("given", "adjusted"),
    [([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]), ([0.5, 0.9], [1.0, 1.0]), ([0.02], [0.02]), ([], [])],
)
def test_holm_has_the_known_values(given: list[float], adjusted: list[float]) -> None:
    assert holm(given) == pytest.approx(adjusted)


def test_the_bootstrap_interval_has_the_width_that_theory_gives() -> None:
    clusters = [(1, 1)] * 120 + [(0, 1)] * 220 + [(-1, 1)] * 60  # mean 0.15, variance 0.45 - 0.15² over 400 problems
    low, high = bootstrap_ratio(clusters, seed=3)
    half = 1.96 * math.sqrt((0.45 - 0.15**2) / 400)
    assert (low, high) == pytest.approx((0.15 - half, 0.15 + half), abs=0.006)
    assert bootstrap_ratio(clusters, seed=3) == (low, high)


def test_more_samples_of_the_same_problems_make_no_narrower_interval() -> None:
    once = [(1, 1), (0, 1), (-1, 1), (1, 1), (0, 1), (1, 1)]
    assert bootstrap_ratio([(4 * top, 4) for top, _ in once], seed=1) == bootstrap_ratio(once, seed=1)
    uneven = bootstrap_ratio([(2, 2), (0, 1), (-1, 2), (1, 1)], seed=1)
    assert -0.5 <= uneven[0] <= 2 / 6 <= uneven[1] <= 1


def test_a_bootstrap_of_nothing_is_refused_and_of_no_difference_is_a_point() -> None:
    with pytest.raises(ValueError, match="not empty"):
        bootstrap_ratio([])
    assert bootstrap_ratio([(0, 1)] * 9) == (0.0, 0.0)


def test_a_rate_counts_what_is_right_or_wrong_and_nothing_else() -> None:
    assert Rate.of([True, None, False, True]) == Rate(2, 3, 2 / 3, *wilson(2, 3))
    assert Rate.of([None]) == Rate(0, 0, None, 0.0, 1.0)


def test_the_speed_counts_what_was_drawn_and_taken_back() -> None:
    kept, lost = Segment(Source.MODEL, "ab", (1, 2)), TakenBack(1, Segment(Source.MODEL, "cde", (3, 4, 5)))
    tally = Tally(1)
    tally.add(Trajectory("t", "p", "hint_infer", "m", (kept,), StopReason.ANSWERED, taken_back=(lost,)))
    assert (tally.sampled, tally.tokens["model"]) == (5, 2)
