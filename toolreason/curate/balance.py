"""B-STaR's measures (arXiv 2412.17256): does sampling still explore, does the reward still separate, and are the two in balance.

The paper's, section 2.2 and equation 3, for K samples of each of M problems:

    Pass@K-S       the share of problems with at least S unique right responses (Pass@K is S = 1)
    Reward@K-S     the share of problems whose S best responses by reward are all right (Best-of-K is S = 1)
    balance score  bs_i = min(n'_i / n*, 1) * n'_i / n_i, averaged over the problems: n_i selected responses (reward above a
                   threshold), n'_i unique right ones among them, n* how many are wanted of each: ceil(N / M) for N rows in all

Ours: the reward is the score of `toolreason.curate.score`, which sees no reference; the paper's is 1(right) + a process reward
model. With `answer` only right responses can be selected. What has just the threshold is selected (the paper: what is above it).
"Unique" are responses with different programs or, without any, different words; the paper's code compares whole texts. A problem
with nothing selected counts 0 (the equation leaves it open). `distinct`, the share of the right responses that are unique, stands
in for the paper's Distinct Equations. `separation` is ours: the probability that a right response has a higher score than a wrong
one of the same problem (AUC, ties count half). K is however many scored samples each problem has.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Response:
    """One sampled response: whether it is right, its reward, and what makes it the same as another."""

    right: bool
    reward: float
    identity: str


Groups = Mapping[str, Sequence[Response]]


class Setting(NamedTuple):
    """One line of a comparison: a run with its temperature, a threshold, and the balance score of both."""

    run: str
    temperature: float
    threshold: float
    score: float


def grouped(responses: Iterable[tuple[str, Response]]) -> dict[str, list[Response]]:
    """By problem."""
    found: defaultdict[str, list[Response]] = defaultdict(list)
    for problem, response in responses:
        found[problem].append(response)
    return dict(found)


def unique_right(responses: Iterable[Response]) -> int:
    return len({one.identity for one in responses if one.right})


def pass_at(groups: Groups, s: int) -> float:
    """Pass@K-S."""
    return _share(unique_right(several) >= s for several in groups.values())


def reward_at(groups: Groups, s: int) -> float:
    """Reward@K-S. Of equal rewards a wrong one counts as ranked first; a problem with fewer than S responses does not pass."""
    ranked = (sorted(several, key=lambda one: (-one.reward, one.right)) for several in groups.values())
    return _share(len(several) >= s and all(one.right for one in several[:s]) for several in ranked)


def distinct(groups: Groups) -> float | None:
    """The share of right responses that are unique; None where none is right."""
    right = sum(one.right for several in groups.values() for one in several)
    return sum(map(unique_right, groups.values())) / right if right else None


def separation(groups: Groups) -> float | None:
    """How often a right response has the higher reward, over all pairs of a right and a wrong one; None without a pair."""
    won, pairs = 0.0, 0
    for several in groups.values():
        wrong = sorted(one.reward for one in several if not one.right)
        for one in several:
            if one.right:
                won += (bisect_left(wrong, one.reward) + bisect_right(wrong, one.reward)) / 2
                pairs += len(wrong)
    return won / pairs if pairs else None


def balance_score(selected: Sequence[Response], target: int) -> float:
    """Equation 3 for one problem; 0 where nothing is selected."""
    unique = unique_right(selected)
    return min(unique / target, 1.0) * unique / len(selected) if selected else 0.0


def balance(groups: Groups, threshold: float, target: int, *, answer: bool = True) -> float:
    """The average balance score of what has a reward of at least `threshold` (and, with `answer`, is right)."""
    chosen = ([one for one in several if one.reward >= threshold and (one.right or not answer)] for several in groups.values())
    return sum(balance_score(several, target) for several in chosen) / len(groups) if groups else 0.0


def target_for(rows: int, problems: int) -> int:
    """n* for so many rows wanted of so many problems: ceil(N / M)."""
    return max(1, math.ceil(rows / problems)) if problems else 1


def measures(groups: Groups, *, target: int, threshold: float = 0.0) -> dict[str, Any]:
    """All of it for one collection, for its report. S is `target`."""
    return {
        "problems": len(groups),
        "samples_per_problem": sum(map(len, groups.values())) / len(groups) if groups else 0.0,
        "target": target,
        "exploration": {
            "pass_at_k": pass_at(groups, 1),
            f"pass_at_k_{target}": pass_at(groups, target),
            "distinct": distinct(groups),
        },
        "exploitation": {
            "best_of_k": reward_at(groups, 1),
            f"reward_at_k_{target}": reward_at(groups, target),
            "separation": separation(groups),
        },
        "threshold": threshold,
        "balance_score": balance(groups, threshold, target),
        "balance_score_without_answers": balance(groups, threshold, target, answer=False),
    }


def best(settings: Sequence[Setting]) -> Setting:
    """The highest balance score; of equal ones the lower threshold, then the lower temperature."""
    return min(settings, key=lambda one: (-one.score, one.threshold, one.temperature))


def _share(passed: Iterable[bool]) -> float:
    values = list(passed)
    return sum(values) / len(values) if values else 0.0
