"""What runs through a curation: rows, and steps that count what fell and keep a few examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from toolreason.types import Problem, Trajectory

EXAMPLES = 3
EVIDENCE = 300  # characters of an example that are kept


class Fall(NamedTuple):
    """Why a row falls, and the piece of it that shows that."""

    reason: str
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A trajectory on its way through. `run` is the directory it comes from, `problem` what it is of where that is known.

    `parts` are those of its `score`; `edits` tell what was modified, one entry each.
    """

    trajectory: Trajectory
    run: str
    problem: Problem | None = None
    score: float = 0.0
    parts: dict[str, float] = field(default_factory=dict, hash=False)
    edits: tuple[str, ...] = ()


@dataclass(slots=True)
class Step:
    """How many rows and problems came and stayed, and why the others fell. `changed` counts modifications by name."""

    name: str
    rows: int = 0
    stayed: int = 0
    fell: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    _before: set[str] = field(default_factory=set)
    _after: set[str] = field(default_factory=set)

    def stay(self, row: Row) -> None:
        self._came(row)
        self.stayed += 1
        self._after.add(row.trajectory.problem_id)

    def drop(self, row: Row, fall: Fall) -> None:
        self._came(row)
        self.fell[fall.reason] += 1
        self.show(row, fall)

    def show(self, row: Row, fall: Fall) -> None:
        """Keep this one as an example, if there are few so far."""
        kept = self.examples.setdefault(fall.reason, [])
        if len(kept) < EXAMPLES:
            one = row.trajectory
            evidence = fall.evidence[:EVIDENCE] + ("…" if len(fall.evidence) > EVIDENCE else "")
            kept.append({"id": one.id, "problem_id": one.problem_id, "run": row.run, "evidence": evidence})

    def _came(self, row: Row) -> None:
        self.rows += 1
        self._before.add(row.trajectory.problem_id)

    def to_dict(self) -> dict[str, Any]:
        return {
            "step": self.name,
            "rows": self.rows,
            "problems": len(self._before),
            "rows_left": self.stayed,
            "problems_left": len(self._after),
            "fell": dict(self.fell.most_common()),
            "changed": dict(self.changed.most_common()),
            "examples": self.examples,
        }


def sieve(name: str, rows: Iterable[Row], judge: Callable[[Row], Fall | None]) -> tuple[list[Row], Step]:
    """The rows for which `judge` finds no reason to fall."""
    step, left = Step(name), []
    for row in rows:
        fall = judge(row)
        if fall is None:
            step.stay(row)
            left.append(row)
        else:
            step.drop(row, fall)
    return left, step
