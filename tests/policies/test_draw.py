"""How a token is drawn from its distribution."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from toolreason.policies.draw import HEAD, Drawer
from toolreason.types import Sampling

PROBS = torch.tensor([0.5, 0.3, 0.15, 0.05])


def drawn(sampling: Sampling, probs: torch.Tensor = PROBS, count: int = 3000) -> Counter[int]:
    drawer = Drawer(sampling, seed=1)
    return Counter(drawer.draw(probs.log()) for _ in range(count))


def test_temperature_zero_is_the_most_probable_token() -> None:
    assert set(drawn(Sampling(temperature=0), PROBS.flip(0), 5)) == {3}


def test_draws_follow_the_distribution() -> None:
    counts = drawn(Sampling(temperature=1))
    assert [counts[token] / 3000 for token in range(4)] == pytest.approx(PROBS.tolist(), abs=0.04)


def test_temperature_sharpens() -> None:
    counts = drawn(Sampling(temperature=0.5))
    expected = PROBS**2 / (PROBS**2).sum()
    assert [counts[token] / 3000 for token in range(4)] == pytest.approx(expected.tolist(), abs=0.04)


@pytest.mark.parametrize(
    ("sampling", "left"),
    [
        (Sampling(temperature=1, top_k=2), {0, 1}),
        (Sampling(temperature=1, top_p=0.7), {0, 1}),
        (Sampling(temperature=1, top_p=0.9), {0, 1, 2}),
        (Sampling(temperature=1, top_p=0.01), {0}),
        (Sampling(temperature=1, top_k=3, top_p=0.6), {0, 1}),  # of the mass that top-k leaves
    ],
)
def test_top_k_and_top_p_leave_the_most_probable(sampling: Sampling, left: set[int]) -> None:
    assert set(drawn(sampling)) == left


def test_top_p_is_right_beyond_the_tokens_that_are_looked_at_first() -> None:
    flat = torch.full((3 * HEAD,), 1 / (3 * HEAD))
    assert len(drawn(Sampling(temperature=1, top_p=0.9), flat, 6000)) > 1.5 * HEAD


def test_a_token_of_no_probability_is_never_drawn() -> None:
    probs = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0])
    assert set(drawn(Sampling(temperature=1), probs)) == {1, 3}
