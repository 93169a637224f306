"""How a tool was used: counts by problem, and from them its quality (UCT, arXiv 2602.01983; the formula is ours)."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from toolreason.tools.log import ALL, put, run, unpack
from toolreason.tools.package import Use

if TYPE_CHECKING:
    from langgraph.store.base import BaseStore


@dataclass(frozen=True, slots=True)
class ProblemUse:
    """The calls on one problem. `latency_s` and `tokens` are sums."""

    calls: int = 0
    successes: int = 0
    latency_s: float = 0.0
    tokens: int = 0

    def plus(self, use: Use) -> ProblemUse:
        return ProblemUse(self.calls + 1, self.successes + use.ok, self.latency_s + use.latency_s, self.tokens + use.tokens)


@dataclass(frozen=True, slots=True)
class Usage:
    """The use of one tool, all its versions together unless asked otherwise.

    `origins` are the problems whose tickets it was made or repaired for, those of the tools that it was merged from among them:
    calls on these are no reuse.
    """

    tool: str
    by_problem: dict[str, ProblemUse] = field(default_factory=dict, hash=False)
    origins: frozenset[str] = frozenset()

    @property
    def calls(self) -> int:
        return sum(use.calls for use in self.by_problem.values())

    @property
    def successes(self) -> int:
        return sum(use.successes for use in self.by_problem.values())

    @property
    def problems(self) -> int:
        """Distinct problems. Calls that belong to none (of an MCP client, say) are calls, and no more."""
        return len(self.by_problem.keys() - {""})

    @property
    def reuse(self) -> int:
        """Distinct problems other than its `origins`."""
        return len(self.by_problem.keys() - self.origins - {""})

    @property
    def latency_s(self) -> float:
        """The mean of a call, 0 without one."""
        return sum(use.latency_s for use in self.by_problem.values()) / self.calls if self.calls else 0.0

    @property
    def tokens(self) -> int:
        """The sum over all calls."""
        return sum(use.tokens for use in self.by_problem.values())

    @property
    def success_rate(self) -> float:
        """Smoothed by Laplace's rule, (successes + 1) / (calls + 2): 0.5 before the first call."""
        return (self.successes + 1) / (self.calls + 2)

    @property
    def quality(self) -> float:
        """Smoothed success rate x log(1 + distinct problems): 0 for a tool that nobody called."""
        return self.success_rate * math.log1p(self.problems)


def tally(tool: str, uses: Iterable[Use], origins: frozenset[str] = frozenset()) -> Usage:
    """Count the uses of `tool`."""
    by_problem: dict[str, ProblemUse] = {}
    for use in uses:
        by_problem[use.problem_id] = by_problem.get(use.problem_id, ProblemUse()).plus(use)
    return Usage(tool, by_problem, origins)


def by_name(uses: Iterable[Use]) -> dict[str, list[Use]]:
    """Sort uses by the tool's name."""
    found: dict[str, list[Use]] = {}
    for use in uses:
        found.setdefault(use.tool.partition("@")[0], []).append(use)
    return found


class Uses:
    """The uses in a store: each an item of its own under a key of its own, so that any number of writers lose none."""

    def __init__(self, store: BaseStore, root: tuple[str, ...]) -> None:
        self._store, self._root = store, (*root, "uses")

    async def write(self, name: str, use: Use, key: str = "") -> None:
        """Under a `key` of the caller's a use that comes twice counts once."""
        key = key or f"{time.time_ns():020d}-{uuid.uuid4().hex[:16]}"
        await run(self._store, [put((*self._root, name), key, asdict(use))])

    async def read(self, *name: str) -> list[Use]:
        """Of one tool, or of all, in no order."""
        from langgraph.store.base import SearchOp

        [items] = await run(self._store, [SearchOp((*self._root, *name), None, ALL)])
        return [Use(**unpack(item.value)) for item in items]
