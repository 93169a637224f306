"""Sessions for whoever holds them from afar: by an id that nobody can guess, each request done once, the forgotten ended."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from toolreason.errors import InputError, SandboxError, SessionLost
from toolreason.execution.base import Sandbox, Session
from toolreason.execution.remote import SERVICE

T = TypeVar("T")
log = logging.getLogger(__name__)
CLOSED = "the session was closed during the call"
ENDING = "the service is ending"
ANSWERS = 2  # of a session that are kept for who asks again; with figures one may have several MB
KEYS = 1024  # of a session that are known, so that what they asked for is not done twice


class Full(SandboxError):
    """No place became free within the time that a request waits for one. Ask again in `retry_after_s` seconds."""

    retry_after_s = 1


@dataclass(frozen=True, slots=True)
class Request:
    """What a request asked, and its work, which goes on whoever waits for it. Without `task` its answer is forgotten."""

    asked: str
    task: asyncio.Task[Any] | None


@dataclass(eq=False)
class Lease:
    """A session under its id. `requests` by the client's own ids, the latest last; `running` are under way."""

    session: Session
    key: str | None = None
    id: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    requests: dict[str, Request] = field(default_factory=dict)
    running: set[asyncio.Task[Any]] = field(default_factory=set)
    used: float = field(default_factory=time.monotonic)


