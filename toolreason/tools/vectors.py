"""Vector search over a library's entries, by the store's own index."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from toolreason.tools.log import CHUNK, entry_id, place_of, put, run, unpack
from toolreason.tools.retrieval import document

if TYPE_CHECKING:
    from langgraph.store.base import BaseStore

    from toolreason.tools.shelf import Shelf


class Vectors:
    """For a store that was opened with an embedding function."""

    def __init__(self, store: BaseStore, root: tuple[str, ...]) -> None:
        self._store, self._root = store, root

    async def nearest(self, shelf: Shelf, query: str, k: int, accept: Callable[[str], bool]) -> list[str]:
        """The accepted heads nearest in meaning. The index holds all versions: more are asked for until there are enough heads."""
        from langgraph.store.base import SearchOp

        limit = 2 * k
        while True:
            [items] = await run(self._store, [SearchOp((*self._root, "entries"), None, limit, 0, query)])
            names = []
            for item in items:
                name = unpack(item.value)["tool"]
                tool = shelf.find(name)
                if item.score is not None and tool and tool.id_of(tool.head) == entry_id(item) and accept(name):
                    names.append(name)
            if len(names) >= k or len(items) < limit:
                return names[:k]
            limit *= 4

    async def embed(self, shelf: Shelf) -> int:
        """Write the heads again, unchanged, so that the store embeds them."""
        tools = shelf.tools()
        for start in range(0, len(tools), CHUNK):
            ops = []
            for tool in tools[start : start + CHUNK]:
                entry = shelf.entry(tool.current.name, tool.id_of(tool.head))
                ops.append(put(*place_of(self._root, entry.id), entry.content(), document(tool.current)))
            await run(self._store, ops)
        return len(tools)
