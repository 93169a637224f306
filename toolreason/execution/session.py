"""A session in a runner: the host's side of its cells, its files, and its way back when its processes are lost."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from toolreason.errors import InputError, SandboxError, SessionLost, ToolreasonError
from toolreason.execution.base import FileInfo, Limits
from toolreason.execution.wire import Runner, cell_result, content
from toolreason.types import CellResult, Outcome

MAX_CODE_CHARS = 1 << 20
MAX_FILE = 256 << 20
PIECE = 4 << 20  # what one frame carries of a file
ANSWER_S = 30.0  # for what is no cell
UNDONE = "[the process of the last cell died after the cell had ended: what it did is undone]\n"
TRIES = 3  # of a cell whose session's processes are found dead
REPLAY_CELLS, REPLAY_S, REPLAY_BYTES = 256, 60.0, 16 << 20  # the longest history that a session rebuilds by running it again


@dataclass(frozen=True, slots=True)
class Step:
    """What made the present state, in order: committed cells, and files put between them."""

    code: str | None = None
    timeout_s: float = 0.0
    took_s: float = 0.0
    path: str = ""
    data: bytes = b""


class RunnerSession:
    """A `Session` in a runner. `on_close` runs once, when it ends for whatever reason; it gets the session."""

    def __init__(
        self,
        runner: Runner,
        number: int,
        limits: Limits,
        grace_s: float,
        on_close: Callable[[RunnerSession], None] = lambda _: None,
        on_fork: Callable[[RunnerSession], None] = lambda _: None,
        history: tuple[Step, ...] = (),
    ) -> None:
        self.runner, self.number = runner, number
        self._limits, self._grace_s = limits, grace_s
        self.on_close, self._on_fork = on_close, on_fork
        self._lock = asyncio.Lock()
        self._closed: str | None = None
        self._history = list(history)
        self._used = time.monotonic()
        self._complete = True  # whether the history is all there is

    @classmethod
    async def open(
        cls,
        runner: Runner,
        limits: Limits,
        grace_s: float,
        on_close: Callable[[RunnerSession], None] = lambda _: None,
        on_fork: Callable[[RunnerSession], None] = lambda _: None,
    ) -> RunnerSession:
        """A fresh session. Raises SandboxError."""
        try:
            number = await _made(runner, op="open")
        except InputError as error:
            raise SandboxError(f"the runner opens no session: {error}") from error
        return cls(runner, number, limits, grace_s, on_close, on_fork)

    @property
    def alive(self) -> bool:
        return self._closed is None and self.runner.alive

    @property
    def idle_s(self) -> float:
        """Seconds since the last call ended; 0 during one."""
        return 0.0 if self._lock.locked() else time.monotonic() - self._used

    async def run(self, code: str, *, timeout_s: float | None = None, keep: bool = True) -> CellResult:
        """See `Session.run`. Where processes that held the state have died, the cells that made it run again; where that is not
        possible, SessionLost is raised. A last cell that does not end well again is undone, and the result's stderr says so.
        """
        if len(code) > MAX_CODE_CHARS:
            return CellResult(Outcome.ERROR, error=f"the cell has {len(code)} characters; the most are {MAX_CODE_CHARS}")
        timeout = self._limits.cell_timeout_s if timeout_s is None else timeout_s
        async with self._turn():
            undone = False
            for again in range(TRIES):
                result, missing, ran = await self._cell(code, timeout, keep)
                if missing is not None and again:  # what was run again has died again: without its last cell
                    missing, undone = missing[: _last_cell(missing)], True
                if missing is not None and not await self._rebuild(missing):
                    undone = True
                if missing is None or ran:
                    break
            else:
                raise SessionLost("its processes die as soon as they are started")
            if keep and result.outcome.committed:
                self._record(Step(code, timeout, result.duration_s))
            return replace(result, stderr=UNDONE + result.stderr) if undone else result

    async def fork(self) -> RunnerSession:
        async with self._turn():
            number = await _made(self.runner, op="fork", session=self.number)
            history = tuple(self._history)
            other = RunnerSession(self.runner, number, self._limits, self._grace_s, self.on_close, self._on_fork, history)
            other._complete = self._complete
            self._on_fork(other)
            return other

    async def undo(self, cells: int = 1) -> None:
        async with self._turn():
            await self._ask(op="undo", cells=cells)
            self._forget(cells)

    async def put(self, path: str, data: bytes) -> None:
        if len(data) > MAX_FILE:
            raise InputError(f"{path!r}: {len(data)} bytes are too many; the most are {MAX_FILE}")
        async with self._turn():
            await self._put(path, data)
            self._record(Step(path=path, data=data))

    async def get(self, path: str) -> bytes:
        data = b""
        async with self._turn():
            while True:
                frame = await self._ask(op="get", path=path, offset=len(data), count=PIECE)
                piece, size = content(frame), frame.get("size")
                data += piece
                if type(size) is not int or size > MAX_FILE:
                    raise InputError(f"{path!r} is larger than {MAX_FILE} bytes")
                if len(data) >= size or not piece:
                    return data

    async def files(self) -> list[FileInfo]:
        async with self._turn():
            found = (await self._ask(op="files")).get("files")
            try:
                return [FileInfo(str(path), int(size)) for path, size in found or ()]
            except (TypeError, ValueError) as error:
                raise SandboxError("the runner's list of files makes no sense") from error

    async def close(self) -> None:
        self.end("it was closed")

    def end(self, why: str) -> None:
        """End the session, without waiting for it."""
        if self._closed is None:
            self._closed = why
            self.on_close(self)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One call at a time. What fails, or is cancelled, ends the session; what was refused does not."""
        async with self._lock:
            if self._closed is not None:
                raise SessionLost(f"the session has ended: {self._closed}")
            try:
                yield
            except InputError:
                raise
            except BaseException as error:
                self.end(str(error) or type(error).__name__)
                raise
            finally:
                self._used = time.monotonic()

    async def _put(self, path: str, data: bytes) -> None:
        for at in range(0, max(1, len(data)), PIECE):
            piece = b64encode(data[at : at + PIECE]).decode()
            await self._ask(op="put", path=path, data=piece, append=at > 0, last=at + PIECE >= len(data))

    async def _ask(self, **question: Any) -> dict[str, Any]:
        return await self.runner.ask(ANSWER_S, session=self.number, **question)

    async def _cell(self, code: str, timeout: float, keep: bool) -> tuple[CellResult, list[Step] | None, bool]:
        """One cell, in no more than the runner's own clock and a grace. Returns its result, what to do again since its state
        died with its processes (None: nothing died), and whether the cell ran.
        """
        question = {"op": "run", "session": self.number, "code": code, "timeout_s": timeout, "keep": keep}
        try:
            reply = await self.runner.ask(timeout + self._grace_s, **question)
        except InputError as error:  # a runner has no reason to refuse a cell
            raise SandboxError(str(error)) from error
        ran = reply.get("ran") is not False
        if reply.get("lost") is True:
            if not self._complete:
                raise SessionLost("its processes were killed, and its cells are too many to run again")
            missing, self._history = self._history, []
            return cell_result(reply), missing, ran
        undone = reply.get("undone")
        count = undone if type(undone) is int and 0 <= undone <= self._limits.undo_depth else 0
        return cell_result(reply), self._forget(count) if count else None, ran

    def _forget(self, cells: int) -> list[Step]:
        """Take so many committed cells out of the history, with what was put after them. Returns them, in order."""
        at = self._where(cells)
        missing, self._history = self._history[at:], self._history[:at]
        return missing

    def _where(self, cells: int) -> int:
        """Where in the history the last so many cells begin."""
        places = [at for at, step in enumerate(self._history) if step.code is not None]
        return places[-cells] if 0 < cells <= len(places) else 0 if cells else len(self._history)

    def _record(self, step: Step) -> None:
        self._history.append(step)
        cells = [step for step in self._history if step.code is not None] if len(self._history) > REPLAY_CELLS else []
        if len(cells) > REPLAY_CELLS or sum(len(step.data) for step in self._history) > REPLAY_BYTES:
            self._history, self._complete = self._history[self._where(self._limits.undo_depth) :], False

    async def _rebuild(self, missing: list[Step]) -> bool:
        """Do again what died with its processes. False where the last cell dies again, and is undone."""
        if sum(step.took_s for step in missing) > REPLAY_S:
            raise SessionLost("its processes were killed, and its cells took too long to run them again")
        for at, step in enumerate(missing):
            if step.code is None:
                await self._put(step.path, step.data)
            else:
                result, again, _ = await self._cell(step.code, max(step.timeout_s, REPLAY_S), True)
                if again is None and result.outcome is Outcome.CRASHED and _last_cell(missing) == at:
                    return False
                if again is not None or not result.outcome.committed:
                    raise SessionLost(f"its processes were killed, and a cell ended differently when run again: {result.outcome}")
            self._record(step)
        return True


def _last_cell(steps: list[Step]) -> int:
    """Where the last cell among these steps is."""
    return max((at for at, step in enumerate(steps) if step.code is not None), default=len(steps))


async def _made(runner: Runner, **question: Any) -> int:
    """The number of a session that the runner makes. When this is cancelled, the session is closed as soon as it is made."""
    asking = asyncio.ensure_future(runner.ask(ANSWER_S, **question))
    try:
        frame = await asyncio.shield(asking)
    except asyncio.CancelledError:
        runner.later(_unmake(runner, asking))
        raise
    number = frame.get("session")
    if type(number) is not int:
        raise SandboxError("the runner's reply names no session")
    return number


async def _unmake(runner: Runner, asking: asyncio.Future[dict[str, Any]]) -> None:
    with suppress(ToolreasonError):
        await runner.ask(ANSWER_S, op="close", session=(await asking).get("session"))
