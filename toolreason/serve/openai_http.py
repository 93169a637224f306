"""Between HTTP and rollouts: errors in the API's shape, clients that go away, streams of events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException

from toolreason.adapters.parts import Part, Splitter, joined
from toolreason.errors import InfrastructureError, InputError
from toolreason.graphs.events import Event
from toolreason.serve.desk import Busy, Draining, TooLong
from toolreason.types import Trajectory

T = TypeVar("T")

STATUS: tuple[tuple[type[Exception], int], ...] = (
    (Busy, 429),
    (Draining, 503),
    (TooLong, 504),
    (InputError, 400),
    (InfrastructureError, 502),
)
KINDS = {400: "invalid_request_error", 401: "authentication_error", 404: "invalid_request_error", 429: "rate_limit_error"}


def error_body(status: int, message: str) -> dict[str, Any]:
    return {"error": {"message": message[:1000], "type": KINDS.get(status, "server_error"), "param": None, "code": None}}


def reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(value), status, headers, "application/json")


def failed(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handler(request: Request, error: Exception) -> Response:
        headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Busy) else None
        return reply(error_body(status, str(error)), status, headers)

    return handler


async def refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return reply(error_body(error.status_code, str(error.detail)), error.status_code, dict(error.headers or {}))


async def misshapen(request: Request, error: Exception) -> Response:
    """What is wrong and where; not the input, which may be long."""
    assert isinstance(error, RequestValidationError)
    faults = (f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in error.errors()[:5])
    return reply(error_body(400, "; ".join(faults)), 400)


async def while_here(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do the work, unless the client goes away: then it is cancelled, and nobody hears of it."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise HTTPException(499, "the client has gone")
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.wait((task, gone))


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def streamed(events: AsyncIterator[str]) -> Response:
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


def line(value: Any, event: str | None = None) -> str:
    """A server-sent event."""
    return (f"event: {event}\n" if event else "") + f"data: {json.dumps(value)}\n\n"


async def told_apart(
    request: Request, start: Callable[[Callable[[Event], None]], Coroutine[Any, Any, Trajectory]]
) -> AsyncIterator[Part | Trajectory]:
    """The parts of a rollout as they come, and in the end the rollout. Closing it, or a client that goes, ends the rollout.

    What has come while the last part was sent is one part: a busy service sends longer pieces, not later ones.
    """
    heard: list[Event] = []
    news = asyncio.Event()

    def hear(event: Event) -> None:
        heard.append(event)
        news.set()

    work = asyncio.ensure_future(start(hear))
    gone = asyncio.ensure_future(_gone(request))  # the server itself would notice only when it sends the next piece
    for one in (work, gone):
        one.add_done_callback(lambda _: news.set())
    splitter, ended = Splitter(), False
    try:
        while not ended:
            await news.wait()
            news.clear()
            ended = work.done() or gone.done()
            events = heard.copy()
            heard.clear()
            for part in joined(part for event in events for part in splitter.feed(event)):
                yield part
        if not work.done():
            return
        done = work.result()
        for part in splitter.finish():
            yield part
        yield done
    finally:
        for one in (work, gone):
            one.cancel()
        await asyncio.wait((work, gone))


async def begun(parts: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The same, after its first: what is refused at once has an HTTP status, and not a broken stream."""
    try:
        first = await anext(parts)
    except StopAsyncIteration:
        raise HTTPException(499, "the client has gone") from None

    async def all_of_them() -> AsyncIterator[Any]:
        try:
            yield first
            async for part in parts:
                yield part
        finally:
            await parts.aclose()  # type: ignore[attr-defined]

    return all_of_them()
