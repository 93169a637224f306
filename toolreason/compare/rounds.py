"""Test-time scaling, round by round: accuracy by each way to choose the answer, and what it costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from toolreason.compare.rows import Row
from toolreason.scaling import WAYS
from toolreason.stats import Rate


@dataclass(frozen=True, slots=True)
class RoundResult:
    """A condition as it would stand if this round (from 1) were the last that is allowed.

    `reached` of the `rollouts` came to this round; the others (the budget was used up) count with their last one. `by`: the rate
    by the way the answer is chosen among the rounds so far. `spent` and `calls` are means of a rollout up to here.
    """

    condition: str
    round: int
    rollouts: int
    reached: int
    by: dict[str, Rate]
    spent: float
    calls: float


def by_round(condition: str, rows: Iterable[Row], rounds: int) -> list[RoundResult]:
    """One result for each of the rounds that are allowed. Aborted rollouts count for none."""
    counted = [row.rounds for row in rows if row.rounds]
    found = []
    for number in range(1, rounds + 1) if counted else ():
        here = [parts[min(number, len(parts)) - 1] for parts in counted]
        found.append(
            RoundResult(
                condition,
                number,
                len(here),
                sum(len(parts) >= number for parts in counted),
                {way: Rate.of(part.right[way] for part in here) for way in WAYS},
                fmean(part.spent for part in here),
                fmean(part.calls for part in here),
            )
        )
    return found
