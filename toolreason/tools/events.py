"""What was done to tools, and what they are now: a fold over the entries of the log.

Entries are ordered by their `clock`, which is one more than the largest its writer had seen, and then by id. Under a lock no two
entries share a clock. Where there is none (a store of the caller's, changed from several hosts at once) two may; all readers order
them alike, and of two versions that claim one number the second gets the next.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any

from toolreason.errors import InputError
from toolreason.tools.package import Status, Ticket, ToolPackage


class Kind(StrEnum):
    ADDED = "added"
    STATUS = "status"
    HEAD = "head"  # another version is the current one, by `rollback`


@dataclass(frozen=True, slots=True)
class Event:
    """One change of a tool: of which version, by whom, why, and when (ISO 8601, UTC). `status` is what it has from then on; `clock`
    orders the events of the whole library.
    """

    kind: Kind
    tool: str
    version: int
    status: Status
    by: str
    reason: str
    at: str
    clock: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """An event as the log keeps it. `target` is the id of the entry that added the version it is about, its own for an addition."""

    kind: Kind
    tool: str
    target: str
    clock: int
    by: str
    reason: str
    at: str
    status: Status
    package: ToolPackage | None = None
    id: str = ""

    def content(self) -> dict[str, Any]:
        """As JSON. What is the same in entry and package, or known from its place, is written once."""
        content = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("id", "package")}
        if self.package is not None:
            content["package"] = pack(self.package)
        return content


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool now: all its versions, oldest first, the number of the current one, and what was done."""

    versions: tuple[ToolPackage, ...]
    head: int
    events: tuple[Event, ...]
    ids: tuple[str, ...]  # of the entries that added the versions

    @property
    def current(self) -> ToolPackage:
        return self.version(self.head)

    def version(self, number: int) -> ToolPackage:
        """Raises InputError where there is none."""
        for package in self.versions:
            if package.version == number:
                return package
        numbers = ", ".join(str(package.version) for package in self.versions)
        raise InputError(f"{self.versions[0].name} has no version {number}; there are: {numbers}")

    def id_of(self, number: int) -> str:
        return self.ids[self.versions.index(self.version(number))]


def pack(package: ToolPackage) -> dict[str, Any]:
    """A package as JSON, lossless."""
    content = {field.name: getattr(package, field.name) for field in fields(package)}
    return content | {"ticket": asdict(package.ticket) if package.ticket else None}


def unpack_package(content: dict[str, Any]) -> ToolPackage:
    """The inverse of `pack`. Fields that this release does not know are left out. Raises InputError."""
    known = _known(ToolPackage, content)
    if known.get("ticket"):
        known["ticket"] = Ticket(**_known(Ticket, known["ticket"]))
    return ToolPackage(**known)


def unpack_entry(id: str, content: dict[str, Any]) -> Entry:
    """Raises InputError where the entry is none of ours."""
    try:
        known = _known(Entry, content) | {"id": id, "kind": Kind(content["kind"]), "status": Status(content["status"])}
        known["target"] = known["target"] or id
        if known.get("package"):
            known["package"] = unpack_package(known["package"])
        return Entry(**known)
    except (KeyError, TypeError, ValueError, InputError) as error:
        raise InputError(
            f"entry {id} of the tool library cannot be read ({error!r}): was it written by a newer release?"
        ) from error


def _known(kind: Any, content: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in content.items() if name in names}


def order(entries: Iterable[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: (entry.clock, entry.id))


def fold(entries: Iterable[Entry]) -> Tool | None:
    """What the entries of one tool, in any order, amount to. None where no version is among them.

    The head is the newest version, but a candidate does not take the place of an admitted one until it is admitted itself, and one
    that is admitted takes that of a newer candidate (of two that were made at once, say).
    """
    versions: dict[str, ToolPackage] = {}
    events: list[Event] = []
    head = ""
    for entry in order(entries):
        if entry.kind is Kind.ADDED and entry.package is not None:
            taken = {package.version for package in versions.values()}
            number = entry.package.version if entry.package.version not in taken else max(taken) + 1
            versions[entry.id] = replace(entry.package, version=number, created=entry.at)
        elif entry.target not in versions:
            continue
        before, now = versions.get(head), versions[entry.target]
        if entry.kind is Kind.HEAD:
            head = entry.target
        else:
            now = versions[entry.target] = replace(now, status=entry.status, reason=entry.reason)
            if before is None or _replaces(entry, now, before):
                head = entry.target
        events.append(Event(entry.kind, entry.tool, now.version, now.status, entry.by, entry.reason, entry.at, entry.clock))
    if not versions:
        return None
    ordered = sorted(versions.items(), key=lambda pair: pair[1].version)
    return Tool(tuple(p for _, p in ordered), versions[head].version, tuple(events), tuple(id for id, _ in ordered))


def _replaces(entry: Entry, now: ToolPackage, head: ToolPackage) -> bool:
    """Whether a version takes the head's place: when it is admitted, or added where the head is not offered either."""
    if now.version < head.version:
        return entry.status is Status.ADMITTED and head.status is Status.CANDIDATE
    newer = now.version > head.version
    return newer and (entry.status is Status.ADMITTED or (entry.kind is Kind.ADDED and head.status is not Status.ADMITTED))
