"""What a collection amounts to: counts, rates with their uncertainty, and the paired test of two conditions."""

from __future__ import annotations

import math
import random
import time
from collections import Counter, deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from toolreason import failures
from toolreason.types import Judgement, Source, StopReason, Trajectory

Z95 = 1.959963984540054
RECENT = 8  # trajectories that a tally keeps, for those who look on
BUILDER = "builder"  # among the tokens by source: what was said aside, to build tools


def wilson(successes: int, trials: int, z: float = Z95) -> tuple[float, float]:
    """The Wilson score interval of a proportion (95 % by default); (0, 1) when there are no trials."""
    if not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials")
    if trials == 0:
        return 0.0, 1.0
    rate = successes / trials
    scale = 1 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of right answers among those scored; None where nothing is. `low` and `high`: Wilson's 95 % interval."""

    correct: int
    scored: int
    accuracy: float | None
    low: float
    high: float

    @classmethod
    def of(cls, outcomes: Iterable[bool | None]) -> Self:
        """Of rollouts that are right, wrong, or (None) do not count."""
        counted = [right for right in outcomes if right is not None]
        correct, trials = sum(counted), len(counted)
        return cls(correct, trials, correct / trials if trials else None, *wilson(correct, trials))


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value of McNemar's test: could the discordant pairs be a fair coin's?"""
    pairs = only_first + only_second
    if min(only_first, only_second) < 0:
        raise ValueError("counts are not negative")
    tail = sum(math.comb(pairs, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / (1 << pairs))


@dataclass(frozen=True, slots=True)
class Paired:
    """Two conditions over the same keys. `p` is exact McNemar's; only keys scored in both count."""

    both: int
    only_first: int
    only_second: int
    neither: int

    @property
    def p(self) -> float:
        return mcnemar(self.only_first, self.only_second)


def paired(first: Mapping[Any, bool], second: Mapping[Any, bool]) -> Paired:
    """Compare two conditions key by key; a key that is missing in one is left out."""
    counts = Counter((first[key], second[key]) for key in first.keys() & second.keys())
    return Paired(counts[True, True], counts[True, False], counts[False, True], counts[False, False])


def sign_flip(differences: Sequence[int]) -> float:
    """The exact two-sided p-value of a paired permutation test: could each problem's difference as well have had the other sign?

    One whole number a problem: how many more of its samples were right in the first condition. All 2^n assignments of signs are
    counted, none is drawn. With one sample a problem this is McNemar's exact test.
    """
    ways = {0: 1}
    for step in (abs(difference) for difference in differences if difference):
        following: Counter[int] = Counter()
        for total, count in ways.items():
            following[total + step] += count
            following[total - step] += count
        ways = following
    seen = abs(sum(differences))
    return sum(count for total, count in ways.items() if abs(total) >= seen) / sum(ways.values())


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted p-values, in the order given, that keep the family-wise error."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = highest
    return adjusted


def bootstrap_ratio(
    clusters: Sequence[tuple[int, int]], *, seed: int = 0, resamples: int = 10_000, level: float = 0.95
) -> tuple[float, float]:
    """A percentile bootstrap interval of sum(top) / sum(bottom), where whole clusters (top, bottom) are drawn again.

    With a cluster a problem (difference in right answers, number of pairs) it is the interval of the difference of two accuracies,
    and several samples of one problem do not count as independent. Raises ValueError where there is no cluster.
    """
    if not clusters or any(bottom <= 0 for _, bottom in clusters):
        raise ValueError("a bootstrap needs clusters that are not empty")
    draw, even = random.Random(seed), len({bottom for _, bottom in clusters}) == 1
    tops, whole = [top for top, _ in clusters], len(clusters) * clusters[0][1]
    found = []
    for _ in range(resamples):
        if even:
            found.append(sum(draw.choices(tops, k=len(tops))) / whole)
        else:
            chosen = draw.choices(clusters, k=len(clusters))
            found.append(sum(top for top, _ in chosen) / sum(bottom for _, bottom in chosen))
    found.sort()
    cut = round((1 - level) / 2 * resamples)
    return found[cut], found[resamples - 1 - cut]


def scored(trajectory: Trajectory) -> bool | None:
    """Right or wrong; None where there is no verdict that counts."""
    if trajectory.verdict is None or trajectory.verdict.judgement is Judgement.UNSCORED:
        return None
    return trajectory.verdict.judgement is Judgement.CORRECT


