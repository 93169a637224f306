"""What there is to see: runs, trainings and tool libraries under the paths that the user named.

Names are keys of this list and never become paths: what is not in it cannot be asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from toolreason import runs
from toolreason.errors import InputError
from toolreason.train import sft_files

DEEPEST, MOST = 5, 5_000  # levels below a named directory, and directories to look into
LIBRARIES = (".sqlite", ".db")  # of files that are named
LIBRARY = "tools.sqlite"  # what is found under directories: other databases are none


@dataclass(frozen=True, slots=True)
class Places:
    """By the name under which the page knows them. A library's value is what `open_library` takes."""

    runs: dict[str, Path] = field(default_factory=dict)
    trainings: dict[str, Path] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)


def check(paths: Sequence[Path], libraries: Sequence[str] = ()) -> None:
    """Raises InputError for a path, or a library's file, that is not there: to open a library is to make it."""
    for spec in libraries:
        if "://" not in spec and not Path(spec).expanduser().is_file():
            raise InputError(f"there is no library of tools at {spec}: name its SQLite file, or postgresql://...")
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} is not there: give directories that collect, compare, curate, serve or train wrote")


def find(paths: Sequence[Path], libraries: Sequence[str] = ()) -> Places:
    """All of them as they are now. Of a name that stands twice the second gets a number."""
    found = Places()
    for path in paths:
        if path.is_file() and path.suffix in LIBRARIES:
            found.libraries[_free(path.name, found.libraries)] = str(path)
            continue
        for directory in _directories(path):
            name = _name(directory, path)
            if (directory / runs.MANIFEST).is_file() and (directory / runs.TRAJECTORIES).is_file():
                found.runs[_free(name, found.runs)] = directory
            if (directory / sft_files.METRICS).is_file():
                found.trainings[_free(name, found.trainings)] = directory
            if (directory / LIBRARY).is_file():
                found.libraries[_free(f"{name}/{LIBRARY}", found.libraries)] = str(directory / LIBRARY)
    for spec in libraries:
        shown = spec.rsplit("@", 1)[-1] if "://" in spec else spec  # no password in a page
        found.libraries[_free(shown, found.libraries)] = spec
    return found


def _directories(top: Path) -> Iterator[Path]:
    """The directory and those below it, in order; hidden ones, links and checkpoints are passed over."""
    for where, names, _ in islice(os.walk(top), MOST):
        directory = Path(where)
        depth = len(directory.relative_to(top).parts)
        names[:] = sorted(name for name in names if not name.startswith((".", "checkpoint-"))) if depth < DEEPEST else []
        yield directory


def _name(directory: Path, top: Path) -> str:
    """From the named directory's own name on."""
    return "/".join((top.resolve().name or "/", *directory.relative_to(top).parts))


def _free(name: str, taken: dict[str, Path] | dict[str, str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    return free
