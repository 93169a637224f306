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
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Self

from toolreason.errors import SandboxError, SetupError
from toolreason.execution.base import Limits
from toolreason.execution.image import source
from toolreason.execution.session import ANSWER_S, RunnerSession
from toolreason.execution.wire import Runner

WARNING = (
    "the local sandbox is no boundary: cells run as you, with your files and your network. Use `docker` for code you don't trust."
)


@cache
def warn_once() -> None:
    logging.getLogger(__name__).warning(WARNING)


class LocalSandbox:
    """Sessions are subprocesses in temporary folders, with the packages of this interpreter. Linux only. No boundary: see above."""

    def __init__(self, limits: Limits | None = None, *, max_sessions: int = 32, grace_s: float = 75.0) -> None:
        if not sys.platform.startswith("linux"):
            raise SetupError("the local sandbox needs Linux: use the docker sandbox")
        warn_once()
        self.limits, self._grace_s = limits or Limits(), grace_s
        self._places = asyncio.Semaphore(max_sessions)
        self._live: dict[Runner, set[RunnerSession]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def session(self) -> RunnerSession:
        """A session in a process of its own. Waits while `max_sessions` are leased. Raises SandboxError."""
        await self._places.acquire()
        try:
            if self._closed:
                raise SandboxError("the sandbox is closed")
            wire = await start(self.limits)
        except BaseException:
            self._places.release()
            raise
        runner = Runner(wire, on_close=lambda: self._ended(runner, wire))
        self._live[runner] = set()
        await runner.ready()
        try:
            session = await RunnerSession.open(
                runner, self.limits, self._grace_s, lambda ended: self._left(runner, ended), self._live[runner].add
            )
        except BaseException:
            runner.close("it opened no session")
            raise
        self._live[runner].add(session)
        return session

    async def aclose(self) -> None:
        self._closed = True
        for runner in list(self._live):
            runner.close("the sandbox was closed")
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _left(self, runner: Runner, session: RunnerSession) -> None:
        """A session is over; with the last one of a runner, so is the runner."""
        sessions = self._live.get(runner, set())
        sessions.discard(session)
        if not sessions:
            runner.close()
        elif runner.alive:
            self._spawn(runner.ask(ANSWER_S, op="close", session=session.number))

    def _ended(self, runner: Runner, wire: Pipes) -> None:
        for session in self._live.pop(runner, set()).copy():
            session.end("its runner has ended")
        self._places.release()
        self._spawn(wire.finish())

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._settled)

    def _settled(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at: a runner that has ended meanwhile is no trouble


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
    work, keep = Path(folder) / "work", Path(folder) / "keep"
    forks = [Path(folder) / f"fork-{number}" for number in range(1, limits.forks + 1)]
    for place in (work, keep, *forks):
        place.mkdir(0o700)
    settings = asdict(limits) | {"slots": [str(place) for place in (work, *forks)], "scratch": None, "keep": str(keep)}
    settings |= {"own_ids": False, "shared": False, "watch_memory": False, "most_processes": limits.processes}
    environment = {"PATH": os.defpath, "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str((source() / "runner.py").resolve()), json.dumps(settings)]
    pipe = subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=work, env=environment, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, start_new_session=True
        )
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise SandboxError(f"the runner could not be started: {error}") from error
        raise
    return Pipes(process, folder)
