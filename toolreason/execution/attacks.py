"""Hostile cells, each with what may come of it: what the walls are tried with, in the tests and on a user's own engine."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from toolreason.execution.base import Session
from toolreason.execution.conformance import ended, equal, true, within
from toolreason.types import CellResult, Outcome

PREPARE = "import os, sys\nstate = [1, 2, 3]\nwith open('note', 'w') as file: _ = file.write('as it was')"
LOOK = "state, sum(state), open('note').read()"
DUE = "([1, 2, 3], 6, 'as it was')"
TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Attack:
    """A cell that means harm. `outcomes` are the ways in which it may end; `says` stands in its error or value."""

    group: str
    name: str
    code: str
    outcomes: tuple[Outcome, ...]
    says: str = ""
    timeout_s: float = TIMEOUT_S


@cache
def attacks() -> tuple[Attack, ...]:
    """All of them, in order."""
    rows = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))["attack"]
    return tuple(Attack(**row | {"outcomes": tuple(map(Outcome, row["outcomes"]))}) for row in rows)


async def run(attack: Attack, session: Session, neighbour: Session) -> CellResult:
    """Run it between cells that must agree on a variable and a file, in its session and in a neighbour's.

    Returns its result. Raises Failed when something did not hold, SandboxError when the sandbox itself gave way.
    """
    for one in (session, neighbour):
        ended(await one.run(PREPARE))
    result = await session.run(attack.code, timeout_s=attack.timeout_s)
    ended(result, *attack.outcomes)
    within(attack.says, f"{result.error} {result.value}")
    bounded(result)
    for one in (session, neighbour):
        equal(ended(await one.run(LOOK)).value, DUE)
    return result


def bounded(result: CellResult) -> None:
    """What came back is text that can be stored, and not much of it."""
    for text in (result.stdout, result.stderr, result.value or "", result.error or "", result.traceback):
        true(len(text) < 10_000, f"a text of {len(text)} characters came back")
        text.encode()
