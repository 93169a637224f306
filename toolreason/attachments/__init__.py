"""The pictures and files that go with a problem: found, read, bounded, named.

A problem holds their paths. What they hold is read when it is needed, and named by its hash wherever it is kept.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from toolreason.attachments.kinds import SUFFIXES, Kind, kind
from toolreason.errors import ProblemError

MOST_FILES = 8
MOST_BYTES = 700_000  # of all files of one problem: so much goes into a session in one cell
MOST_PIXELS = 1 << 24  # 4096 x 4096; the sandbox's side has it too
MOST_NAME = 60
MODULES = (".py", ".pyc", ".pyd", ".so", ".pth")  # in the work folder such a file could stand in for a module


@dataclass(frozen=True, slots=True)
class Attachment:
    """One file. `name` is what it is called in a session: safe as a file's name, and no other file of the problem has it."""

    path: str
    name: str
    kind: Kind
    data: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        return sha256(self.data).hexdigest()

    @property
    def described(self) -> str:
        """Type and size, for a person or a model."""
        pixels = f", {self.kind.pixels[0]} x {self.kind.pixels[1]} pixels" if self.kind.pixels else ""
        return f"{self.kind.words}{pixels}, {_bytes(len(self.data))}"


def locate(folder: Path, path: str) -> str:
    """The full path of an attachment of a problem whose file lies in `folder`.

    Raises ProblemError for one that leads out of the folder: a file of problems from somewhere cannot ask for what is elsewhere.
    """
    inside = "give a path from the folder of the problems' file, without .., as in pictures/map.png"
    if not path or "\0" in path:
        raise ProblemError(f"the attachment {path!r} names no file: {inside}")
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ProblemError(f"the attachment {path!r} leads out of the folder: {inside}")
    found = Path(os.path.realpath(folder / path))
    if not found.is_relative_to(os.path.realpath(folder)):
        raise ProblemError(f"the attachment {path!r} is a link that leads out of the folder: copy the file there")
    return str(found)


def read(paths: Sequence[str]) -> tuple[Attachment, ...]:
    """The files of one problem, in order. Raises ProblemError for what is missing, too much, or no picture though named as one."""
    if len(paths) > MOST_FILES:
        raise ProblemError(f"{len(paths)} attachments; a problem has {MOST_FILES} at most")
    found: list[Attachment] = []
    for path, name in zip(paths, names(paths), strict=True):
        data = _content(path, MOST_BYTES - sum(len(one.data) for one in found))
        found.append(Attachment(path, name, _kind(path, data), data))
    return tuple(found)


def names(paths: Sequence[str]) -> list[str]:
    """What the files are called in a session: the last part of each path, made plain, with a number where two are alike."""
    found: list[str] = []
    for path in paths:
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", Path(path).name).lstrip(".-") or "file"
        stem, suffix = os.path.splitext(plain)
        if suffix.lower() in MODULES or not suffix:  # a bare name could be a module's too, as a folder of it
            stem, suffix = plain, ".txt" if suffix else ".bin"
        stem, suffix = stem[:MOST_NAME], suffix[:MOST_NAME]
        taken = {name.lower() for name in found}
        found.append(next(name for name in _numbered(stem, suffix) if name.lower() not in taken))
    return found


def digest(paths: Sequence[str]) -> list[list[str]]:
    """(name, hash of the content) of each file: what stands for them where problems are told apart. Raises ProblemError."""
    return [[one.name, one.sha256] for one in read(paths)]


def _numbered(stem: str, suffix: str) -> list[str]:
    return [stem + suffix, *(f"{stem}-{number}{suffix}" for number in range(2, MOST_FILES + 2))]


def _content(path: str, room: int) -> bytes:
    """The bytes of a regular file, `room` at most; never waits, as for a pipe. Raises ProblemError."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ProblemError(f"the attachment {path} cannot be read ({why}): put it there, or name another") from None
    try:
        told = os.fstat(file)
        if not stat.S_ISREG(told.st_mode):
            raise ProblemError(f"the attachment {path} is no regular file: name a file")
        with open(file, "rb", closefd=False) as opened:
            data = opened.read(room + 1) if told.st_size <= room else b""
    finally:
        os.close(file)
    size = max(told.st_size, len(data))
    if size > room:
        raise ProblemError(
            f"the attachment {path} has {_bytes(size)}, and a problem's files {_bytes(MOST_BYTES)} at most together: "
            "make the picture smaller or save it as JPEG, or cut the file down to what the question needs"
        )
    if not data:
        raise ProblemError(f"the attachment {path} is empty: name a file with something in it")
    return data


def _kind(path: str, data: bytes) -> Kind:
    suffix = Path(path).suffix.lower()
    try:
        found = kind(data, suffix)
    except ValueError as error:
        raise ProblemError(f"the attachment {path} is no picture: {error}. Name a whole file") from None
    if suffix in SUFFIXES and not found.picture:
        raise ProblemError(f"the attachment {path} is no picture, though its name says so: it is {found.words}")
    if found.pixels and found.pixels[0] * found.pixels[1] > MOST_PIXELS:
        width, height = found.pixels
        raise ProblemError(
            f"the attachment {path} has {width} x {height} pixels, which are more than {MOST_PIXELS} in all: make it smaller"
        )
    return found


def _bytes(count: int) -> str:
    """As people write it: 512 bytes, 12.3 kB, 100.0 MB."""
    if count < 1000:
        return f"{count} byte{'' if count == 1 else 's'}"
    return f"{count / 1000:.1f} kB" if count < 999_950 else f"{count / 1e6:.1f} MB"
