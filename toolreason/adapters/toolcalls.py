"""Calls of a library's tools from outside: in the sandbox only, each version in a session that no other tool sees, and recorded."""

from __future__ import annotations

import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from toolreason.errors import InfrastructureError, InputError, SessionLost
from toolreason.execution.base import Sandbox, Session
from toolreason.tools import trial
from toolreason.tools.admission import dependencies
from toolreason.tools.library import Library
from toolreason.tools.package import Status, ToolPackage, Use
from toolreason.types import CellResult

MOST_SESSIONS = 8


@dataclass
class _Lease:
    session: Session
    calls: int = 0  # under way


class Caller:
    """Library and sandbox stay the caller's. At most `most_sessions` idle sessions are kept, the longest unused is ended first."""

    def __init__(self, library: Library, sandbox: Sandbox, *, most_sessions: int = MOST_SESSIONS) -> None:
        self.library, self._sandbox, self._most = library, sandbox, most_sessions
        self._leases: OrderedDict[tuple[str, ...], _Lease] = OrderedDict()

    async def offered(self, name: str, version: int | None = None) -> ToolPackage:
        """The tool, if it is offered. Raises InputError: a tool that was taken back runs no more, in none of its versions."""
        head = await self.library.get(name)
        package = head if version is None else await self.library.get(name, version)
        for one in (head, package):
            if one.status is not Status.ADMITTED:
                raise InputError(f"{one.identity} is {one.status} and not offered: {one.reason or 'no reason was given'}")
        return package

    async def call(self, name: str, arguments: dict[str, Any], *, version: int | None = None, problem_id: str = "") -> CellResult:
        """One call. `value` is the result as JSON. What the call does to its session does not outlive it. Raises InputError for a
        tool that is not offered or arguments that are no JSON, SandboxError.
        """
        package = await self.offered(name, version)
        needed = await dependencies(self.library, package, offered=False)
        key = tuple(one.identity for one in (package, *needed))
        began = time.monotonic()
        try:
            result = await self._call(key, package, needed, arguments)
        except SessionLost:  # of an earlier call that was cancelled, say: nothing stays from call to call, so it can be done again
            result = await self._call(key, package, needed, arguments)
        with suppress(InputError):  # a frozen library takes no notes
            await self.library.record(Use(package.identity, problem_id, result.ok, time.monotonic() - began))
        return result

    async def aclose(self) -> None:
        """End all sessions."""
        while self._leases:
            _, lease = self._leases.popitem()
            await lease.session.close()

    async def _call(
        self, key: tuple[str, ...], package: ToolPackage, needed: tuple[ToolPackage, ...], arguments: dict[str, Any]
    ) -> CellResult:
        lease = self._leases.get(key) or await self._lease(key, package, needed)
        self._leases[key] = lease
        self._leases.move_to_end(key)
        lease.calls += 1
        try:
            return await trial.call(lease.session, package, arguments)
        except InfrastructureError:
            if self._leases.get(key) is lease:
                del self._leases[key]
            await lease.session.close()
            raise
        finally:
            lease.calls -= 1

    async def _lease(self, key: tuple[str, ...], package: ToolPackage, needed: tuple[ToolPackage, ...]) -> _Lease:
        idle = [one for one, lease in self._leases.items() if not lease.calls]
        for one in idle[: max(0, len(self._leases) + 1 - self._most)]:
            await self._leases.pop(one).session.close()
        session = await self._sandbox.session()
        try:
            await trial.install(session, [*needed, package])
        except BaseException:
            await session.close()
            raise
        if there := self._leases.get(key):  # another call was quicker
            await session.close()
            return there
        return _Lease(session)
