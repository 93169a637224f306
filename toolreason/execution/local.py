"""A sandbox without walls, for development: the same runner as a plain subprocess of yours. It is no boundary.

A cell can do here whatever you can: read your files, use your network, kill your processes. Time, memory per process and output
are limited, variables roll back as in a container, and that is all. It is used only where it is asked for by name.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from typing import Self

from toolreason.errors import SandboxError, SetupError
from toolreason.execution.base import Limits, Session
from toolreason.execution.image import source
from toolreason.execution.wire import WireSession

WARNING = (
    "the local sandbox is no boundary: cells run as you, with your files and your network. Use `docker` for code you don't trust."
)


@cache
def warn_once() -> None:
    logging.getLogger(__name__).warning(WARNING)


class LocalSandbox:
    """Sessions are subprocesses in temporary folders, with the packages of this interpreter. Linux only. No boundary: see above."""

    def __init__(self, limits: Limits | None = None, *, max_sessions: int = 32, grace_s: float = 10.0) -> None:
        if not sys.platform.startswith("linux"):
            raise SetupError("the local sandbox needs Linux: use the docker sandbox")
        warn_once()
        self.limits, self._grace_s = limits or Limits(), grace_s
        self._slots = asyncio.Semaphore(max_sessions)
        self._live: set[WireSession] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def session(self) -> Session:
        """A fresh process. Waits while `max_sessions` are leased. Raises SandboxError."""
        await self._slots.acquire()
        try:
            if self._closed:
                raise SandboxError("the sandbox is closed")
            wire = await start(self.limits)
        except BaseException:
            self._slots.release()
            raise
        session = WireSession(wire, self.limits, grace_s=self._grace_s, on_close=lambda: self._ended(session, wire))
        self._live.add(session)
        await session.ready()
        return session

    async def aclose(self) -> None:
        self._closed = True
        for session in list(self._live):
            await session.close()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _ended(self, session: WireSession, wire: Pipes) -> None:
        self._live.discard(session)
        self._slots.release()
        task = asyncio.ensure_future(wire.finish())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Pipes:
    """The standard streams of a runner that is a subprocess."""

    def __init__(self, process: asyncio.subprocess.Process, folder: str) -> None:
        assert process.stdin
        assert process.stdout
        self._process, self._folder = process, folder
        self._in, self._out = process.stdin, process.stdout
        self.stderr = b""

    @property
    def ended(self) -> bool:
        return self._out.at_eof()

    async def send(self, data: bytes) -> None:
        self._in.write(data)
        await self._in.drain()

    async def receive(self) -> bytes:
        return await self._out.read(1 << 16)

    def close(self) -> None:
        """The runner ends when its input does, and its cells with it."""
        self._in.close()

    async def finish(self) -> None:
        """Wait for the end of the runner, with force if it is stuck, and remove its folder."""
        try:
            async with asyncio.timeout(15):
                await self._process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


async def start(limits: Limits) -> Pipes:
    """Start a runner in a folder of its own, without this process's environment: that holds keys."""
    folder = tempfile.mkdtemp(prefix="toolreason-local-")
    environment = {"PATH": os.defpath, "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str((source() / "runner.py").resolve()), json.dumps(asdict(limits))]
    pipe = subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env=environment, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise SandboxError(f"the runner could not be started: {error}") from error
        raise
    return Pipes(process, folder)
