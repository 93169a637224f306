"""Retrying at equal tokens: what a condition comes to if it may spend what another one spent, by the majority of its rollouts.

The fair baseline for whatever spends more than one rollout's tokens, such as building tools (arXiv 2410.20274, 2507.22069).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from toolreason.compare.rows import Row
from toolreason.stats import Rate


@dataclass(frozen=True, slots=True)
class Matched:
    """The condition `name` with, for each problem, its first rollouts that together spend no more than `limit`, what `other` spends
    on a problem in the mean (but one rollout at least). `rollouts` and `tokens` are means over problems.
    """

    name: str
    other: str
    rate: Rate
    rollouts: float
    tokens: float
    limit: float


def matched(rows: Mapping[str, Sequence[Row]]) -> list[Matched]:
    """Each condition with several rollouts a problem at the tokens of each with fewer."""
    groups = {name: by_problem(found) for name, found in rows.items()}
    most = {name: max(map(len, group.values()), default=0) for name, group in groups.items()}
    return [
        one
        for name in groups
        for other in groups
        if 0 < most[other] < most[name] and (one := at_limit(name, other, groups[name], _limit(groups[other]))) is not None
    ]


def by_problem(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The finished rollouts of each problem, in the order of their numbers."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.key.sample):
        if not row.aborted:
            groups[row.key.problem_id].append(row)
    return groups


def _limit(group: Mapping[str, Sequence[Row]]) -> float:
    return fmean(fmean(row.spent for row in found) for found in group.values())


def at_limit(name: str, other: str, group: Mapping[str, Sequence[Row]], limit: float) -> Matched | None:
    """None where no tokens are counted."""
    taken = [within(found, limit) for found in group.values()]
    if not limit or not any(row.spent for found in taken for row in found):
        return None
    rate = Rate.of(majority(found) for found in taken)
    tokens = fmean(sum(row.spent for row in found) for found in taken)
    return Matched(name, other, rate, fmean(map(len, taken)), tokens, limit)


def within(rows: Sequence[Row], limit: float) -> list[Row]:
    """The first rollouts that together spend no more than `limit`; at least one."""
    taken, spent = [rows[0]], rows[0].spent
    for row in rows[1:]:
        spent += row.spent
        if spent > limit:
            break
        taken.append(row)
    return taken


def majority(rows: Sequence[Row]) -> bool | None:
    """Whether the answer that most of these rollouts gave is right; of equals, the one given first. Without any answer, the last
    rollout's verdict.
    """
    answered = [row for row in rows if row.answer is not None]
    if not answered:
        return rows[-1].right
    counts = Counter(row.answer for row in answered)
    return max(enumerate(answered), key=lambda at: (counts[at[1].answer], -at[0]))[1].right
