"""The work folder of a session: walked, emptied, and read and written for the host.

Everything is done with the session's user id and by descriptors that follow no link: what a cell leaves there leads nowhere else.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

DEPTH = 64  # of folders
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
WRITE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
HIDDEN = ".matplotlib"  # the runner's own, for its font list

Found = tuple[str, str, int, os.stat_result]  # path, name, descriptor of the folder that it is in, status


class Refused(Exception):
    """The host asked for what can't be had; the text says why."""


class TooMuch(Exception):
    """A cell left more in its folder than its session may have."""


class Folder:
    """One folder. Whoever starts the container makes it; it belongs to the session's user from `give` to `clear`."""

    def __init__(self, place: str, settings: dict[str, Any], uid: int) -> None:
        self.place, self.uid = place, uid
        self.own_ids, self.most = settings["own_ids"], settings["disk_files"]
        self.path = f"{place}/home" if settings["shared"] else place

    def give(self) -> None:
        if self.path != self.place:  # behind a door that is not the session's to open for others
            os.chown(self.place, 0, self.uid)
            os.chmod(self.place, 0o710)
            os.mkdir(self.path, 0o700)
        if self.own_ids:
            os.chown(self.path, self.uid, self.uid)

    @contextmanager
    def opened(self) -> Iterator[int]:
        """The folder's descriptor, with the session's user id in force: no more rights than its cells have."""
        with self.acting(self.uid):
            try:
                fd = os.open(self.path, DIRECTORY)
            except PermissionError:
                os.chmod(self.path, 0o700)
                fd = os.open(self.path, DIRECTORY)
            try:
                yield fd
            finally:
                os.close(fd)

    @contextmanager
    def acting(self, uid: int) -> Iterator[None]:
        """As another user, as far as files go: the process stays out of that user's reach."""
        if not self.own_ids:
            yield
            return
        before = os.geteuid()
        switch(uid)
        try:
            yield
        finally:
            switch(before)

    def walk(self, top: int, bounded: bool = True) -> Iterator[Found]:
        """Everything below but what is hidden, a folder before its content. What is bounded raises TooMuch."""
        seen = 0

        def below(fd: int, prefix: str, depth: int) -> Iterator[Found]:
            nonlocal seen
            for name in os.listdir(fd):
                if name == HIDDEN and not prefix:
                    continue
                try:
                    info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:  # a fork of the session may share this folder
                    continue
                seen += 1
                if bounded and (seen > self.most or depth > DEPTH):
                    raise TooMuch(f"more than {self.most} files, or folders more than {DEPTH} deep")
                yield prefix + name, name, fd, info
                if stat.S_ISDIR(info.st_mode):
                    # removed by whoever walks
                    with suppress(FileNotFoundError, NotADirectoryError), entered(fd, name, info) as inner:
                        yield from below(inner, f"{prefix}{name}/", depth + 1)

        yield from below(top, "", 1)

    def clear(self) -> None:
        """Empty the folder and take it back."""
        with self.opened() as top:
            os.fchmod(top, 0o700)
            for name in os.listdir(top):
                remove(top, name, top, os.stat(name, dir_fd=top, follow_symlinks=False))
        if self.path != self.place:
            os.rmdir(self.path)
        elif self.own_ids:
            os.chown(self.path, 0, 0)

    def put(self, path: str, data: bytes, append: bool) -> None:
        """Write a file, or add to it. Raises Refused."""
        with in_words(path), self.opened() as top, parent(top, parts(path), make=True) as (folder, name):
            fd = os.open(name, WRITE | os.O_CREAT, 0o600, dir_fd=folder)
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise Refused("it is no regular file")
                if not append:
                    os.ftruncate(fd, 0)
                at = os.fstat(fd).st_size
                while data:
                    done = os.pwrite(fd, data, at)
                    data, at = data[done:], at + done
            finally:
                os.close(fd)

    def get(self, path: str, offset: int, count: int) -> tuple[bytes, int]:
        """Part of a file, and the size of the whole. Raises Refused."""
        with in_words(path), self.opened() as top, parent(top, parts(path)) as (folder, name):
            info = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                raise IsADirectoryError(errno.EISDIR, "")
            with readable(name, folder, stat.S_IMODE(info.st_mode)) as fd:
                return os.pread(fd, count, offset), os.fstat(fd).st_size

    def files(self) -> list[tuple[str, int]]:
        """Paths and sizes of the regular files. Names that are no text are left out: the host could not ask for them."""
        try:
            with self.opened() as top:
                found = [(path, info.st_size) for path, _, _, info in self.walk(top) if stat.S_ISREG(info.st_mode)]
        except TooMuch as error:
            raise Refused(str(error)) from error
        return sorted((path, size) for path, size in found if path.isprintable())


