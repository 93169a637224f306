"""Self-Certainty: exact from all log-probabilities, a lower bound from the largest."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolreason.policies.certainty import mean, self_certainty

LOGITS = st.lists(st.floats(-8, 8), min_size=2, max_size=60)


def normalised(logits: list[float]) -> list[float]:
    total = math.log(math.fsum(math.exp(value) for value in logits))
    return sorted((value - total for value in logits), reverse=True)


def divergence(logprobs: list[float]) -> float:
    """KL(U || p), written down from its definition."""
    even = 1 / len(logprobs)
    return math.fsum(even * (math.log(even) - value) for value in logprobs)


@given(LOGITS)
def test_all_log_probabilities_give_the_divergence_itself(logits: list[float]) -> None:
    logprobs = normalised(logits)
    assert self_certainty(logprobs, len(logprobs)) == pytest.approx(divergence(logprobs), abs=1e-9)


def bounds(logits: list[float]) -> list[float]:
    """From one, two and more of the log-probabilities, the largest first."""
    logprobs = normalised(logits)
    return [self_certainty(logprobs[:count], len(logprobs)) for count in range(1, len(logprobs) + 1)]


@given(LOGITS)
def test_the_largest_give_a_lower_bound(logits: list[float]) -> None:
    assert max(bounds(logits)) <= divergence(normalised(logits)) + 1e-9


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=60))
def test_the_bound_rises_with_their_number_where_the_rest_is_above_the_floor(logits: list[float]) -> None:
    assert all(more >= fewer - 1e-6 for fewer, more in pairwise(bounds(logits)))


def test_uniform_is_nought_and_a_peak_is_high_but_finite() -> None:
    assert self_certainty([-math.log(1000)] * 20, 1000) == pytest.approx(0, abs=1e-9)
    peak = self_certainty([0.0, *[-40.0] * 19], 150_000)
    assert 10 < peak < 60
    assert self_certainty([], 10) == 0


def test_the_mean_is_over_tokens() -> None:
    assert mean([1.0, 3.0]) == 2.0
    assert mean([]) is None
