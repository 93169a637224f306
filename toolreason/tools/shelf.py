"""A library in memory: the log's entries by tool, folded when asked for, and their index of words."""

from __future__ import annotations

from collections.abc import Iterable

from toolreason.errors import InputError
from toolreason.tools.events import Entry, Event, Tool, fold, unpack_entry
from toolreason.tools.log import Content
from toolreason.tools.retrieval import WordIndex


class Shelf:
    def __init__(self) -> None:
        self._entries: dict[str, dict[str, Entry]] = {}
        self._folded: dict[str, Tool | None] = {}
        self._unindexed: set[str] = set()
        self._index: WordIndex | None = None
        self.clock = 0  # the largest of all entries

    def take(self, news: Iterable[tuple[str, Content]]) -> None:
        """Take entries of the log in. Those that are here already change nothing."""
        for id, content in news:
            entry = unpack_entry(id, content)
            self._entries.setdefault(entry.tool, {})[id] = entry
            self._folded.pop(entry.tool, None)
            self._unindexed.add(entry.tool)
            self.clock = max(self.clock, entry.clock)

    def find(self, name: str) -> Tool | None:
        if name not in self._entries:
            return None
        if name not in self._folded:
            self._folded[name] = fold(self._entries[name].values())
        return self._folded[name]

    def tool(self, name: str) -> Tool:
        """Raises InputError with names that are like it."""
        if found := self.find(name):
            return found
        from difflib import get_close_matches

        near = get_close_matches(name, self._entries, n=3, cutoff=0.5)
        advice = f"did you mean {', '.join(near)}?" if near else f"it holds {len(self._entries)} tools"
        raise InputError(f"the library has no tool {name[:80]!r}: {advice}")

    def entry(self, name: str, id: str) -> Entry:
        return self._entries[name][id]

    def tools(self) -> list[Tool]:
        """All, by name."""
        return [tool for name in sorted(self._entries) if (tool := self.find(name))]

    def events(self) -> list[Event]:
        """Of all tools, in the order of the log."""
        return sorted((event for tool in self.tools() for event in tool.events), key=lambda event: (event.clock, event.tool))

    def origins(self, name: str) -> frozenset[str]:
        """The problems of the tickets of a tool and of all tools that it descends from."""
        problems: set[str] = set()
        todo, done = [name], {name}
        while todo:
            tool = self.find(todo.pop())
            for package in tool.versions if tool else ():
                if package.ticket and package.ticket.problem_id:
                    problems.add(package.ticket.problem_id)
                parents = {parent.partition("@")[0] for parent in package.parents} - done
                todo += parents
                done |= parents
        return frozenset(problems)

    @property
    def unindexed(self) -> int:
        return len(self._unindexed)

    def index(self) -> WordIndex:
        """Of the heads, brought up to date."""
        self._index = self._index or WordIndex()
        if self._unindexed:
            self._index.put(tool.current for name in sorted(self._unindexed) if (tool := self.find(name)))
            self._unindexed.clear()
        return self._index

    def copy(self) -> Shelf:
        """The same now; from then on each changes alone."""
        other = Shelf()
        other._entries = {name: dict(entries) for name, entries in self._entries.items()}
        other._folded, other._unindexed, other.clock = dict(self._folded), set(self._entries), self.clock
        return other

    def close(self) -> None:
        if self._index is not None:
            self._index.close()
            self._index = None
            self._unindexed = set(self._entries)
