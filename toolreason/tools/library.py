"""The library: every version of every tool, what was done to them and how they were used, over LangGraph's `BaseStore`.

Nothing is overwritten. Versions and changes are entries of an append-only log (`toolreason.tools.log`), uses are items of their
own; what a tool is now is a fold over its entries (`toolreason.tools.events`), kept in memory and brought up to date before each
answer.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from toolreason.errors import InputError
from toolreason.tools.events import Entry, Event, Kind
from toolreason.tools.log import Log, whole
from toolreason.tools.package import Status, ToolPackage, Use
from toolreason.tools.retrieval import document, fuse
from toolreason.tools.shelf import Shelf
from toolreason.tools.stores import DEFAULT, Place, open_place
from toolreason.tools.usage import Usage, Uses, by_name, tally
from toolreason.tools.vectors import Vectors

if TYPE_CHECKING:
    from langgraph.store.base import BaseStore

POOL = 50  # the length of the rankings that are fused
MANY = 500  # tools to index at once


@dataclass(frozen=True, slots=True)
class Hit:
    """A tool that was found. `score` is BM25's, or with vector search that of the fused rankings: larger is better."""

    package: ToolPackage
    score: float


Packages = list[ToolPackage]  # `list` is a method of the class below
Events = list[Event]
Hits = list[Hit]
Entries = list[Entry]


