"""What is kept of a comparison beside its runs: DIR/plan.json, written before anything is sampled.

DIR/plan.json       what is compared, on which problems, and how
DIR/CONDITION/      an ordinary run directory each
DIR/compare.md      the tables, DIR/compare.json the same as data, DIR/compare.svg the chart (and rounds.svg)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from toolreason.durable import replace_file
from toolreason.errors import InputError, SettingsError
from toolreason.runs import TRAJECTORIES
from toolreason.types import Problem, Sampling, coerce_tuples, from_json, to_json

FORMAT = 1
PLAN = "plan.json"
MOST_GROUPS = 24
_NUMBER = re.compile(r"[-_.:/# ]*\d+$")


@dataclass(frozen=True, slots=True)
class Plan:
    """`domains`: the group of each problem that is asked, in their order. `conditions`: names, in the order of the tables.

    `own_samples`: of the conditions that have another number of rollouts a problem than `samples`.
    """

    problems: str
    problems_hash: str
    policy: str
    sampling: Sampling
    budget: int
    samples: int
    rounds: int
    conditions: tuple[str, ...]
    baseline: str
    domains: dict[str, str] = field(hash=False)
    command: str = ""
    version: str = ""
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    format: int = FORMAT
    own_samples: dict[str, int] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        coerce_tuples(self, "conditions")
        if self.baseline not in self.conditions:
            raise SettingsError(f"the baseline {self.baseline!r} is none of the conditions {', '.join(self.conditions)}")

    def samples_of(self, condition: str) -> int:
        """How many rollouts a problem this condition has."""
        return self.own_samples.get(condition, self.samples)

    def differences(self, other: Plan) -> list[str]:
        """What makes `other` another comparison, one line each."""
        names = ("policy", "sampling", "budget", "problems_hash")
        return [f"{n}: {getattr(self, n)} there, {getattr(other, n)} now" for n in names if getattr(self, n) != getattr(other, n)]


def read(path: Path) -> Plan:
    """The plan of the comparison at `path`. Raises InputError where there is none."""
    try:
        return from_json(Plan, (path / PLAN).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} holds no comparison (no {PLAN}): to make one, give problems and --out DIR") from None
    except ValueError as error:
        raise InputError(f"{path / PLAN} cannot be read: {error}") from error


def settle(path: Path, wanted: Plan, baseline: str | None = None) -> Plan:
    """The plan to go on with at `path`: the wanted one, with the conditions that were compared there before, and their baseline.

    `baseline` replaces it. Raises SettingsError where there is none of this name, and where those conditions are of other problems,
    another policy, sampling or budget, and something was sampled.
    """
    if not (path / PLAN).exists():
        return replace(wanted, baseline=baseline or wanted.baseline)
    before = read(path)
    begun = any(_begun(path / name) for name in before.conditions)
    differences = before.differences(wanted)
    if begun and differences:
        raise SettingsError(
            f"{path} is another comparison:\n  " + "\n  ".join(differences) + "\n"
            "Nothing was changed. Give the same problems and settings to go on, or another directory with --out."
        )
    kept = [name for name in before.conditions if name not in wanted.conditions and not differences and _begun(path / name)]
    names = (*wanted.conditions, *kept)
    usual = before.baseline if begun and before.baseline in names else wanted.baseline
    started = before.started if begun else wanted.started
    own = {name: count for name, count in before.own_samples.items() if name in kept} | wanted.own_samples
    return replace(wanted, conditions=names, baseline=baseline or usual, started=started, own_samples=own)


def write(path: Path, plan: Plan) -> None:
    replace_file(path / PLAN, to_json(plan) + "\n")


def _begun(run: Path) -> bool:
    file = run / TRAJECTORIES
    return file.exists() and file.stat().st_size > 0


def domains(problems: Sequence[Problem]) -> dict[str, str]:
    """Each problem's group: its domain where there are several, else what its id begins with (`gcd` of `gcd-30-7`)."""
    by_domain = {problem.id: problem.domain for problem in problems}
    if len(set(by_domain.values())) > 1:
        return by_domain
    by_id = {problem.id: _beginning(problem.id) for problem in problems}
    groups = set(by_id.values())
    return by_id if all(groups) and 1 < len(groups) <= min(MOST_GROUPS, len(problems) // 2) else by_domain


def _beginning(name: str) -> str:
    before = None
    while before != name:
        before, name = name, _NUMBER.sub("", name)
    return name
