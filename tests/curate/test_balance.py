"""B-STaR's measures, by hand and by what has to hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolreason.curate import balance
from toolreason.curate.balance import Response, Setting


def right(reward: float = 1.0, identity: str = "a") -> Response:
    return Response(True, reward, identity)


def wrong(reward: float = 0.0, identity: str = "w") -> Response:
    return Response(False, reward, identity)


GROUPS = {
    "easy": [right(0.9, "a"), right(0.8, "b"), right(0.7, "b"), wrong(0.1)],
    "hard": [right(0.2, "a"), wrong(0.9), wrong(0.8), wrong(0.1)],
    "lost": [wrong(0.5), wrong(0.5)],
}


def test_pass_at_k_s_wants_s_unique_right_responses() -> None:
    assert [balance.pass_at(GROUPS, s) for s in (1, 2, 3)] == [pytest.approx(2 / 3), pytest.approx(1 / 3), 0]


def test_reward_at_k_s_wants_the_s_best_to_be_right() -> None:
    assert [balance.reward_at(GROUPS, s) for s in (1, 3, 4)] == [pytest.approx(1 / 3), pytest.approx(1 / 3), 0]
    assert balance.reward_at({"p": [right(0.5), wrong(0.5)]}, 1) == 0  # a tie helps nobody
    assert balance.reward_at({"p": [right(0.5)]}, 2) == 0


def test_the_balance_score_is_equation_three() -> None:
    sixteen = [right(identity=str(n)) for n in range(16)]
    assert balance.balance_score([right(identity="a"), right(identity="b")], 8) == 2 / 8
    assert balance.balance_score([*sixteen, *[wrong()] * 48], 8) == 16 / 64
    assert balance.balance_score(sixteen, 8) == 1
    assert balance.balance_score([right(identity="a"), right(identity="a")], 1) == 1 / 2  # alike: one of two is new
    assert balance.balance_score([], 8) == 0


def test_the_average_counts_problems_with_nothing_selected() -> None:
    assert balance.balance(GROUPS, 0.75, 2) == pytest.approx((1 + 0 + 0) / 3)
    assert balance.balance(GROUPS, 0.0, 2) == pytest.approx((2 / 3 + 1 / 2 * 1 + 0) / 3)
    assert balance.balance(GROUPS, 0.0, 2, answer=False) == pytest.approx((2 / 4 + 1 / 2 * 1 / 4 + 0) / 3)
    assert balance.balance({}, 0.0, 2) == 0


def test_separation_is_the_share_of_pairs_in_the_right_order() -> None:
    assert balance.separation(GROUPS) == pytest.approx((3 * 1 + 1) / (3 + 3))
    assert balance.separation({"p": [right(0.5), wrong(0.5)]}) == 0.5
    assert balance.separation({"p": [right()], "q": [wrong()]}) is None


def test_distinct_is_over_right_responses() -> None:
    assert balance.distinct(GROUPS) == pytest.approx(3 / 4)
    assert balance.distinct({"p": [wrong()]}) is None


def test_n_star_is_rows_by_problems_rounded_up() -> None:
    assert [balance.target_for(*pair) for pair in ((10, 4), (8, 4), (1, 4), (5, 0))] == [3, 2, 1, 1]


def test_the_best_of_equal_scores_is_the_least_strict() -> None:
    lines = [Setting("a", 1.0, 0.5, 0.4), Setting("b", 0.6, 0.0, 0.4), Setting("c", 0.8, 0.0, 0.3)]
    assert balance.best(lines).run == "b"


RESPONSES = st.lists(st.builds(Response, st.booleans(), st.sampled_from([0.0, 0.3, 0.6, 1.0]), st.sampled_from("abc")), max_size=8)


@given(st.dictionaries(st.sampled_from("pqr"), RESPONSES), st.sampled_from([0.0, 0.5, 1.0]), st.integers(1, 4))
def test_all_measures_are_shares_and_fall_with_s(groups: dict[str, list[Response]], threshold: float, target: int) -> None:
    told = balance.measures(groups, target=target, threshold=threshold)
    flat = [*told["exploration"].values(), *told["exploitation"].values(), told["balance_score"]]
    assert all(value is None or 0 <= value <= 1 for value in flat)
    assert balance.pass_at(groups, target + 1) <= balance.pass_at(groups, target)
    assert balance.reward_at(groups, target + 1) <= balance.reward_at(groups, target)
    assert balance.balance(groups, threshold, target + 1) <= balance.balance(groups, threshold, target)
