"""The list of a run's trajectories, kept in a small database beside the user's other caches, so that 100,000 are quick to filter.

A run file only grows: each request reads what is new, for a moment at most, and says how far it has come. The database holds
nothing of its own: it is made again when the run file is another, or when it is damaged.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from toolreason import models, runs
from toolreason.errors import InputError
from toolreason.types import Trajectory, from_json
from toolreason.view.rows import COLUMNS, SCHEMA, Filters, take

VERSION = 1
HEAD = 256  # bytes of the run file that tell whether it is still the same


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of the run file is in the list, in bytes, and how many lines could not be read."""

    done: int
    size: int
    damaged: int


class Index:
    """The list of one run. Its methods may be called from several threads, one after the other."""

    def __init__(self, run: Path, cache: Path | None = None) -> None:
        self._file = run / runs.TRAJECTORIES
        name = sha256(str(self._file.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:24]
        self._path = (models.home() / "view" if cache is None else cache) / f"{name}.sqlite"
        self._lock = threading.RLock()
        self._open: sqlite3.Connection | None = None

    def refresh(self, most_s: float = 1.0) -> Progress:
        """Take in what is new, for so long at most."""
        with self._lock, self._database() as database, self._file.open("rb") as lines:
            size = self._file.stat().st_size
            about = dict(database.execute("SELECT name, value FROM about"))
            lines.seek(0)
            head = sha256(lines.read(min(HEAD, about.get("head_size", 0)))).hexdigest()
            if about.get("done", 0) > size or head != about.get("head", head):
                for table in ("about", "rows", "said"):
                    database.execute(f"DELETE FROM {table}")
                about = {}
            done, damaged = about.get("done", 0), about.get("damaged", 0)
            lines.seek(done)
            until = time.monotonic() + most_s
            for line in lines:
                if not line.endswith(b"\n") or time.monotonic() > until:
                    break
                damaged += not take(database, done, line)
                done += len(line)
            lines.seek(0)
            start = lines.read(min(HEAD, done))
            news = {"done": done, "damaged": damaged, "head_size": len(start), "head": sha256(start).hexdigest()}
            database.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", news.items())
        return Progress(done, size, damaged)

    def page(self, filters: Filters, start: int = 0, most: int = 100) -> tuple[int, list[dict[str, Any]]]:
        """How many there are, and so many of them from `start` on."""
        where, values = filters.where()
        with self._lock, self._database() as database:
            count = int(database.execute(f"SELECT count(*) FROM rows WHERE {where}", values).fetchone()[0])
            query = f"SELECT {COLUMNS} FROM rows WHERE {where} ORDER BY {filters.order} LIMIT ? OFFSET ?"
            return count, [dict(row) for row in database.execute(query, [*values, most, start])]

    def facets(self) -> dict[str, dict[str, int]]:
        """How many there are of each verdict, strategy and stop."""
        with self._lock, self._database() as database:
            return {
                name: dict(map(tuple, database.execute(f"SELECT {name}, count(*) FROM rows GROUP BY 1 ORDER BY 2 DESC LIMIT 50")))
                for name in ("verdict", "strategy", "stop")
            }

    def sums(self) -> dict[str, Any]:
        """The run in numbers: aborted rollouts are counted and in no mean."""
        means = "avg(calls) AS calls, avg(tokens) AS tokens, avg(calls > 0) AS with_calls, avg(seconds) AS seconds"
        right = "sum(verdict = 'correct') AS correct, sum(verdict IN ('correct', 'wrong')) AS scored"
        failed = "CAST(sum(failed) AS REAL) / nullif(sum(calls), 0) AS failed"
        fields = f"count(*) AS rollouts, count(DISTINCT problem) AS problems, {right}, {means}, {failed}"
        with self._lock, self._database() as database:
            found = dict(database.execute(f"SELECT {fields} FROM rows WHERE stop != 'aborted'").fetchone())
            found["aborted"] = database.execute("SELECT count(*) FROM rows WHERE stop = 'aborted'").fetchone()[0]
        return found | {"correct": found["correct"] or 0, "scored": found["scored"] or 0}

    def right(self) -> dict[tuple[str, int], bool]:
        """Whether each rollout that counts is right."""
        query = "SELECT problem, sample, verdict = 'correct' FROM rows WHERE verdict IN ('correct', 'wrong') AND stop != 'aborted'"
        with self._lock, self._database() as database:
            return {(problem, sample): bool(right) for problem, sample, right in database.execute(query)}

    def trajectory(self, place: int) -> Trajectory:
        """One of the list by its place. Raises InputError where there is none, or it cannot be read."""
        found = self._size(place)
        if found is None and self.refresh(10.0):  # asked for before its list was
            found = self._size(place)
        if found is None:
            raise InputError("there is no such trajectory in this run, or it was collected again: go back to the list")
        with self._file.open("rb") as lines:
            lines.seek(place)
            try:
                return from_json(Trajectory, lines.read(found))
            except ValueError as error:
                raise InputError(f"this line of {runs.TRAJECTORIES} is damaged: {str(error).splitlines()[0]}") from error

    def _size(self, place: int) -> int | None:
        with self._lock, self._database() as database:
            found = database.execute("SELECT size FROM rows WHERE place = ?", [place]).fetchone()
        return None if found is None else int(found["size"])

    def close(self) -> None:
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None

    @contextlib.contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """A transaction. The file is made again once where it is damaged or of another version."""
        if self._open is None:
            try:
                self._open = self._connected()
            except sqlite3.DatabaseError:
                self._path.unlink(missing_ok=True)
                self._open = self._connected()
        self._open.execute("BEGIN IMMEDIATE")
        with self._open:
            yield self._open

    def _connected(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
        database.row_factory = sqlite3.Row
        database.execute("PRAGMA synchronous = OFF")  # what is lost is read again
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version != VERSION:
            if version or database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                database.close()
                raise sqlite3.DatabaseError("of another version")
            database.executescript(f"{SCHEMA} PRAGMA user_version = {VERSION};")
        return database
