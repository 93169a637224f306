"""The host's end of the wire: frames, and the questions and answers of one runner. `sandbox/PROTOCOL.md` describes both.

What comes back was made next to code that nobody trusts: it is bounded, it must be exactly of the expected shape, and any other
bytes are a `SandboxError`.
"""

from __future__ import annotations

import asyncio
import binascii
import json
import math
from base64 import b64decode
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from toolreason.errors import InputError, SandboxError, SessionLost
from toolreason.types import CellResult, Outcome

MAX_FRAME = 16 << 20
PROTOCOL = 2
START_S = 120.0
FIGURES, PNG = 64, b"\x89PNG\r\n\x1a\n"


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
    if len(body) > MAX_FRAME:
        raise InputError(f"a request of {len(body)} bytes is too long; the most are {MAX_FRAME}")
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


class Runner:
    """One runner: any number of questions may be under way, each is answered by its number.

    Once anything goes wrong on the wire the runner is given up: every question under way, and every later one, raises. `on_close`
    runs once, however it ends.
    """

    def __init__(self, wire: Wire, on_close: Callable[[], None] = lambda: None) -> None:
        self._wire, self._frames, self.on_close = wire, Frames(wire), on_close
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._count = 0
        self._closed: str | None = None
        self._listener: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Future[Any]] = set()

    @property
    def alive(self) -> bool:
        return self._closed is None and not self._wire.ended

    async def ready(self) -> None:
        """Wait until the runner has made its imports. Raises SandboxError; the runner is closed then."""
        try:
            hello = await asyncio.wait_for(self._frames.receive(), START_S)
            if hello.get("hello") != PROTOCOL:
                raise SandboxError("the runner speaks another protocol: rebuild the sandbox image")
        except BaseException as error:
            self.close("it did not start")
            if isinstance(error, TimeoutError):
                raise SandboxError(f"the runner was not ready within {START_S:g} s") from error
            if isinstance(error, OSError):
                raise SessionLost(f"the stream to the runner broke: {error}") from error
            raise
        self._listener = asyncio.ensure_future(self._listen())

    async def ask(self, within_s: float, **question: Any) -> dict[str, Any]:
        """Ask, and wait for the answer. Raises SessionLost when the runner is gone or mute, SandboxError when it fails, InputError
        when it refuses. A question of which nobody waits for the answer any more is left to the runner.
        """
        if self._closed is not None:
            raise SessionLost(f"the session has ended: {self._closed}")
        self._count += 1
        number = self._count
        data = encode({"id": number, **question})
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(within_s):
                await self._wire.send(data)
                frame: dict[str, Any] = await answer
        except TimeoutError as error:
            lost = SessionLost(f"the runner did not answer within {within_s:g} s")
            self.close(str(lost))
            raise lost from error
        except OSError as error:
            self.close("the stream to the runner broke")
            raise SessionLost(f"the stream to the runner broke: {error}") from error
        finally:
            self._waiting.pop(number, None)
            if answer.done() and not answer.cancelled():
                answer.exception()  # looked at, should nobody have waited
        if isinstance(frame.get("refused"), str):
            raise InputError(plain(frame["refused"])[:500])
        if isinstance(frame.get("failed"), str):
            raise SandboxError(f"the runner failed: {plain(frame['failed'])[:500]}")
        return frame

    def later(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do this in the background."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self, why: str = "it was closed", error: Exception | None = None) -> None:
        """Give the runner up: it ends when its input does. Safe to call twice."""
        if self._closed is not None:
            return
        self._closed = why
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(error or SessionLost(f"the session has ended: {why}"))
        if self._listener is not None and self._listener is not asyncio.current_task():
            self._listener.cancel()
        self._wire.close()
        self.on_close()

    async def _listen(self) -> None:
        """Give each answer to whoever waits for it."""
        try:
            while True:
                frame = await self._frames.receive()
                number = frame.get("id")
                if type(number) is not int or not 0 < number <= self._count:
                    raise SandboxError("the runner answered a question that nobody asked")
                answer = self._waiting.get(number)
                if answer is not None and not answer.done():
                    answer.set_result(frame)
        except SandboxError as error:
            self.close(str(error), error)
        except OSError as error:
            self.close(f"the stream to the runner broke: {error}")


def cell_result(frame: dict[str, Any]) -> CellResult:
    """The reply to a cell, checked. Raises SandboxError."""
    try:
        texts = {name: frame.get(name) or "" for name in ("stdout", "stderr", "traceback")}
        options = {name: frame.get(name) for name in ("value", "error")}
        dropped, duration, figures = frame.get("dropped", 0), frame.get("duration_s", 0.0), frame.get("figures", [])
        if not all(isinstance(text, str) for text in (*texts.values(), *(o for o in options.values() if o is not None))):
            raise ValueError("a text is no string")
        if type(dropped) is not int or not 0 <= dropped < 1 << 53 or not math.isfinite(duration):
            raise ValueError("a number is none")
        if not isinstance(figures, list) or len(figures) > FIGURES or not all(map(_is_picture, figures)):
            raise ValueError("a figure is no PNG file")
        clean: dict[str, Any] = {name: text if text is None else plain(text) for name, text in (texts | options).items()}
        outcome = Outcome(frame["outcome"])
        return CellResult(outcome=outcome, dropped=dropped, duration_s=float(duration), figures=tuple(figures), **clean)
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise SandboxError(f"the runner's reply makes no sense: {error}") from error


def content(frame: dict[str, Any]) -> bytes:
    """The bytes that a frame carries. Raises SandboxError."""
    try:
        return b64decode(frame["data"], validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise SandboxError("the runner's reply carries no data") from error


def plain(text: str) -> str:
    """Without lone surrogates, which JSON can smuggle in and no reader accepts."""
    return text.encode("utf-8", "backslashreplace").decode()


def _is_picture(text: Any) -> bool:
    try:
        return isinstance(text, str) and b64decode(text, validate=True).startswith(PNG)
    except binascii.Error:
        return False
