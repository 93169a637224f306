"""Files that survive `kill -9`: a lock, whole-file replacement, and an append-only file's torn last line."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from toolreason.errors import InputError, SettingsError

LOCK = "run.lock"
_writing: set[Path] = set()  # the directories this process writes: a record lock does not keep a process out from itself


def replace_file(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = file.with_name(file.name + ".new")
    with temporary.open("w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(file)


def sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def cut_torn_line(file: int, block: int = 1 << 16) -> None:
    """Truncate `file` to just after its last newline."""
    size = end = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - block)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end != size:
        os.ftruncate(file, end)
        os.fsync(file)


def acquire(path: Path) -> int:
    """Make the directory, if it is not there, and take its lock. A record lock, not `flock`: forked workers that outlive a killed
    collection must not keep it. Raises SettingsError where another process has it, InputError where nothing can be written.
    """
    busy = SettingsError(f"{path} is being written by another collection: wait for it, or name another directory with --out")
    if path in _writing:
        raise busy
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InputError(f"cannot write to {path}: {error.strerror}; name another directory with --out") from error
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        os.close(lock)
        raise busy from None
    _writing.add(path)
    return lock


def release(path: Path, lock: int) -> None:
    os.close(lock)  # closing drops the record lock
    _writing.discard(path)
