"""Does the sandbox hold on this engine? The conformance and the attack suites, run outside any test framework."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from toolreason.errors import ToolreasonError
from toolreason.execution.attacks import Attack, attacks, run
from toolreason.execution.base import Limits, Session
from toolreason.execution.conformance import LIMITS, Bench, Check, Failed, checks

SUITES = ("conformance", "attacks")


@dataclass(frozen=True, slots=True)
class Row:
    """How one of them went. `ms` is wall time."""

    suite: str
    group: str
    name: str
    ok: bool
    ms: float
    detail: str = ""


def plan(suites: tuple[str, ...] = SUITES) -> list[Check | Attack]:
    """What will be run, in order."""
    return [*(checks() if "conformance" in suites else ()), *(attacks() if "attacks" in suites else ())]


async def check(cases: list[Check | Attack], opener: Callable[[Limits], Any]) -> AsyncIterator[Row]:
    """Run them in a sandbox that `opener` makes for given limits. A case that fails gets the next one fresh sessions.

    Raises what entering the sandbox raises; a case's own failure is its row.
    """
    async with opener(LIMITS) as sandbox:
        bench = Bench(sandbox, opener)
        pair: list[Session] = []
        try:
            for case in cases:
                began = time.perf_counter()
                detail = ""
                try:
                    while len(pair) < 2:
                        pair.append(await sandbox.session())
                    await run_one(case, bench, *pair)
                except (Failed, ToolreasonError) as error:
                    detail = f"{type(error).__name__}: {error}"
                except Exception as error:  # a check that stumbles over what a broken sandbox gave it
                    detail = f"the check itself failed: {type(error).__name__}: {error}"
                suite = "conformance" if isinstance(case, Check) else "attacks"
                yield Row(suite, case.group, case.name, not detail, (time.perf_counter() - began) * 1e3, detail[:2000])
                if detail:
                    await let_go(pair)
        finally:
            await let_go(pair)


def run_one(case: Check | Attack, bench: Bench, session: Session, neighbour: Session) -> Awaitable[Any]:
    return case.run(bench, session) if isinstance(case, Check) else run(case, session, neighbour)


async def let_go(sessions: list[Session]) -> None:
    while sessions:
        with suppress(ToolreasonError):
            await sessions.pop().close()
