"""The sandbox's service as a FastAPI application. `docs/sandbox-service.md` describes its routes."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from toolreason.errors import InputError, SandboxError, SessionLost
from toolreason.execution.base import Limits, Sandbox, Session
from toolreason.serve.guard import Guard
from toolreason.serve.leases import Full, Leases

T = TypeVar("T")
LONGEST_S = 86_400.0
CELL_BYTES = 8 << 20  # a request that carries no file: a cell of a million characters, escaped
router = APIRouter()


class Cell(BaseModel):
    """A cell to run. `timeout_s` is seconds of wall time; by default the sandbox's own limit holds."""

    model_config = ConfigDict(extra="forbid")
    code: str
    timeout_s: float | None = Field(None, gt=0, le=LONGEST_S, allow_inf_nan=False)
    keep: bool = True


class Back(BaseModel):
    """How many committed cells to take back."""

    model_config = ConfigDict(extra="forbid")
    cells: int = Field(1, ge=1, le=1 << 20)


def application(
    sandbox: Sandbox,
    *,
    token: str | None = None,
    max_sessions: int = 32,
    wait_s: float = 20.0,
    idle_s: float = 600.0,
    max_file_mb: int = 64,
) -> FastAPI:
    """A service over any sandbox, which stays the caller's. See `Leases` and `Guard` for what the options mean.

    It must run in the event loop in which the sandbox was opened. `app.state.leases` are its sessions.
    """
    leases = Leases(sandbox, max_sessions=max_sessions, wait_s=wait_s, idle_s=idle_s)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        reaper = asyncio.create_task(leases.end_idle())
        try:
            yield
        finally:
            reaper.cancel()
            await leases.aclose()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.leases = leases
    app.state.cell_timeout_s = getattr(sandbox, "limits", Limits()).cell_timeout_s
    app.add_middleware(Guard, token=token, most_bytes=max(CELL_BYTES, max_file_mb << 20))
    app.include_router(router)
    for kind, handler in HANDLERS:
        app.add_exception_handler(kind, handler)
    return app


def reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON in ASCII: what a cell or a file's name holds may be no Unicode text."""
    return Response(json.dumps(value), status, headers, "application/json")


def failed(status: int, headers: dict[str, str] | None = None) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handler(request: Request, error: Exception) -> Response:
        return reply({"error": str(error)[:1000]}, status, headers)

    return handler


async def refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return reply({"error": str(error.detail)[:1000]}, error.status_code, dict(error.headers or {}))


async def misshapen(request: Request, error: Exception) -> Response:
    """What is wrong and where; not the input, which may be long."""
    assert isinstance(error, RequestValidationError)
    faults = (f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:5])
    return reply({"error": "; ".join(faults)[:1000]}, 422)


HANDLERS: tuple[tuple[Any, Any], ...] = (
    (InputError, failed(422)),
    (SessionLost, failed(410)),
    (Full, failed(503, {"Retry-After": str(Full.retry_after_s)})),
    (SandboxError, failed(502)),
    (RequestValidationError, misshapen),
    (HTTPException, refused),
)


async def the_leases(request: Request) -> Leases:  # async: a plain function would take a thread
    found: Leases = request.app.state.leases
    return found


Held = Annotated[Leases, Depends(the_leases)]
Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=128)]
Path = Annotated[str, Query(max_length=4096)]


@router.get("/health")
async def health() -> Response:
    return reply({"ok": True})


@router.get("/stats")
async def stats(held: Held) -> Response:
    return reply(held.stats())


@router.post("/sessions")
async def lease(request: Request, held: Held, key: Key = None) -> Response:
    leased = await held.lease(key)
    return reply({"id": leased.id, "cell_timeout_s": request.app.state.cell_timeout_s}, 201)


@router.delete("/sessions")
async def forget(held: Held, key: Annotated[str, Header(alias="Idempotency-Key", max_length=128)]) -> Response:
    await held.forget(key)
    return Response(status_code=204)


@router.delete("/sessions/{session_id}")
async def close(session_id: str, held: Held) -> Response:
    await held.close(session_id)
    return Response(status_code=204)


@router.post("/sessions/{session_id}/run")
async def run(session_id: str, cell: Cell, held: Held, key: Key = None) -> Response:
    async def work(session: Session) -> Response:
        return reply(asdict(await session.run(cell.code, timeout_s=cell.timeout_s, keep=cell.keep)))

    return await held.call(session_id, key, _digest("run", repr(cell)), work)


@router.post("/sessions/{session_id}/fork")
async def fork(request: Request, session_id: str, held: Held, key: Key = None) -> Response:
    forked = await held.fork(session_id, key)
    return reply({"id": forked.id, "cell_timeout_s": request.app.state.cell_timeout_s}, 201)


@router.post("/sessions/{session_id}/undo")
async def undo(session_id: str, back: Back, held: Held, key: Key = None) -> Response:
    async def work(session: Session) -> Response:
        await session.undo(back.cells)
        return Response(status_code=204)

    return await held.call(session_id, key, f"undo {back.cells}", work)


@router.put("/sessions/{session_id}/file")
async def put(request: Request, session_id: str, path: Path, held: Held, key: Key = None) -> Response:
    data = await request.body()

    async def work(session: Session) -> Response:
        await session.put(path, data)
        return Response(status_code=204)

    return await held.call(session_id, key, _digest(f"put {path}", data), work)


@router.get("/sessions/{session_id}/file")
async def get(session_id: str, path: Path, held: Held) -> Response:
    async def work(session: Session) -> Response:
        return Response(await session.get(path), media_type="application/octet-stream")

    return await held.call(session_id, None, "", work)


@router.get("/sessions/{session_id}/files")
async def files(session_id: str, held: Held) -> Response:
    async def work(session: Session) -> Response:
        return reply({"files": [[file.path, file.size] for file in await session.files()]})

    return await held.call(session_id, None, "", work)


def _digest(what: str, content: str | bytes) -> str:
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    return f"{what} {hashlib.sha256(data).hexdigest()}"
