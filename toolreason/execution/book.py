"""Sessions by rollout. A graph's state is plain: it names its session by a key, and this book keeps the live ones."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from toolreason.errors import SessionLost
from toolreason.execution.base import Sandbox, Session
from toolreason.types import CellResult

REPLAY_CELLS = 256


@dataclass
class _Entry:
    """One rollout: its session, what ran in it and stayed (call id, code), and all results by call id and code."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    session: Session | None = None
    committed: list[tuple[str, str]] = field(default_factory=list)
    results: dict[tuple[str, str], CellResult] = field(default_factory=dict)


class SessionBook:
    """`Sessions` over any sandbox. At most `replay_cells` cells are run again to rebuild a state; more raise SessionLost."""

    def __init__(self, sandbox: Sandbox, *, replay_cells: int = REPLAY_CELLS) -> None:
        self._sandbox, self._replay_cells = sandbox, replay_cells
        self._entries: dict[str, _Entry] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def run(
        self,
        key: str,
        call_id: str,
        code: str,
        *,
        history: Sequence[tuple[str, str]] = (),
        stateful: bool = True,
        timeout_s: float | None = None,
    ) -> CellResult:
        """See `Sessions.run`. A session whose cells are not those of a given history (a rollout taken up at an earlier step, say)
        is replaced by one in which the history has run. An empty history says nothing, unless the call has run with other code:
        that too is an earlier step, and what came after it is forgotten. A lost session is rebuilt once.
        """
        entry = self._entries.setdefault(key, _Entry())
        async with entry.lock:
            if (call_id, code) not in entry.results:
                if any(call == call_id for call, _ in entry.results):
                    await self._forget(entry)
                wanted = [(call, cell) for call, cell in history] if stateful else []
                result = await self._run(entry, call_id, code, wanted or entry.committed, stateful, timeout_s)
                entry.results[call_id, code] = result
            return entry.results[call_id, code]

    async def release(self, key: str) -> None:
        """End the session of `key`, once the cell that may be running in it has ended."""
        if entry := self._entries.get(key):
            async with entry.lock:
                if self._entries.get(key) is entry:
                    del self._entries[key]
                await self._end(entry)

    async def aclose(self) -> None:
        """Release every key. The sandbox stays open: it belongs to the caller."""
        for key in list(self._entries):
            await self.release(key)

    async def _run(
        self, entry: _Entry, call_id: str, code: str, history: list[tuple[str, str]], stateful: bool, timeout_s: float | None
    ) -> CellResult:
        history = list(history)
        for last_try in (False, True):
            try:
                if entry.session is None or entry.committed != history:
                    await self._rebuild(entry, history, timeout_s)
                assert entry.session
                result = await entry.session.run(code, timeout_s=timeout_s, keep=stateful)
                break
            except SessionLost:
                await self._end(entry)
                if last_try:
                    raise
        if stateful and result.outcome.committed:
            entry.committed.append((call_id, code))
        return result

    async def _rebuild(self, entry: _Entry, history: list[tuple[str, str]], timeout_s: float | None) -> None:
        """A fresh session in which `history` has run."""
        if len(history) > self._replay_cells:
            raise SessionLost(f"{len(history)} cells are too many to run again; the most are {self._replay_cells}")
        await self._end(entry)
        entry.session = await self._sandbox.session()
        entry.committed = []
        for call_id, code in history:
            result = await entry.session.run(code, timeout_s=timeout_s)
            if not result.outcome.committed:
                raise SessionLost(f"call {call_id} ended differently when run again: {result.outcome}")
            entry.results.setdefault((call_id, code), result)
            entry.committed.append((call_id, code))

    async def _forget(self, entry: _Entry) -> None:
        await self._end(entry)
        entry.committed, entry.results = [], {}

    async def _end(self, entry: _Entry) -> None:
        session, entry.session = entry.session, None
        if session is not None:
            await session.close()
