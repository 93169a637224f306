"""From rows to what a comparison says: rates with their intervals, tokens, paired differences, accuracy within a token limit."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any

from toolreason.compare.matched import Matched
from toolreason.compare.plan import Plan
from toolreason.compare.rounds import RoundResult
from toolreason.compare.rows import Row
from toolreason.errors import SettingsError
from toolreason.runs import Key
from toolreason.stats import Rate, bootstrap_ratio, holm, paired, sign_flip
from toolreason.strategies.base import as_dict, load

EIGHTHS = (1, 2, 4, 6, 8)  # of the budget, for the table
MCNEMAR, SIGN_FLIP = "exact McNemar", "exact sign-flip permutation over problems"


@dataclass(frozen=True, slots=True)
class Result:
    """One condition. Tokens, calls and seconds are means over its finished rollouts; `with_call` is the share that ran code.

    `changed` are the settings that are not the strategy's defaults. `missing` rollouts have not been tried; aborted ones count in
    nothing else. `stops`: how many ended for which reason. `curve`: (tokens, accuracy), the share of scored
    rollouts that are right and spent no more than these tokens; a step at each. Empty where the policy counts no tokens.
    `within` is the same at parts of the budget. `domains`: the rate by group of problems.
    """

    name: str
    strategy: str
    settings: dict[str, Any]
    changed: dict[str, Any]
    rate: Rate
    finished: int
    unscored: int
    aborted: int
    missing: int
    tokens: dict[str, float]
    calls: float
    with_call: float
    seconds: float
    stops: dict[str, int] = field(default_factory=dict)
    curve: list[tuple[int, float]] = field(default_factory=list)
    within: list[tuple[int, float]] = field(default_factory=list)
    domains: dict[str, Rate] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Against:
    """A condition against the baseline, over the rollouts, by (problem, sample), that are scored in both.

    `difference` of the accuracies with its bootstrap interval (over problems), `p` by `test`, `p_holm` corrected for the number of
    conditions. None where there are no pairs.
    """

    name: str
    baseline: str
    problems: int
    pairs: int
    only_this: int
    only_baseline: int
    test: str
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    plan: Plan
    conditions: list[Result]
    against: list[Against]
    rounds: list[RoundResult]
    matched: list[Matched] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data. The plan's table of domains is in plan.json and not repeated."""
        plain = asdict(self)
        plain["plan"].pop("domains")
        plain["plan"]["asked"] = len(self.plan.domains)
        return plain


def result(name: str, strategy: str, settings: Mapping[str, Any], rows: Sequence[Row], plan: Plan) -> Result:
    """What came of one condition, also where it has no rows."""
    finished = [row for row in rows if not row.aborted]
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in finished:
        groups[plan.domains[row.key.problem_id]].append(row)
    steps = curve(finished)
    overall = Rate.of(row.right for row in finished)
    return Result(
        name,
        strategy,
        settings=dict(settings),
        changed=_changed(strategy, settings),
        rate=overall,
        finished=len(finished),
        unscored=len(finished) - overall.scored,
        aborted=len(rows) - len(finished),
        missing=len(plan.domains) * plan.samples_of(name) - len(rows),
        tokens={part: _mean(getattr(row, part) for row in finished) for part in ("model", "hint", "tool", "taken_back", "spent")},
        calls=_mean(row.calls for row in finished),
        with_call=_mean(row.calls > 0 for row in finished),
        seconds=_mean(row.seconds for row in finished),
        stops=dict(Counter(row.stop.value for row in finished).most_common()),
        curve=steps,
        within=[(limit, at(steps, limit)) for limit in _limits(plan.budget)] if steps else [],
        domains={name: Rate.of(row.right for row in groups[name]) for name in sorted(groups)},
    )


def _changed(strategy: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not the strategy's own; all of them where it is not installed here."""
    try:
        usual = as_dict(load(strategy).settings())
    except SettingsError:
        usual = {}
    return {key: value for key, value in settings.items() if key != "max_tokens" and (key not in usual or usual[key] != value)}


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return fmean(found) if found else 0.0


def curve(rows: Iterable[Row]) -> list[tuple[int, float]]:
    """(tokens, accuracy) wherever the accuracy within so many spent tokens changes, from (0, share right for nothing) on."""
    scored = [row for row in rows if row.right is not None]
    if not any(row.spent for row in scored):
        return []
    right = sorted(row.spent for row in scored if row.right)
    return [(limit, bisect_right(right, limit) / len(scored)) for limit in sorted({0, *right})]


def at(steps: Sequence[tuple[int, float]], limit: int) -> float:
    """The accuracy within `limit` tokens."""
    return steps[bisect_right(steps, limit, key=lambda step: step[0]) - 1][1]


def _limits(budget: int) -> list[int]:
    return sorted({max(1, budget * part // EIGHTHS[-1]) for part in EIGHTHS})


def against(rows: Mapping[str, Sequence[Row]], baseline: str, *, seed: int = 0) -> list[Against]:
    """Every condition but the baseline against it. With several samples of a problem the test permutes whole problems."""
    right = {name: {row.key: row.right for row in found if row.right is not None} for name, found in rows.items()}
    found = [_against(name, right[name], baseline, right[baseline], seed) for name in rows if name != baseline]
    tested = [one for one in found if one.p is not None]
    corrected = dict(zip((one.name for one in tested), holm([one.p for one in tested if one.p is not None]), strict=True))
    return [replace(one, p_holm=corrected.get(one.name)) for one in found]


def _against(name: str, this: Mapping[Key, bool], baseline: str, other: Mapping[Key, bool], seed: int) -> Against:
    clusters = by_problem(this, other)
    counts = paired(this, other)
    several = any(pairs > 1 for _, pairs in clusters)
    test = SIGN_FLIP if several else MCNEMAR
    pairs = sum(pairs for _, pairs in clusters)
    one = Against(name, baseline, len(clusters), pairs, counts.only_first, counts.only_second, test)
    if not pairs:
        return one
    low, high = bootstrap_ratio(clusters, seed=seed)
    p = sign_flip([more for more, _ in clusters]) if several else counts.p
    return replace(one, difference=sum(more for more, _ in clusters) / pairs, low=low, high=high, p=p)


def by_problem(this: Mapping[Key, bool], other: Mapping[Key, bool]) -> list[tuple[int, int]]:
    """Per problem: how many more samples are right in `this`, and how many samples are scored in both."""
    more: dict[str, int] = defaultdict(int)
    pairs: dict[str, int] = defaultdict(int)
    for key in sorted(this.keys() & other.keys()):
        more[key.problem_id] += this[key] - other[key]
        pairs[key.problem_id] += 1
    return [(more[problem], pairs[problem]) for problem in pairs]
