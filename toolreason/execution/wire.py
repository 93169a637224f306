"""The host's end of the wire: frames, and one session over them. `sandbox/PROTOCOL.md` describes both.

What comes back was made next to code that nobody trusts: it is bounded, it must be exactly of the expected shape, and any other
bytes are a `SandboxError`.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from typing import Any, Protocol

from toolreason.errors import SandboxError, SessionLost
from toolreason.execution.base import Limits
from toolreason.types import CellResult, Outcome

MAX_FRAME = 16 << 20
MAX_CODE_CHARS = 1 << 20
REPLAY_CELLS, REPLAY_S = 256, 60.0  # the longest history that a session rebuilds by running it again
START_S = 120.0


class Wire(Protocol):
    """A byte stream to a runner, over a container's streams or a subprocess's pipes."""

    stderr: bytes

    @property
    def ended(self) -> bool:
        """Whether the other end is known to be gone."""
        ...

    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes:
        """The next bytes, empty at the end."""
        ...

    def close(self) -> None: ...


def encode(frame: dict[str, Any]) -> bytes:
    body = json.dumps(frame).encode()
    return len(body).to_bytes(4, "big") + body


class Frames:
    """Reads frames from a wire."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.buffer = bytearray()

    async def receive(self) -> dict[str, Any]:
        """The next frame. Raises SessionLost at the end of the stream, SandboxError on anything that is no frame."""
        size = int.from_bytes(await self._take(4), "big")
        if size > MAX_FRAME:
            raise SandboxError(f"the runner announced a frame of {size} bytes")
        body = await self._take(size)
        try:
            frame = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise SandboxError(f"the runner sent what is no JSON: {body[:80]!r}") from error
        if not isinstance(frame, dict):
            raise SandboxError("the runner sent a frame that is no object")
        return frame

    async def _take(self, count: int) -> bytes:
        while len(self.buffer) < count:
            chunk = await self.wire.receive()
            if not chunk:
                last = self.wire.stderr.decode("utf-8", "replace").strip()[-500:]
                raise SessionLost(f"the runner has ended{': ' + last if last else ''}")
            self.buffer += chunk
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken


def cell_result(frame: dict[str, Any]) -> CellResult:
    """The reply to a cell, checked. Raises SandboxError."""
    try:
        texts = {name: frame.get(name) or "" for name in ("stdout", "stderr", "traceback")}
        options = {name: frame.get(name) for name in ("value", "error")}
        dropped, duration = frame.get("dropped", 0), frame.get("duration_s", 0.0)
        if not all(isinstance(text, str) for text in (*texts.values(), *(o for o in options.values() if o is not None))):
            raise ValueError("a text is no string")
        if type(dropped) is not int or not 0 <= dropped < 1 << 53 or not math.isfinite(duration):
            raise ValueError("a number is none")
        clean: dict[str, Any] = {name: text if text is None else _plain(text) for name, text in (texts | options).items()}
        return CellResult(outcome=Outcome(frame["outcome"]), dropped=dropped, duration_s=float(duration), **clean)
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise SandboxError(f"the runner's reply makes no sense: {error}") from error


def _plain(text: str) -> str:
    """Without lone surrogates, which JSON can smuggle in and no reader accepts."""
    return text.encode("utf-8", "backslashreplace").decode()


class WireSession:
    """A `Session` over a wire. It belongs to one user; `on_close` runs once, when it ends for whatever reason."""

    def __init__(self, wire: Wire, limits: Limits, *, grace_s: float = 10.0, on_close: Callable[[], None] = lambda: None) -> None:
        self._wire, self._frames = wire, Frames(wire)
        self._limits, self._grace_s, self.on_close = limits, grace_s, on_close
        self._lock = asyncio.Lock()
        self._closed: str | None = None
        self._count = 0
        self._committed: list[tuple[str, float]] = []  # code, time limit
        self._committed_s = 0.0

    @property
    def alive(self) -> bool:
        return self._closed is None and not self._wire.ended

    async def ready(self) -> None:
        """Wait until the runner has made its imports. Raises SandboxError; the session is closed then."""
        try:
            hello = await asyncio.wait_for(self._frames.receive(), START_S)
            if hello.get("hello") != 1:
                raise SandboxError("the runner speaks another protocol: rebuild the sandbox image")
        except BaseException as error:
            self._end("it did not start")
            if isinstance(error, TimeoutError):
                raise SandboxError(f"the runner was not ready within {START_S:g} s") from error
            raise

    async def run(self, code: str, *, timeout_s: float | None = None, keep: bool = True) -> CellResult:
        """See `Session.run`. When a cell has killed the process that held the state, the committed cells run again to rebuild
        it; where that is not possible, SessionLost is raised.
        """
        if len(code) > MAX_CODE_CHARS:
            return CellResult(Outcome.ERROR, error=f"the cell has {len(code)} characters; the most are {MAX_CODE_CHARS}")
        timeout = self._limits.cell_timeout_s if timeout_s is None else timeout_s
        async with self._lock:
            if self._closed is not None:
                raise SessionLost(f"the session has ended: {self._closed}")
            try:
                result, lost = await self._exchange(code, timeout, keep)
                if lost:
                    await self._rebuild()
            except BaseException as error:
                self._end(str(error) or type(error).__name__)
                if isinstance(error, OSError):
                    raise SessionLost(f"the stream to the runner broke: {error}") from error
                raise
            if keep and result.outcome.committed:
                self._committed_s += result.duration_s
                if len(self._committed) <= REPLAY_CELLS:
                    self._committed.append((code, timeout))
            return result

    async def close(self) -> None:
        self._end("it was closed")

    async def _exchange(self, code: str, timeout: float, keep: bool) -> tuple[CellResult, bool]:
        """Send one cell and wait for its reply, no longer than the runner's own clock and a grace. Returns result and lost."""
        self._count += 1
        frame = {"id": self._count, "op": "run", "code": code, "timeout_s": timeout, "keep": keep}
        try:
            async with asyncio.timeout(timeout + self._grace_s):
                await self._wire.send(encode(frame))
                reply = await self._frames.receive()
        except TimeoutError as error:
            raise SessionLost(f"the runner did not answer within {timeout:g} s and a grace of {self._grace_s:g} s") from error
        if reply.get("id") != self._count:
            raise SandboxError("the runner answered another question")
        return cell_result(reply), reply.get("lost") is True

    async def _rebuild(self) -> None:
        """Bring back the state that died with the session process."""
        if len(self._committed) > REPLAY_CELLS or self._committed_s > REPLAY_S:
            raise SessionLost("its process was killed, and its cells are too many, or took too long, to run again")
        for code, timeout in self._committed:
            result, lost = await self._exchange(code, timeout, True)
            if lost or not result.outcome.committed:
                raise SessionLost(f"its process was killed, and a cell ended differently when run again: {result.outcome}")

    def _end(self, why: str) -> None:
        if self._closed is None:
            self._closed = why
            self._wire.close()
            self.on_close()
