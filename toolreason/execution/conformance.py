"""What every real sandbox does, as small checks that run anywhere: in the tests, and on a user's own engine
(`toolreason sandbox check`).

A check is an async function that returns, or raises `Failed` with what it found. It gets a session, which it shares with other
checks and leaves as the next one may find it, or a `Bench`, from which it leases its own.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from toolreason.errors import InputError
from toolreason.execution.base import Limits, Sandbox, Session
from toolreason.types import CellResult, Outcome

LIMITS = Limits(cell_timeout_s=20, memory_mb=256, processes=40, disk_mb=16, file_mb=8, output_chars=1000, output_hard_mb=2)
Opener = Callable[[Limits], AbstractAsyncContextManager[Sandbox]]


class Failed(AssertionError):
    """The sandbox did something else than it must."""


@dataclass(frozen=True)
class Bench:
    """Where checks run: a sandbox with `LIMITS`, and the way to open another of the same kind with other limits."""

    sandbox: Sandbox
    opener: Opener

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A session of this check alone."""
        leased = await self.sandbox.session()
        try:
            yield leased
        finally:
            await leased.close()

    @asynccontextmanager
    async def limited(self, limits: Limits) -> AsyncIterator[Session]:
        """A session of another sandbox, with these limits."""
        async with self.opener(limits) as sandbox:
            leased = await sandbox.session()
            try:
                yield leased
            finally:
                await leased.close()


@dataclass(frozen=True)
class Check:
    """One thing that must hold. With `walls`, only where there is a boundary: the local sandbox has none."""

    group: str
    name: str
    shares: bool  # whether it gets the session that checks share
    walls: bool
    call: Callable[[Any], Awaitable[None]]

    async def run(self, bench: Bench, session: Session) -> None:
        """Raises Failed, or what a broken sandbox raises."""
        await self.call(session if self.shares else bench)


CHECKS: list[Check] = []
PARTS = ("cells", "state", "files", "limits")


def on_session(group: str, *, walls: bool = False) -> Callable[[Callable[[Session], Awaitable[None]]], None]:
    """The decorated function is a check on the shared session; its name says what holds."""
    return lambda call: CHECKS.append(Check(group, _words(call), True, walls, call))


def on_bench(group: str, *, walls: bool = False) -> Callable[[Callable[[Bench], Awaitable[None]]], None]:
    """The decorated function is a check that leases its own sessions."""
    return lambda call: CHECKS.append(Check(group, _words(call), False, walls, call))


def _words(call: Any) -> str:
    return str(call.__name__).strip("_").replace("_", " ")


def checks(*, walls: bool = True) -> list[Check]:
    """All of them, in order; without those that need walls where there are none."""
    for part in PARTS:  # importing them fills the list
        importlib.import_module(f"{__name__}_{part}")
    return [check for check in CHECKS if walls or not check.walls]


# what checks say


def equal(found: object, due: object) -> None:
    if found != due:
        raise Failed(f"found {found!r:.2000}; due was {due!r:.2000}")


def within(part: str, whole: object) -> None:
    if part not in str(whole):
        raise Failed(f"{part!r} is not in {whole!r:.2000}")


def true(holds: object, what: str) -> None:
    if not holds:
        raise Failed(what)


def ended(result: CellResult, *outcomes: Outcome) -> CellResult:
    """The result, if the cell ended in one of these ways (if none is named: well)."""
    if result.outcome not in (outcomes or (Outcome.OK,)):
        due = " or ".join(outcomes or (Outcome.OK,))
        raise Failed(f"ended with {result.outcome!s} ({result.error}; {result.stderr:.500}), due was {due}")
    return result


async def value(session: Session, code: str, due: object) -> None:
    """The cell's last value, as a prompt shows it."""
    equal(ended(await session.run(code)).value, str(due))


async def refused(call: Awaitable[Any], *words: str) -> None:
    """The call raises InputError, and says one of these words."""
    try:
        got = await call
    except InputError as error:
        true(not words or any(word in str(error) for word in words), f"refused in other words: {error}")
        return
    raise Failed(f"not refused: {got!r:.200}")


async def contents(session: Session, paths: Iterable[str] | None = None) -> dict[str, bytes]:
    """The session's files, by path."""
    return {path: await session.get(path) for path in (paths or [info.path for info in await session.files()])}
