"""A sandbox on another machine, behind `toolreason sandbox serve`, used as a local one is.

What comes back is checked and bounded as a runner's replies are. Each request carries an id, by which the service does it once
however often it is sent; so a connection that breaks is tried again, and the answer is the one that was lost.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import time
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from toolreason.errors import InputError, SandboxError, SessionLost, SettingsError, SetupError
from toolreason.execution.base import FileInfo
from toolreason.execution.remote_wire import TOKEN, Client, Full
from toolreason.execution.session import MAX_CODE_CHARS, MAX_FILE
from toolreason.execution.wire import cell_result, plain
from toolreason.types import CellResult, Outcome

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)
SERVICE = 1  # the version of the service's routes
NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
MAX_PATH = 4096
ANSWER_S = 60.0  # for what is no cell
SLOWEST = 1 << 20  # bytes a second that a file may take
CLOSE_S = 5.0


class RemoteSandbox:
    """Leases sessions of a service. Use as `async with RemoteSandbox("http://host:8700") as sandbox`, within one event loop.

    `token` is what the service wants (default: the environment's TOOLREASON_SANDBOX_TOKEN). A call is given up after its cell's
    time and `grace_s`; in that time a broken connection is tried again for `reconnect_s`. `lease_s` is how long to wait for a place
    while the service is at its limit, `max_sessions` how many this client leases at most, forks aside. Limits are the service's;
    it ends a session that is idle for long. `transport` is httpx's, for tests. Entering raises SetupError when the service cannot
    be reached, SettingsError when it refuses the token.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        grace_s: float = 150.0,
        reconnect_s: float = 15.0,
        lease_s: float = 600.0,
        max_sessions: int | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url, self._grace_s, self._lease_s = checked(url), grace_s, lease_s
        self._client = Client(self._url, token or os.environ.get(TOKEN) or None, reconnect_s, transport)
        self._places = asyncio.Semaphore(max_sessions or 1 << 20)
        self._leased: set[RemoteSession] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        try:
            found = (await self.stats()).get("service")
            if found != SERVICE:
                raise SandboxError(f"it is another service, or of another version: {str(found)[:20]!r} instead of {SERVICE}")
        except SandboxError as error:
            await self._client.close()
            raise SetupError(
                f"there is no sandbox service at {self._url} ({error}): start one with `toolreason sandbox serve`"
            ) from error
        except BaseException:
            await self._client.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def session(self) -> RemoteSession:
        """A fresh session. Waits while the service is at its limit, up to `lease_s`. Raises SandboxError."""
        await self._places.acquire()
        key = uuid.uuid4().hex
        try:
            if self._closed:
                raise SandboxError("the sandbox is closed")
            session = RemoteSession(self, self._client, await self._lease(key), self._grace_s)
        except BaseException:
            self._places.release()
            if not self._closed:
                self._spawn(self._tell_end("/sessions", key))  # it may have been leased all the same
            raise
        self.adopt(session)
        return session

    async def stats(self) -> dict[str, Any]:
        """What the service counts: `sessions` open, `max_sessions`, `waiting`, `leased`, `calls`, `ended_idle`, `uptime_s`."""
        return await self._client.json("GET", "/stats", within_s=ANSWER_S)

    async def aclose(self) -> None:
        """End this client's sessions. The service goes on."""
        if self._closed:
            return
        self._closed = True
        for session in list(self._leased):
            session.end("the sandbox was closed")
        while self._tasks:
            await asyncio.wait(list(self._tasks))
        await self._client.close()

    def adopt(self, session: RemoteSession) -> None:
        """A session that is to end with this sandbox."""
        self._leased.add(session)
        if self._closed:
            session.end("the sandbox was closed")

    def ended(self, session: RemoteSession) -> None:
        """A session is over, for whatever reason: tell the service in the background."""
        if session in self._leased:
            self._leased.discard(session)
            if not session.forked:
                self._places.release()
            self._spawn(self._tell_end(session.path))

    async def _lease(self, key: str) -> dict[str, Any]:
        until = time.monotonic() + self._lease_s
        while True:
            try:
                return await self._client.json("POST", "/sessions", within_s=max(1.0, until - time.monotonic()), key=key)
            except Full as full:
                if time.monotonic() + full.retry_after_s >= until:
                    raise SandboxError(f"no session became free within {self._lease_s:g} s: {full}") from full
                await asyncio.sleep(full.retry_after_s)

    async def _tell_end(self, path: str, key: str | None = None) -> None:
        try:
            await self._client.ask("DELETE", path, within_s=CLOSE_S, key=key)
        except (SandboxError, InputError) as error:
            log.debug("the service was not told of a session's end, and will end it when it is idle: %s", error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class RemoteSession:
    """A `Session` of a service. What fails or is cancelled ends it; what was refused does not."""

    def __init__(self, sandbox: RemoteSandbox, client: Client, lease: dict[str, Any], grace_s: float, forked: bool = False) -> None:
        name, timeout = lease.get("id"), lease.get("cell_timeout_s")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise SandboxError("the service's reply names no session")
        if not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
            raise SandboxError("the service's reply names no time limit")
        self.path, self.forked = f"/sessions/{name}", forked
        self._sandbox, self._client, self._timeout_s, self._grace_s = sandbox, client, timeout, grace_s
        self._lock = asyncio.Lock()
        self._closed: str | None = None

    async def run(self, code: str, *, timeout_s: float | None = None, keep: bool = True) -> CellResult:
        if len(code) > MAX_CODE_CHARS:
            return CellResult(Outcome.ERROR, error=f"the cell has {len(code)} characters; the most are {MAX_CODE_CHARS}")
        within = (self._timeout_s if timeout_s is None else timeout_s) + self._grace_s
        cell = {"code": code, "timeout_s": timeout_s, "keep": keep}
        async with self._turn():
            return cell_result(await self._client.json("POST", f"{self.path}/run", within_s=within, key=_new(), body=cell))

    async def fork(self) -> RemoteSession:
        """See `Session.fork`. Where the service has no place it raises SandboxError, and this session goes on."""
        async with self._turn():
            lease = await self._client.json("POST", f"{self.path}/fork", within_s=ANSWER_S, key=_new())
            other = RemoteSession(self._sandbox, self._client, lease, self._grace_s, forked=True)
            self._sandbox.adopt(other)
            return other

    async def undo(self, cells: int = 1) -> None:
        async with self._turn():
            await self._client.ask("POST", f"{self.path}/undo", within_s=ANSWER_S, key=_new(), body={"cells": cells})

    async def put(self, path: str, data: bytes) -> None:
        if len(data) > MAX_FILE:
            raise InputError(f"{path!r}: {len(data)} bytes are too many; the most are {MAX_FILE}")
        where = {"path": _sendable(path)}
        async with self._turn():
            within = ANSWER_S + len(data) / SLOWEST
            await self._client.ask("PUT", f"{self.path}/file", within_s=within, key=_new(), params=where, body=bytes(data))

    async def get(self, path: str) -> bytes:
        where = {"path": _sendable(path)}
        async with self._turn():
            within = ANSWER_S + MAX_FILE / SLOWEST
            return await self._client.ask("GET", f"{self.path}/file", within_s=within, params=where, most=MAX_FILE)

    async def files(self) -> list[FileInfo]:
        async with self._turn():
            return _files(await self._client.json("GET", f"{self.path}/files", within_s=ANSWER_S))

    async def close(self) -> None:
        self.end("it was closed")

    def end(self, why: str) -> None:
        """End the session, without waiting for it. The cell that runs in it ends too."""
        if self._closed is None:
            self._closed = why
            self._sandbox.ended(self)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        async with self._lock:
            if self._closed is not None:
                raise SessionLost(f"the session has ended: {self._closed}")
            try:
                yield
            except (InputError, Full):
                raise
            except BaseException as error:
                self.end(str(error) or type(error).__name__)
                raise


def checked(url: str) -> str:
    """The address of a service, without a slash at its end. Raises SettingsError."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not (parts.query or parts.fragment)
    except ValueError:
        good = False
    if not good:
        raise SettingsError(f"{url!r} is no address of a sandbox service: write it as http://HOST:PORT")
    if "@" in parts.netloc:
        raise SettingsError(f"a name or password in the service's address is not used: give its token, as {TOKEN}")
    return url.rstrip("/")


def _new() -> str:
    """An id for a request."""
    return uuid.uuid4().hex


def _sendable(path: str) -> str:
    with suppress(UnicodeEncodeError):
        path.encode()
        if len(path) <= MAX_PATH:
            return path
    raise InputError(f"{plain(path[:80])!r} is no path of a file: text of at most {MAX_PATH} characters")


def _files(reply: dict[str, Any]) -> list[FileInfo]:
    found: Any = reply.get("files")
    if not isinstance(found, list):
        raise SandboxError("the service's reply lists no files")
    try:
        files = [FileInfo(path, size) for path, size in found]
    except (TypeError, ValueError) as error:
        raise SandboxError("the service's list of files makes no sense") from error
    if not all(isinstance(file.path, str) and type(file.size) is int and file.size >= 0 for file in files):
        raise SandboxError("the service's list of files makes no sense")
    return [FileInfo(plain(file.path), file.size) for file in files]
