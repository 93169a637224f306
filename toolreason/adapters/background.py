"""A sandbox for callers who have no event loop, or are inside one and may not wait: its loop runs in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from functools import cache
from typing import Any, TypeVar

from toolreason.errors import SandboxError
from toolreason.execution.base import Sandbox

T = TypeVar("T")


class Background:
    """One event loop in a daemon thread; any number of callers. It must not be waited for from its own thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="toolreason-adapters", daemon=True).start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for `work`. What interrupts the wait (Ctrl-C) cancels it."""
        future = self._submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def arun(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for `work` from another event loop. Cancelling the wait cancels it."""
        return await asyncio.wrap_future(self._submit(work))

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin `work`, and do not wait."""
        return self._submit(work)

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)


@cache
def background() -> Background:
    """The one that all adapters of this process share."""
    return Background()


class Opened:
    """A sandbox that lives in the background: opened at its first use, once. Its coroutines run there.

    Containers end with this process at the latest.
    """

    def __init__(self, sandbox: Sandbox | None) -> None:
        self._given, self._open, self._closed = sandbox, False, False
        self._lock = asyncio.Lock()

    async def sandbox(self) -> Sandbox:
        """Raises SetupError when something is missing, SandboxError when it was closed."""
        async with self._lock:
            if self._closed:
                raise SandboxError("the sandbox is closed")
            if self._given is None:
                from toolreason.execution.docker import DockerSandbox

                self._given = DockerSandbox()
            if not self._open and hasattr(self._given, "__aenter__"):
                await self._given.__aenter__()
            self._open = True
            return self._given

    async def close(self) -> None:
        async with self._lock:
            was_open, self._open, self._closed = self._open, False, True
            if was_open and self._given is not None:
                await self._given.aclose()
