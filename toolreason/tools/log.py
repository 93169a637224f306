"""An append-only log over LangGraph's `BaseStore`, read by many and written by many.

Each writer (an open library in one process) has a name of its own and numbers its entries 1, 2, 3: no two write one key. With the
entries, in one statement of the store, it writes how many it has (`writers`) and that something happened (`clock`). So a reader
asks for one small item to know that nothing is new, and otherwise for exactly the entries it has not seen.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from toolreason.errors import InfrastructureError

if TYPE_CHECKING:
    from langgraph.store.base import BaseStore

ALL = 1_000_000_000  # LangGraph's searches always have a limit
CHUNK = 500  # items a statement: SQLite bounds the parameters of one
TRIES = 4
WAIT_S = 0.1  # before the second try, then four times as long each time

Content = dict[str, Any]
T = TypeVar("T")


class Log:
    """The log under one namespace. `read` and `append` are called by one task at a time (the library sees to it)."""

    def __init__(self, store: BaseStore, root: tuple[str, ...], *, exclusive: bool) -> None:
        self._store, self._root, self._exclusive = store, root, exclusive
        self._writer, self._written = "", 0
        self._seen: dict[str, int] = {}
        self._clock: str | None = None

    async def read(self) -> list[tuple[str, Content]]:
        """Entries not returned before, as id and content, in no order. Those of `append` may be among them."""
        from langgraph.store.base import GetOp, SearchOp

        [item] = await run(self._store, [GetOp((*self._root, "clock"), "log")])
        if item is None or item.value["at"] == self._clock:
            return []
        if self._clock is None and not self._seen:
            [found] = await run(self._store, [SearchOp((*self._root, "entries"), None, ALL)])
        else:
            [heads] = await run(self._store, [SearchOp((*self._root, "writers"), None, ALL)])
            found = await self._get({head.key: head.value["count"] for head in heads})
        self._clock = item.value["at"]
        news = []
        for entry in found:
            writer, number = entry.namespace[-1], int(entry.key)
            self._seen[writer] = max(number, self._seen.get(writer, 0))
            news.append((entry_id(entry), unpack(entry.value)))
        return news

    async def _get(self, counts: dict[str, int]) -> list[Any]:
        from langgraph.store.base import GetOp

        keys = [
            GetOp((*self._root, "entries", writer), _key(number))
            for writer, count in counts.items()
            for number in range(self._seen.get(writer, 0) + 1, count + 1)
        ]
        found = []
        for start in range(0, len(keys), CHUNK):
            found += await run(self._store, keys[start : start + CHUNK])
        return [item for item in found if item is not None]

    async def append(self, contents: list[Content], texts: list[str | None]) -> list[str]:
        """Write entries and return their ids. `texts` are what a store with a vector index finds them by, None for nothing.

        Each chunk of `CHUNK` entries is written wholly or not at all.
        """
        ids: list[str] = []
        for start in range(0, len(contents), CHUNK):
            ids += await self._append(contents[start : start + CHUNK], texts[start : start + CHUNK])
        return ids

    async def _append(self, contents: list[Content], texts: list[str | None]) -> list[str]:
        from langgraph.store.base import PutOp

        self._writer = self._writer or uuid.uuid4().hex[:16]
        writer, first = self._writer, self._written + 1
        self._written += len(contents)
        ops = []
        for number, (content, text) in enumerate(zip(contents, texts, strict=True), first):
            ops.append(put((*self._root, "entries", writer), _key(number), content, text))
        clock = f"{writer}:{self._written}"
        ops.append(PutOp((*self._root, "writers"), writer, {"count": self._written}, index=False))
        ops.append(PutOp((*self._root, "clock"), "log", {"at": clock}, index=False))
        try:
            await run(self._store, ops)
        except BaseException:
            self._writer, self._written = "", 0  # whether it was written is not known: these keys are not used again
            raise
        self._seen[writer] = self._written
        if self._exclusive:  # nobody else wrote since the last read
            self._clock = clock
        return [f"{writer}:{number}" for number in range(first, first + len(contents))]


def _key(number: int) -> str:
    return f"{number:08d}"


def entry_id(item: Any) -> str:
    """The id of an entry from its place in the store, which is its writer and number."""
    return f"{item.namespace[-1]}:{int(item.key)}"


def place_of(root: tuple[str, ...], id: str) -> tuple[tuple[str, ...], str]:
    """The namespace and key of an entry."""
    writer, _, number = id.rpartition(":")
    return (*root, "entries", writer), _key(int(number))


def put(namespace: tuple[str, ...], key: str, content: Content, text: str | None = None) -> Any:
    """The operation that writes one item.

    The content is one string of ASCII: text that a model wrote may hold what JSON columns refuse (NUL, half of a surrogate pair).
    """
    from langgraph.store.base import PutOp

    value: Content = {"json": json.dumps(content)}
    if text is not None:
        value["text"] = text.replace("\0", " ").encode("utf-8", "replace").decode()
    return PutOp(namespace, key, value, index=False if text is None else ["text"])


def unpack(value: Content) -> Content:
    content: Content = json.loads(value["json"])
    return content


async def run(store: BaseStore, ops: Iterable[Any]) -> list[Any]:
    """One batch: in one transaction, where the store has them. Tried again where the connection failed: an item written twice is
    the same item. Raises InfrastructureError.
    """
    ops = list(ops)
    for last in range(TRIES):
        try:
            return await whole(store.abatch(ops))
        except Exception as error:
            if not _passing(error):
                raise
            if last == TRIES - 1:
                raise InfrastructureError(f"the store of the tool library failed: {error}") from error
            await asyncio.sleep(WAIT_S * 4**last)
    raise AssertionError


async def whole(work: Coroutine[Any, Any, T]) -> T:
    """Wait for `work`, which goes on to its end where the waiting is cancelled: half done, it would leave a transaction open, or a
    lock given back too early.
    """
    task = asyncio.ensure_future(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to ask
    return await asyncio.shield(task)


def _passing(error: Exception) -> bool:
    """Whether it is the database that failed (locked, or its connection lost), not the caller."""
    return type(error).__name__ in ("OperationalError", "PoolTimeout", "AdminShutdown", "InterfaceError")