@asynccontextmanager
async def open_library(spec: str | BaseStore = DEFAULT, *, name: str = "default", embed: Any = None) -> AsyncIterator[Library]:
    """The library `name` in a store: `async with open_library() as library`.

    `spec` is the path of a SQLite file (made if absent; the default one lies in `$TOOLREASON_HOME` where that is set), a
    `postgresql://` address, "memory", or a LangGraph store that the caller has set up and closes. `embed` adds vector search:
    LangChain's `Embeddings`, a function from texts to vectors, or "provider:model"; for a store of the caller's, set its own
    index instead, with "text" among its fields, and pass True. Raises InputError and SetupError.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise InputError(f"{name[:80]!r} is no name of a library: use letters, digits, _ and -, 64 at most")
    async with open_place(spec, name, embed) as place:
        library = Library(place, ("toolreason", "tools", name), vectors=embed is not None)
        try:
            await library.refresh()
            yield library
        finally:
            library.close()


class Library:
    """Tools by name. Made by `open_library`; all methods may be called at the same time by tasks of one event loop.

    Those that change it raise InputError on a frozen library. All raise InfrastructureError when the store fails.
    """

    def __init__(self, place: Place, root: tuple[str, ...], *, vectors: bool = False, shelf: Shelf | None = None) -> None:
        self._place, self._root, self._vectors = place, root, Vectors(place.store, root) if vectors else None
        self._log, self._uses = Log(place.store, root, exclusive=place.exclusive), Uses(place.store, root)
        self._shelf, self._is_frozen = shelf or Shelf(), shelf is not None
        self._reading, self._writing = asyncio.Lock(), asyncio.Lock()
        self._copies: list[Library] = []

    def frozen(self) -> Library:
        """The library as it is known here now: what is changed later, here or elsewhere, does not show in it, and it refuses every
        change and record. For a test split. It closes with this one.
        """
        copy = Library(self._place, self._root, vectors=self._vectors is not None, shelf=self._shelf.copy())
        self._copies.append(copy)
        return copy

    async def refresh(self) -> None:
        """Take in what others have written. Every other method does it by itself."""
        if not self._is_frozen:
            async with self._reading:
                self._shelf.take(await self._log.read())

    async def add(self, package: ToolPackage) -> ToolPackage:
        """Keep a package as a new version; `version` and `created` are set here. It becomes the head, unless the head is admitted
        and it is not. With content and category of the newest version it is no new version, only admits that one if it says so.
        """
        return (await self.add_all([package]))[0]

    async def add_all(self, packages: Sequence[ToolPackage]) -> Packages:
        """As `add`, for many at once: much quicker."""
        newest: dict[str, ToolPackage] = {}

        def additions() -> Entries:
            newest.clear()
            entries: Entries = []
            for package in packages:
                tool = self._shelf.find(package.name)
                last = newest.get(package.name) or (tool.versions[-1] if tool else None)
                admits = package.status is Status.ADMITTED
                if last is None or (last.hash, last.category) != (package.hash, package.category):
                    new = replace(package, version=last.version + 1 if last else 1)
                    newest[package.name] = new
                    entries.append(_entry(Kind.ADDED, new.name, "", new.author, new.reason, new.status, new))
                elif tool and admits and last.status is not Status.ADMITTED:
                    entries.append(_entry(Kind.STATUS, last.name, tool.ids[-1], package.author, package.reason, Status.ADMITTED))
            return entries

        await self._change(additions)
        return [self._same(package) for package in packages]

    def _same(self, package: ToolPackage) -> ToolPackage:
        """The newest version with the content of `package`."""
        versions = self._shelf.tool(package.name).versions
        return next(kept for kept in reversed(versions) if (kept.hash, kept.category) == (package.hash, package.category))

    async def get(self, name: str, version: int | None = None) -> ToolPackage:
        """The head, or one version. Raises InputError, with names that are like it, where there is none."""
        await self.refresh()
        tool = self._shelf.tool(name)
        return tool.current if version is None else tool.version(version)

    async def list(self, *, status: Status | None = None, category: str | None = None) -> Packages:
        """The heads by name."""
        await self.refresh()
        heads = (tool.current for tool in self._shelf.tools())
        return [head for head in heads if (not status or head.status is status) and (not category or head.category == category)]

    async def history(self, name: str) -> Packages:
        """All versions, oldest first."""
        await self.refresh()
        return [*self._shelf.tool(name).versions]

    async def events(self, name: str | None = None) -> Events:
        """What was done, to one tool or to all, oldest first."""
        await self.refresh()
        return self._shelf.events() if name is None else [*self._shelf.tool(name).events]

    async def set_status(
        self, name: str, status: Status, reason: str, *, version: int | None = None, by: str = "human", over: str | None = None
    ) -> ToolPackage:
        """Give a version, the head if none is named, another status. A version newer than the head becomes it by being admitted.

        `over`: not where a version other than this one (`name@version`, "": none) is offered now; then InputError is raised.
        """
        number = version

        def change() -> Entries:
            nonlocal number
            tool = self._shelf.tool(name)
            number = tool.head if version is None else version
            if (
                over is not None
                and tool.current.status is Status.ADMITTED
                and tool.current.identity not in (over, f"{name}@{number}")
            ):
                raise InputError(f"{name} was changed meanwhile: {tool.current.identity} is offered now")
            return [_entry(Kind.STATUS, name, tool.id_of(number), by, reason, status)]

        await self._change(change)
        return self._shelf.tool(name).version(number or 1)

    async def rollback(self, name: str, version: int, *, reason: str = "", by: str = "human") -> ToolPackage:
        """Make a version the head. Nothing is deleted: going forward again is a rollback to the later version."""

        def change() -> Entries:
            tool = self._shelf.tool(name)
            return [_entry(Kind.HEAD, name, tool.id_of(version), by, reason, tool.version(version).status)]

        await self._change(change)
        return self._shelf.tool(name).version(version)

    async def record(self, use: Use, *, key: str = "") -> None:
        """Note one call of a tool; under the same `key`, once. Raises InputError for a version that is not there."""
        self._refuse_if_frozen()
        name, _, number = use.tool.partition("@")
        if not number.isdecimal():
            raise InputError(f"{use.tool[:80]!r} names no version of a tool: write name@number, as in count_primes@1")
        if not (tool := self._shelf.find(name)) or int(number) > tool.versions[-1].version:
            await self.refresh()
        self._shelf.tool(name).version(int(number))
        await self._uses.write(name, use, key)

    async def usage(self, name: str, version: int | None = None) -> Usage:
        """How a tool, or one version of it, was used by all who share the library. Kept out of a frozen library's snapshot: it is
        always as of now.
        """
        await self.refresh()
        self._shelf.tool(name)
        uses = await self._uses.read(name)
        wanted = [use for use in uses if version is None or use.tool == f"{name}@{version}"]
        return tally(name, wanted, self._shelf.origins(name))

    async def usages(self) -> dict[str, Usage]:
        """`usage` of all tools, by name, in one pass."""
        await self.refresh()
        names = [tool.current.name for tool in self._shelf.tools()]
        by_tool = by_name(await self._uses.read())
        return {name: tally(name, by_tool.get(name, ()), self._shelf.origins(name)) for name in names}

    async def search(
        self, query: str, k: int = 5, *, statuses: Iterable[Status] = (Status.ADMITTED,), category: str | None = None
    ) -> Hits:
        """The `k` heads that fit a need best, among those of a status in `statuses` and of a category. By words (BM25 over name,
        description, category and signature), and with an embedding function by meaning too, the two rankings fused.
        """
        await self.refresh()
        wanted = frozenset(statuses)

        def accept(name: str) -> bool:
            head = self._shelf.tool(name).current
            return head.status in wanted and (category is None or head.category == category)

        async with self._reading:
            if self._shelf.unindexed > MANY:  # a second or so for 10,000 tools: not on the event loop
                await asyncio.to_thread(self._shelf.index)
            found = self._shelf.index().search(query, max(k, POOL) if self._vectors else k, accept)
        if self._vectors and query.strip():
            near = await self._vectors.nearest(self._shelf, query, max(k, POOL), accept)
            found = fuse([name for name, _ in found], near)
        return [Hit(self._shelf.tool(name).current, score) for name, score in found[:k]]

    async def embed_all(self) -> int:
        """Embed the heads anew: of a library that was written without an embedding function, or with another. Returns how many."""
        self._refuse_if_frozen()
        if self._vectors is None:
            raise InputError("this library was opened without an embedding function: give open_library(embed=...)")
        await self.refresh()
        return await self._vectors.embed(self._shelf)

    async def _change(self, entries: Callable[[], Entries]) -> None:
        """Append what `entries` makes of the newest state, while nobody else changes it. Goes to its end even when cancelled."""
        self._refuse_if_frozen()
        await whole(self._append(entries))

    async def _append(self, make: Callable[[], Entries]) -> None:
        async with self._writing, self._place.turn(), self._reading:
            self._shelf.take(await self._log.read())
            entries = [replace(entry, clock=clock) for clock, entry in enumerate(make(), self._shelf.clock + 1)]
            texts = [document(entry.package) if self._vectors and entry.package else None for entry in entries]
            contents = [entry.content() for entry in entries]
            ids = await self._log.append(contents, texts)
            self._shelf.take(zip(ids, contents, strict=True))

    def _refuse_if_frozen(self) -> None:
        if self._is_frozen:
            raise InputError(
                "this library is frozen: what is measured with it may not change it; use the one that it was made from"
            )

    def close(self) -> None:
        """Give the memory back. `open_library` calls it."""
        for copy in self._copies:
            copy.close()
        self._shelf.close()


def _entry(kind: Kind, tool: str, target: str, by: str, reason: str, status: Status, package: ToolPackage | None = None) -> Entry:
    return Entry(kind, tool, target, 0, by, reason, datetime.now(UTC).isoformat(timespec="milliseconds"), status, package)
