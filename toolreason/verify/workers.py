"""Functions run in worker processes, under a limit that nothing in them can outlast.

Why not a pool of `multiprocessing`: its spawn runs the user's main module again, which ends badly in a script without a main
guard and in a notebook's or a shell's standard input. A worker here is `python -c`, spoken to over its own pipes.

A job goes `{"function": "module:name", "args": [...]}` to the worker; the worker imports the module and calls its `warm()`, if it
has one, and says `started`; only then the job's time runs. A worker past its time is killed. It ends by itself when its input
closes, however the parent died, and a limit on processor time ends it where it is stuck in one long instruction. Control-C
does not reach it: the parent decides. In the worker memory is bounded, files cannot be written, and starting programs or opening
sockets raises: graded text is untrusted, and some graders evaluate it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import sys
from typing import Any

from toolreason.errors import VerifierError

_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from toolreason.verify.workers import main; main(int(sys.argv[2]))"
)
_FORBIDDEN = tuple(
    f"os.{name}" for name in ("system", "exec", "fork", "posix_spawn", "spawn", "remove", "rename", "kill", "putenv")
)
_FORBIDDEN += tuple(f"{name}." for name in ("subprocess", "socket", "shutil", "ctypes", "pty", "urllib", "ftplib", "smtplib"))
_STARTUP_S = 120.0  # importing sympy on a loaded machine; not part of the time of a job


class Overtime(Exception):
    """The job ran past its limit; its worker is gone."""


class _Worker:
    """One process and its pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.jobs = 0

    @classmethod
    async def start(cls, memory_mb: int) -> _Worker:
        path = json.dumps([entry or os.getcwd() for entry in sys.path])
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-B", "-c", _BOOT, path, str(memory_mb),
                stdin=pipe, stdout=pipe, stderr=null, env=environment, limit=1 << 20, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise VerifierError(f"a grading worker cannot start: {error}") from error
        return cls(process)

    async def send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        await self.process.stdin.drain()

    async def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line.endswith(b"\n"):
            raise VerifierError("a grading worker died")
        message: dict[str, Any] = json.loads(line)
        return message

    async def stop(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        if self.process.stdout is not None:
            with contextlib.suppress(RuntimeError):  # a job that is still reading will meet the end itself
                await self.process.stdout.read()  # a pipe closes when it has been read to its end


class Workers:
    """A pool, started lazily, bound to the event loop that first uses it. `aclose` leaves nothing behind."""

    def __init__(self, count: int = 2, memory_mb: int = 1024, recycle: int = 500) -> None:
        self.count, self.memory_mb, self.recycle = count, memory_mb, recycle
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._slots = asyncio.Semaphore(count)
        self._closed = False

    async def run(self, function: str, *args: Any, timeout_s: float) -> Any:
        """What `module:name` returns for `args` (both JSON).

        Raises Overtime when the job itself takes longer than `timeout_s`, VerifierError when the function raises or the worker
        dies or cannot start. Cancelling the call ends its worker.
        """
        async with self._slots:
            worker, result = await self._begin({"function": function, "args": args, "limit_s": timeout_s})
            try:
                if "error" not in result:
                    result = await self._finish(worker, timeout_s)
            except BaseException:
                await asyncio.shield(self._discard(worker))
                raise
            worker.jobs += 1
            if worker.jobs >= self.recycle or self._closed:
                await self._discard(worker)
            else:
                self._busy.discard(worker)
                self._idle.append(worker)
        if "error" in result:
            raise VerifierError(f"the grader failed: {result['error']}")
        return result["value"]

    async def _begin(self, message: dict[str, Any]) -> tuple[_Worker, dict[str, Any]]:
        """Hand a job to an idle or new worker; its first word. One that died while idle is replaced."""
        while not self._closed:
            used = bool(self._idle)
            worker = self._idle.pop() if used else await _Worker.start(self.memory_mb)
            self._busy.add(worker)
            try:
                async with asyncio.timeout(_STARTUP_S):
                    await worker.send(message)
                    return worker, await worker.receive()
            except BaseException as error:
                await asyncio.shield(self._discard(worker))
                if not isinstance(error, VerifierError | TimeoutError | OSError):
                    raise
                if not used:
                    raise VerifierError("a grading worker did not start") from error
        raise VerifierError("the grading workers are closed")

    async def _finish(self, worker: _Worker, timeout_s: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout(timeout_s):
                return await worker.receive()
        except TimeoutError as error:
            raise Overtime(f"not decided within {timeout_s:g} s") from error
        except (OSError, ValueError) as error:
            raise VerifierError("a grading worker died") from error

    async def _discard(self, worker: _Worker) -> None:
        await worker.stop()
        self._busy.discard(worker)

    async def aclose(self) -> None:
        """End all workers; a job still running raises VerifierError. Safe to call twice."""
        self._closed = True
        idle, self._idle = self._idle, []
        await asyncio.gather(*(worker.stop() for worker in [*idle, *self._busy]))


def main(memory_mb: int) -> None:
    """The worker's side: one JSON line in, `started` and one JSON line out, until the input ends."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints goes nowhere, and not into the answers
    guard = _Guard()
    sys.addaudithook(guard)

    def say(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    for line in sys.stdin:
        request = json.loads(line)
        try:
            module, name = request["function"].split(":")
            function = getattr(importlib.import_module(module), name)
            getattr(sys.modules[module], "warm", lambda: None)()
        except Exception as error:
            say({"error": f"{type(error).__name__}: {error}"})
            continue
        _limit(memory_mb, request["limit_s"])
        say({"started": True})
        guard.up = True
        try:
            reply = {"value": function(*request["args"])}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"[:500]}
        guard.up = False
        say(reply)


def _limit(memory_mb: int, limit_s: float) -> None:
    """Bound address space (above what the imports took), processor time of this job, and files. Best effort off Linux."""
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime + limit_s) + 5
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with contextlib.suppress(OSError, ValueError):
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[0])
        size = pages * resource.getpagesize() + memory_mb * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (size, resource.getrlimit(resource.RLIMIT_AS)[1]))


class _Guard:
    """An audit hook that refuses, while a job runs, what no grader needs. A second line of defence, not a sandbox."""

    up = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.up:
            return
        writes = event == "open" and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
        if writes or event.startswith(_FORBIDDEN):
            raise PermissionError(f"{event} is not allowed while grading")