def switch(uid: int) -> None:
    os.seteuid(0)
    os.setegid(uid)
    os.seteuid(uid)


@contextmanager
def entered(parent: int, name: str, info: os.stat_result) -> Iterator[int]:
    """A folder's descriptor, whatever its mode forbids."""
    mode = stat.S_IMODE(info.st_mode)
    if mode & 0o700 != 0o700:
        os.chmod(name, 0o700, dir_fd=parent)
    fd = os.open(name, DIRECTORY, dir_fd=parent)
    try:
        yield fd
    finally:
        if mode & 0o700 != 0o700:
            with suppress(OSError):
                os.fchmod(fd, mode)
        os.close(fd)


@contextmanager
def readable(name: str, parent: int, mode: int) -> Iterator[int]:
    """A regular file's descriptor, whatever its mode forbids. Raises Refused when it is something else."""
    if not mode & 0o400:
        os.chmod(name, mode | 0o400, dir_fd=parent)
    fd = os.open(name, READ, dir_fd=parent)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Refused("it is no regular file")
        if not mode & 0o400:
            os.fchmod(fd, mode)
        yield fd
    finally:
        os.close(fd)


@contextmanager
def parent(top: int, path: list[str], make: bool = False) -> Iterator[tuple[int, str]]:
    """The descriptor of a path's folder, and its name there. Follows no link. Raises OSError."""
    *folders, name = path
    fd = os.dup(top)
    try:
        for folder in folders:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(folder, 0o700, dir_fd=fd)
            if stat.S_ISLNK(os.stat(folder, dir_fd=fd, follow_symlinks=False).st_mode):  # gVisor's kernel would follow it
                raise NotADirectoryError(errno.ENOTDIR, "a link is on the way")
            inner = os.open(folder, DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = inner
        yield fd, name
    finally:
        os.close(fd)


def parts(path: str) -> list[str]:
    """The names on a way from the work folder. Raises Refused for one that could lead out of it."""
    names = path.split("/")
    if path.startswith("/") or any(name in ("", ".", "..") for name in names) or "\0" in path:
        raise Refused("it must be relative, without `.` and `..`")
    if len(names) > DEPTH:
        raise Refused(f"it is more than {DEPTH} folders deep")
    return names


def remove(top: int, name: str, parent: int, info: os.stat_result) -> None:
    """Remove what stands at a name, with all that is in it: folders inside are moved up first, their depth may be without bound."""
    if not stat.S_ISDIR(info.st_mode):
        os.unlink(name, dir_fd=parent)
        return
    waiting = [moved_up(top, name, parent)]
    while waiting:
        moved = waiting.pop()
        fd = os.open(moved, DIRECTORY, dir_fd=top)
        try:
            for inner in os.listdir(fd):
                if stat.S_ISDIR(os.stat(inner, dir_fd=fd, follow_symlinks=False).st_mode):
                    waiting.append(moved_up(top, inner, fd))
                else:
                    os.unlink(inner, dir_fd=fd)
        finally:
            os.close(fd)
        os.rmdir(moved, dir_fd=top)


def moved_up(top: int, name: str, parent: int) -> str:
    moved = f".removed-{time.monotonic_ns()}"
    os.chmod(name, 0o700, dir_fd=parent)
    os.rename(name, moved, src_dir_fd=parent, dst_dir_fd=top)
    return moved


ERRORS = {
    errno.ENOENT: "there is no such file",
    errno.ELOOP: "a link is on the way",
    errno.ENOTDIR: "what is on the way is no folder",
    errno.EISDIR: "it is a folder",
    errno.ENOSPC: "the work folder is full",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ENXIO: "it is no regular file",
}


@contextmanager
def in_words(path: str) -> Iterator[None]:
    """What the system says of a path, as a refusal to the host."""
    try:
        yield
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        raise Refused(f"{path!r}: {ERRORS.get(number or 0, str(error))}") from error
    except Refused as refusal:
        raise Refused(f"{path!r}: {refusal}") from refusal