class Leases:
    """At most `max_sessions`, forks included; who comes then waits `wait_s` seconds. One idle for `idle_s` seconds is ended.

    A call goes on to its end when its client goes away, so that a session is always in the state after its last call, and the
    client that comes back with the call's id gets its answer. Closing a session ends the call that runs in it.
    """

    def __init__(self, sandbox: Sandbox, *, max_sessions: int, wait_s: float, idle_s: float) -> None:
        self._sandbox, self.max_sessions, self.wait_s, self.idle_s = sandbox, max_sessions, wait_s, idle_s
        self._places = asyncio.Semaphore(max_sessions)
        self._leases: dict[str, Lease] = {}
        self._opening: dict[str, asyncio.Task[Lease]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._began = time.monotonic()
        self._waiting = self._leased = self._calls = self._idled = 0
        self._closed = False

    def stats(self) -> dict[str, float]:
        return {
            "service": SERVICE,
            "sessions": len(self._leases),
            "max_sessions": self.max_sessions,
            "waiting": self._waiting,
            "leased": self._leased,
            "calls": self._calls,
            "ended_idle": self._idled,
            "uptime_s": round(time.monotonic() - self._began, 3),
        }

    async def lease(self, key: str | None = None) -> Lease:
        """A fresh session; asked again with the same key while it lives, the same one. Raises Full, SandboxError."""
        opening = self._opening.get(key) if key else None
        if opening is None:
            opening = self._spawn(self._open(key))
            if key:
                self._opening[key] = opening
        return await _answer(opening)

    async def call(self, lease_id: str, key: str | None, asked: str, work: Callable[[Session], Awaitable[T]]) -> T:
        """Let `work` have the session. A key that came before gives the recorded answer and does nothing.

        Raises SessionLost for an id that names no session, InputError for a key that came with another question, SandboxError for
        one whose answer is forgotten, and what `work` raises.
        """
        lease = self._leases.get(lease_id)
        if lease is None:
            raise SessionLost("there is no such session: it has ended, or never was")
        request = lease.requests.get(key) if key else None
        if request is None:
            task = self._spawn(self._work(lease, work))
            lease.running.add(task)
            task.add_done_callback(lease.running.discard)
            if key:
                _remember(lease, key, Request(asked, task))
            return await _answer(task)
        if request.asked != asked:
            raise InputError("this id came with another request before: give each request an id of its own")
        if request.task is None:
            raise SandboxError("this request was answered before, and others after it: its answer is forgotten")
        answer: T = await _answer(request.task)
        return answer

    async def fork(self, lease_id: str, key: str | None) -> Lease:
        """A second session with the same state. It takes a place, and does not wait for one: raises Full."""

        async def work(session: Session) -> Lease:
            if self._places.locked():
                raise Full(f"all {self.max_sessions} sessions are taken")
            await self._places.acquire()
            try:
                return self._add(Lease(await session.fork()))
            except BaseException:
                self._places.release()
                raise

        return await self.call(lease_id, key, "fork", work)

    async def close(self, lease_id: str) -> None:
        """End a session, and the call that runs in it. An id that names none is no error."""
        if (lease := self._leases.pop(lease_id, None)) is None:
            return
        if lease.key:
            self._opening.pop(lease.key, None)
        for task in lease.running:
            task.cancel()
        try:
            await lease.session.close()
        except SandboxError as error:
            log.warning("a session could not be closed: %s", error)
        finally:
            self._places.release()

    async def forget(self, key: str) -> None:
        """End the session that was leased with this key, or is about to be. A key that names none is no error."""
        opening = self._opening.pop(key, None)
        if opening is not None and opening.done():
            await self.close(opening.result().id)
        elif opening is not None:
            opening.cancel()

    async def end_idle(self) -> None:
        """The idle reaper: runs until it is cancelled."""
        while True:
            await asyncio.sleep(min(30.0, self.idle_s / 4))
            for lease in list(self._leases.values()):
                if not lease.running and time.monotonic() - lease.used > self.idle_s:
                    self._idled += 1
                    await self.close(lease.id)

    async def aclose(self) -> None:
        """End every session and every request; what comes later is refused."""
        self._closed = True
        while self._leases or self._tasks:  # what is under way may yet open one
            for lease_id in list(self._leases):
                await self.close(lease_id)
            for task in (tasks := list(self._tasks)):
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    async def _open(self, key: str | None) -> Lease:
        try:
            await self._place()
            try:
                if self._closed:
                    raise SandboxError(ENDING)
                return self._add(Lease(await self._sandbox.session(), key))
            except BaseException:
                self._places.release()
                raise
        except BaseException as error:
            if key and self._opening.get(key) is asyncio.current_task():
                del self._opening[key]
            if isinstance(error, asyncio.CancelledError):
                raise SandboxError(ENDING if self._closed else "the request was taken back") from error
            raise

    async def _place(self) -> None:
        self._waiting += 1
        try:
            async with asyncio.timeout(self.wait_s):
                await self._places.acquire()
        except TimeoutError:
            raise Full(f"all {self.max_sessions} sessions are taken") from None
        finally:
            self._waiting -= 1

    async def _work(self, lease: Lease, work: Callable[[Session], Awaitable[T]]) -> T:
        self._calls += 1
        try:
            return await work(lease.session)
        except asyncio.CancelledError as error:
            raise SessionLost(CLOSED) from error
        except SessionLost:
            if self._leases.get(lease.id) is lease:
                self._spawn(self.close(lease.id))
            raise
        finally:
            lease.used = time.monotonic()

    def _add(self, lease: Lease) -> Lease:
        self._leased += 1
        self._leases[lease.id] = lease
        return lease

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._settled)
        return task

    def _settled(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, should nobody have waited


def _remember(lease: Lease, key: str, request: Request) -> None:
    """Keep a request, and forget the answers of all but the last."""
    answered = [old for old, held in lease.requests.items() if held.task is not None and held.task.done()]
    for old in answered[: max(0, len(answered) - ANSWERS + 1)]:
        lease.requests[old] = Request(lease.requests[old].asked, None)
    forgotten = len(lease.requests) - KEYS
    for old in [old for old, held in lease.requests.items() if held.task is None][: max(0, forgotten)]:
        del lease.requests[old]
    lease.requests[key] = request


async def _answer(task: asyncio.Task[T]) -> T:
    """What a task of ours gives, which goes on when nobody waits for it any more."""
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if task.cancelled():  # before it had begun
            raise SessionLost(CLOSED) from None
        raise
