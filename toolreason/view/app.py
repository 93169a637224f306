"""The viewer's routes. Everything is read; nothing is written but the lists' own cache."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from toolreason.errors import InputError, ToolreasonError
from toolreason.serve.openai_http import reply
from toolreason.view import detail, pages, places
from toolreason.view.harmless import harmless
from toolreason.view.index import Index
from toolreason.view.rows import Filters, Sort

STATIC = {"": "index.html", "view.css": "view.css"} | {
    name: name
    for name in ("main.js", "dom.js", "home.js", "list.js", "trajectory.js", "pair.js", "compare.js", "training.js", "tools.js")
}
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
PAGE = 100


Count = Annotated[int, Field(ge=0, lt=1 << 62)]  # what a column of the list can hold


class Listed(BaseModel):
    """What a list is asked for: the run, `index.Filters`, and from which row on."""

    name: str
    verdict: str = ""
    strategy: str = ""
    stop: str = ""
    problem: str = ""
    text: str = ""
    calls: Count = 0
    tokens: Count = 0
    errors: bool = False
    sort: Sort = "place"
    down: bool = False
    start: Count = 0

    def filters(self) -> Filters:
        return Filters(**self.model_dump(exclude={"name", "start"}))


def open_files(prefix: str = "") -> frozenset[str]:
    """The paths that hold no data: the page itself."""
    return frozenset({prefix} | {f"{prefix}/{name}" for name in STATIC})


class Shelves:
    """What is shown: places looked up anew, so that a run that begins is seen, and an index for each run."""

    def __init__(self, paths: Sequence[Path], libraries: Sequence[str], tokenizer: str | None, cache: Path | None) -> None:
        self._paths, self._libraries, self._cache = list(paths), list(libraries), cache
        self.tokenizer = tokenizer
        self._indexes: dict[Path, Index] = {}
        self._lock = threading.Lock()

    def places(self) -> places.Places:
        return places.find(self._paths, self._libraries)

    def run(self, name: str) -> tuple[Index, Path]:
        """Raises InputError for a run that is not among the places."""
        path = self.places().runs.get(name)
        if path is None:
            raise InputError(f"there is no run {harmless(name[:200])!r} here")
        with self._lock:
            return self._indexes.setdefault(path, Index(path, self._cache)), path


def application(
    paths: Sequence[Path], libraries: Sequence[str] = (), *, tokenizer: str | None = None, cache: Path | None = None
) -> FastAPI:
    """The viewer over these directories. `tokenizer` reads the tokens of runs whose policy does not tell its own; `cache`: where
    the lists are kept (default: in the user's cache directory).
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    shelves = Shelves(paths, libraries, tokenizer, cache)

    @app.middleware("http")
    async def harmless_headers(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await answer(request)
        response.headers.update(HEADERS)
        return response

    async def failed(request: Request, error: Exception) -> Response:
        return reply({"error": harmless(str(error)[:2000])}, 404 if isinstance(error, InputError) else 502)

    for kind in (ToolreasonError, OSError):  # a run may be moved or taken away while it is looked at
        app.add_exception_handler(kind, failed)

    _add_pages(app)
    _add_runs(app, shelves)
    _add_others(app, shelves)
    return app


def _add_pages(app: FastAPI) -> None:
    """The page's own files, each by name."""
    for name, file in STATIC.items():
        content = (files("toolreason.view") / "static" / file).read_bytes()
        app.get(f"/{name}")(_fixed(content, TYPES[Path(file).suffix]))


def _fixed(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def page() -> Response:
        return Response(content, media_type=kind)

    return page


def _add_runs(app: FastAPI, shelves: Shelves) -> None:
    """Lists and trajectories. What reads files runs in a thread."""

    @app.get("/api/places")
    def all_places() -> Response:
        found = shelves.places()
        return reply({name: [harmless(one) for one in getattr(found, name)] for name in ("runs", "trainings", "libraries")})

    @app.get("/api/run")
    def run(name: str) -> Response:
        index, path = shelves.run(name)
        return reply(pages.card(index, path))

    @app.get("/api/list")
    def rows(asked: Annotated[Listed, Query()]) -> Response:
        index, _ = shelves.run(asked.name)
        progress = index.refresh()
        count, found = index.page(asked.filters(), asked.start, PAGE)
        facets = harmless(index.facets()) if asked.start == 0 else None
        return reply({"count": count, "rows": harmless(found), "facets": facets, "progress": asdict(progress)})

    @app.get("/api/trajectory")
    def trajectory(name: str, place: Count) -> Response:
        index, _ = shelves.run(name)
        return reply(detail.detail(index.trajectory(place)))

    @app.get("/api/tokens")
    def strip(name: str, place: Count) -> Response:
        index, _ = shelves.run(name)
        one = index.trajectory(place)
        return reply(detail.tokens(one, detail.decoder(one.policy, shelves.tokenizer)))

    @app.get("/api/same")
    def same(problem: str) -> Response:
        """The rollouts of one problem in all runs."""
        found = []
        for name in shelves.places().runs:
            index, _ = shelves.run(name)
            index.refresh(0.2)
            found += [{"run": harmless(name), **harmless(row)} for row in index.page(Filters(problem=problem), 0, 50)[1]]
        return reply({"rows": found[:500]})


def _add_others(app: FastAPI, shelves: Shelves) -> None:
    @app.get("/api/compare")
    def compare(first: str, second: str) -> Response:
        return reply(pages.against(shelves.run(first)[0], shelves.run(second)[0]))

    @app.get("/api/training")
    def training(name: str) -> Response:
        path = shelves.places().trainings.get(name)
        if path is None:
            raise InputError("there is no such training here")
        return reply(pages.training(path))

    @app.get("/api/library")
    async def library(name: str) -> Response:
        return reply({"tools": await pages.library(await _spec(shelves, name))})

    @app.get("/api/tool")
    async def tool(name: str, tool: str) -> Response:
        return reply(await pages.tool(await _spec(shelves, name), tool))


async def _spec(shelves: Shelves, name: str) -> str:
    spec = (await run_in_threadpool(shelves.places)).libraries.get(name)
    if spec is None:
        raise InputError("there is no such library here")
    return spec
