"""The states of a work folder: kept after each cell that stays, put back after one that does not.

Contents are kept where no cell comes. Only what has changed is copied; versions share the rest.
"""

from __future__ import annotations

import itertools
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from runner_folder import WRITE, Folder, TooMuch, parent, readable, remove

# the kernel's clock for files ticks every few milliseconds: of two changes within a tick the second leaves no trace
RACY_NS = 20_000_000

_numbers = itertools.count()
_unused: list[str] = []  # removed when no other user id is in force


@dataclass
class Copy:
    """A kept content. It goes with the last version that has it."""

    path: str
    size: int = 0

    def __del__(self) -> None:
        _unused.append(self.path)


@dataclass
class Entry:
    """What stood at a path: `kind` is f, d, l (link) or o (other). `look` changes with the content, but for changes through a
    memory mapping and within one tick of the clock.
    """

    kind: str
    mode: int
    look: tuple[int, ...] = ()
    changed_ns: int = 0
    target: str = ""
    copy: Copy | None = None


@dataclass
class Version:
    """A folder at one moment."""

    entries: dict[str, Entry] = field(default_factory=dict)
    taken_ns: int = 0


class Keeper:
    """Takes and restores the versions of one folder. Copies lie in the folder `keep`."""

    def __init__(self, folder: Folder, settings: dict[str, Any]) -> None:
        self.folder, self.keep = folder, settings["keep"]

    def take(self, last: Version, mapped: bool) -> Version:
        """The folder as it is. With `mapped`, files may have been written through memory: contents are compared, not looks.

        Raises TooMuch.
        """
        version = Version(taken_ns=time.time_ns())
        with self.folder.opened() as top:
            for path, name, within, info in self.folder.walk(top):
                version.entries[path] = self.entry(name, within, info, last.entries.get(path), last.taken_ns, mapped)
        dispose()
        return version

    def entry(self, name: str, within: int, info: os.stat_result, old: Entry | None, taken_ns: int, mapped: bool) -> Entry:
        kind, mode = kind_of(info), stat.S_IMODE(info.st_mode)
        if kind == "l":
            return Entry(kind, mode, target=os.readlink(name, dir_fd=within))
        if kind != "f":
            return Entry(kind, mode, look=(info.st_ino,))
        if old is not None and old.look == look(info) and not mapped and old.changed_ns < taken_ns - RACY_NS:
            return old
        with readable(name, within, mode) as fd:
            same = old is not None and old.copy is not None and self.equal(fd, old.copy)
            copy = old.copy if same and old is not None else self.copied(fd)
            info = os.fstat(fd)
        return Entry(kind, mode, look(info), info.st_ctime_ns, copy=copy)

    def restore(self, version: Version) -> Version:
        """Make the folder what it was; that version again, with today's looks."""
        with self.folder.opened() as top:
            os.fchmod(top, 0o700)
            found = {}
            for path, name, within, info in self.folder.walk(top, bounded=False):
                old = version.entries.get(path)
                if old is None or old.kind != kind_of(info) or (old.kind == "o" and old.look != (info.st_ino,)):
                    remove(top, name, within, info)
                else:
                    found[path] = info
            paths = sorted(version.entries)  # a folder comes before what is in it
            for path in paths:
                with parent(top, path.split("/")) as (within, name):
                    self.put_back(name, within, version.entries[path], path in found)
            for path in reversed(paths):
                if version.entries[path].kind == "d":
                    with parent(top, path.split("/")) as (within, name):
                        os.chmod(name, version.entries[path].mode, dir_fd=within)
        return self.take(version, mapped=False)

    def put_back(self, name: str, within: int, entry: Entry, there: bool) -> None:
        if entry.kind == "d":
            if not there:
                os.mkdir(name, 0o700, dir_fd=within)
            os.chmod(name, 0o700, dir_fd=within)
        elif entry.kind == "l":
            if there and os.readlink(name, dir_fd=within) != entry.target:
                os.unlink(name, dir_fd=within)
                there = False
            if not there:
                os.symlink(entry.target, name, dir_fd=within)
        elif entry.copy is not None:
            self.write_back(name, within, entry, entry.copy, there)

    def write_back(self, name: str, within: int, entry: Entry, copy: Copy, there: bool) -> None:
        """Into the same file where it still is: the session may have it open."""
        if there:
            os.chmod(name, 0o600, dir_fd=within)
        fd = os.open(name, WRITE | (0 if there else os.O_CREAT | os.O_EXCL), 0o600, dir_fd=within)
        try:
            if not there or not self.equal(fd, copy):
                os.ftruncate(fd, 0)
                with self.kept(copy.path, os.O_RDONLY) as source:
                    pump(source, fd)
            os.fchmod(fd, entry.mode)
        finally:
            os.close(fd)

    def copied(self, fd: int) -> Copy:
        """Keep the content of a file. Raises TooMuch when there is no room."""
        copy = Copy(f"{self.keep}/{next(_numbers)}")
        with self.kept(copy.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as target:
            try:
                copy.size = pump(fd, target)
            except OSError as error:
                raise TooMuch("no room is left to keep its files") from error
        return copy

    def equal(self, fd: int, copy: Copy) -> bool:
        if os.fstat(fd).st_size != copy.size:
            return False
        with self.kept(copy.path, os.O_RDONLY) as kept:
            at = 0
            while at < copy.size:
                chunk = os.pread(fd, 1 << 18, at)
                if not chunk or chunk != os.pread(kept, len(chunk), at):
                    return False
                at += len(chunk)
        return True

    @contextmanager
    def kept(self, path: str, flags: int) -> Iterator[int]:
        """A copy, opened as the wire process's own user."""
        with self.folder.acting(0):
            fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
        try:
            yield fd
        finally:
            os.close(fd)


def dispose() -> None:
    """Remove the copies that no version has any more."""
    while _unused:
        with suppress(OSError):
            os.unlink(_unused.pop())


def look(info: os.stat_result) -> tuple[int, ...]:
    return info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_mode


def kind_of(info: os.stat_result) -> str:
    kinds = ((stat.S_ISREG, "f"), (stat.S_ISDIR, "d"), (stat.S_ISLNK, "l"))
    return next((kind for test, kind in kinds if test(info.st_mode)), "o")


def pump(source: int, target: int) -> int:
    """Copy from the start to the end; the number of bytes."""
    at = 0
    while chunk := os.pread(source, 1 << 18, at):
        done = 0
        while done < len(chunk):
            done += os.pwrite(target, chunk[done:], at + done)
        at += len(chunk)
    return at