@dataclass(frozen=True, slots=True)
class Summary:
    """A collection in numbers. Rates are shares in 0..1, times wall seconds.

    `accuracy` is over `scored` rollouts, `low` and `high` its Wilson 95 % interval, which takes rollouts as independent: with
    several samples of one problem it is too narrow. `calls`, `failing_cells`, `tokens`, `stops` and `faults` are over finished
    rollouts (not aborted ones). `failures` are the shares of the `with_calls` rollouts, those that ran code, in which a failure
    mode was found (`delayed`, `distrust`: see `toolreason.failures`). `resumed` of them were there before; `tokens_per_s` and
    `idle_share` are of this process's part.
    """

    total: int
    finished: int
    resumed: int
    correct: int
    scored: int
    unscored: int
    aborted: int
    accuracy: float | None
    low: float
    high: float
    calls: float
    cells: int
    failing_cells: dict[str, float]
    tokens: dict[str, int]
    tokens_per_s: float
    wall_s: float
    idle_share: float | None
    stops: dict[str, int]
    faults: dict[str, int]
    unscored_reasons: dict[str, int]
    last_error: str | None
    with_calls: int = 0
    failures: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class Tally:
    """Counts as trajectories come in; `summary` at any time."""

    total: int
    judgements: Counter[Judgement] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)  # rollouts with such a failure, by name
    with_calls: int = 0
    finished: int = 0
    resumed: int = 0
    aborted: int = 0
    sampled: int = 0  # tokens that the model drew in this process: aborted rollouts and what was taken back included
    last_error: str | None = None
    recent: deque[Trajectory] = field(default_factory=lambda: deque(maxlen=RECENT))
    started: float = field(default_factory=time.monotonic)

    def add(self, trajectory: Trajectory, *, resumed: bool = False) -> None:
        """Count one. Aborted rollouts count as such and in nothing else: they will be done again."""
        aside = sum(one.spent for one in trajectory.aside)
        self.recent.append(trajectory)
        if not resumed:
            lost = sum(len(part.segment.token_ids) for part in trajectory.taken_back)
            self.sampled += trajectory.tokens(Source.MODEL) + lost + aside
        if trajectory.stop is StopReason.ABORTED:
            self.aborted += 1
            self.last_error = trajectory.error
            return
        self.finished += 1
        self.resumed += resumed
        self.stops[trajectory.stop.value] += 1
        self.faults.update(trajectory.faults)
        self.outcomes.update(cell.result.outcome.value for cell in trajectory.cells)
        self.with_calls += bool(trajectory.cells)
        self.failures.update(name for name, found in failures.modes(trajectory).items() if found)
        for segment in trajectory.segments:
            self.tokens[segment.source.value] += len(segment.token_ids)
        if aside:
            self.tokens[BUILDER] += aside
        verdict = trajectory.verdict
        self.judgements[Judgement.UNSCORED if verdict is None else verdict.judgement] += 1
        if verdict is None or verdict.judgement is Judgement.UNSCORED:
            self.reasons["not verified" if verdict is None else verdict.reason or "no reason given"] += 1

    @property
    def accuracy(self) -> float | None:
        trials = self.judgements[Judgement.CORRECT] + self.judgements[Judgement.WRONG]
        return self.judgements[Judgement.CORRECT] / trials if trials else None

    @property
    def speed(self) -> float:
        """Sampled tokens per second since this tally was made."""
        return self.sampled / max(time.monotonic() - self.started, 1e-3)

    def summary(self, *, wall_s: float = 0.0, idle_share: float | None = None) -> Summary:
        correct = self.judgements[Judgement.CORRECT]
        trials = correct + self.judgements[Judgement.WRONG]
        low, high = wilson(correct, trials)
        cells = self.outcomes.total()
        return Summary(
            total=self.total,
            finished=self.finished,
            resumed=self.resumed,
            correct=correct,
            scored=trials,
            unscored=self.judgements[Judgement.UNSCORED],
            aborted=self.aborted,
            accuracy=self.accuracy,
            low=low,
            high=high,
            calls=cells / self.finished if self.finished else 0.0,
            cells=cells,
            failing_cells={name: n / cells for name, n in self.outcomes.most_common() if name != "ok"},
            tokens={name: self.tokens[name] for name in (*Source, *({BUILDER} & self.tokens.keys()))},
            tokens_per_s=self.sampled / wall_s if wall_s > 0 else 0.0,
            wall_s=wall_s,
            idle_share=idle_share,
            stops=dict(self.stops.most_common()),
            faults=dict(self.faults.most_common()),
            unscored_reasons=dict(self.reasons.most_common(10)),
            last_error=self.last_error,
            with_calls=self.with_calls,
            failures={name: self.failures[name] / self.with_calls for name in failures.MODES} if self.with_calls else {},
        )


def outcomes(trajectories: Mapping[Hashable, Trajectory]) -> dict[Hashable, bool]:
    """The scored ones of these as right or wrong, for `paired`."""
    return {key: right for key, one in trajectories.items() if (right := scored(one)) is not None}
