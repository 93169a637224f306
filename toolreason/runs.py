"""A run directory: what a collection keeps, written so that `kill -9` at any instant loses nothing that was reported as done.

    DIR/run.json             how it is collected (the manifest)
    DIR/trajectories.jsonl   append-only, one trajectory a line; of several lines for one (problem, sample) the last counts
    DIR/run.lock             held by the one process that writes

Ids come from problem files and never become file names.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from toolreason import attachments
from toolreason.durable import acquire, cut_torn_line, release, replace_file, sync_directory
from toolreason.errors import InfrastructureError, InputError, SettingsError
from toolreason.strategies.base import as_dict, load
from toolreason.types import Judgement, Problem, Sampling, StopReason, Trajectory, from_json, to_json

FORMAT = 1
MANIFEST, TRAJECTORIES = "run.json", "trajectories.jsonl"


class Key(NamedTuple):
    """What one rollout is of."""

    problem_id: str
    sample: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """How a run is collected. All but `problems`, `samples`, `version` and `started` must be equal to resume it.

    `problems` names their source and `problems_hash` their content: the same problems from elsewhere are the same run. More
    samples, or fewer, may be asked for when it is resumed.
    """

    strategy: str
    settings: dict[str, Any]
    policy: str
    sampling: Sampling
    problems: str
    problems_hash: str
    samples: int = 1
    version: str = ""
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    format: int = FORMAT

    def differences(self, other: Manifest) -> list[str]:
        """What forbids resuming `self` as `other`, one line each."""
        mine, theirs = self._identity(), other._identity()
        names = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
        told = [f"{name}: {mine.get(name)!r} there, {theirs.get(name)!r} now" for name in names if name != "problems_hash"]
        if "problems_hash" in names:  # a hash tells nobody anything
            told.append(f"problems: their content or order is not that of {self.problems} when it was collected")
        return told

    def _identity(self) -> dict[str, Any]:
        plain = json.loads(to_json(self))
        plain["settings"] = _defaults(self.strategy) | plain["settings"]  # a run may be older than some of them
        flat = {name: plain[name] for name in ("format", "strategy", "policy", "problems_hash")}
        for group in ("settings", "sampling"):
            flat |= {f"{group}.{name}": value for name, value in plain[group].items()}
        return flat


def _defaults(strategy: str) -> dict[str, Any]:
    """The strategy's settings as they are when none is given; none where it is not installed here."""
    try:
        defaults: dict[str, Any] = json.loads(json.dumps(as_dict(load(strategy).settings())))
    except SettingsError:
        return {}
    return defaults


def problems_hash(problems: Sequence[Problem]) -> str:
    """Names the content of these problems, in their order; attachments count by name and content, wherever they lie.

    Raises ProblemError for an attachment that cannot be read.
    """
    digest = sha256()
    for problem in problems:
        content = to_json(replace(problem, attachments=()))
        for written, value in ((',"task":null', problem.reference.task), (',"history":[]', problem.history)):
            if not value:  # a field that runs may be older than: without it their problems keep the name that they had
                content = content.replace(written, "")
        digest.update(content.encode() + b"\n")
        if problem.attachments:
            digest.update(json.dumps(attachments.digest(problem.attachments)).encode() + b"\n")
    return digest.hexdigest()[:16]


def manifest(path: Path | str) -> Manifest:
    """How the run at `path` is collected. Raises InputError where there is none."""
    file = Path(path) / MANIFEST
    try:
        return from_json(Manifest, file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} holds no run (no {MANIFEST}): give a directory that `toolreason collect --out` wrote") from None
    except ValueError as error:
        raise InputError(f"{file} cannot be read: {error}") from error


class RunWriter:
    """The one writer of a run directory. `done` are the finished keys: aborted rollouts are not among them. It stays empty for a
    run that is never gone on with (`endless`), whose keys would be all that grows in a service.
    """

    def __init__(self, path: Path, lock: int, file: int, done: set[Key], *, endless: bool = False) -> None:
        self.path = path
        self.done = done
        self._endless = endless
        self._lock, self._file = lock, file
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="run-writer")  # one: lines never interleave
        self._closed = False

    @classmethod
    def open(cls, path: Path | str, wanted: Manifest, *, endless: bool = False) -> Self:
        """Start the run at `path` or go on with it. `endless`: keys are never asked for, so none is read or remembered.

        Raises SettingsError when it was collected with other settings or another process is writing it, InputError when a line
        in its middle is damaged. A last line torn by a crash is cut off; its rollout was never reported as done.
        """
        path = Path(path).resolve()
        lock = acquire(path)
        try:
            _settle(path, wanted)
            file = os.open(path / TRAJECTORIES, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            cut_torn_line(file)
            sync_directory(path)
            there = {} if endless else _index(path / TRAJECTORIES)
            done = {key for key, entry in there.items() if entry.stop != StopReason.ABORTED}
            return cls(path, lock, file, done, endless=endless)
        except BaseException:
            release(path, lock)
            raise

    async def append(self, trajectory: Trajectory) -> None:
        """Keep one trajectory: on return it is on the disk.

        Cancelling waits for the write under way, so that a finished rollout is kept. Raises InfrastructureError (disk full).
        """
        write = asyncio.get_running_loop().run_in_executor(self._thread, self.write, trajectory)
        try:
            await asyncio.shield(write)
        except asyncio.CancelledError:
            await asyncio.wait([write])
            raise

    def write(self, trajectory: Trajectory) -> None:
        """The blocking `append`, for one thread at a time."""
        line = to_json(trajectory).encode() + b"\n"
        end = os.fstat(self._file).st_size
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, end)  # no half line in the middle of the file
            raise InfrastructureError(
                f"cannot write {self.path / TRAJECTORIES}: {error.strerror}; everything before is kept"
            ) from error
        if trajectory.stop is not StopReason.ABORTED and not self._endless:
            self.done.add(Key(trajectory.problem_id, trajectory.sample))

    def close(self) -> None:
        """Wait for the writes under way and let others write. Safe to call twice."""
        if not self._closed:
            self._closed = True
            self._thread.shutdown()
            os.close(self._file)
            release(self.path, self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def read(
    path: Path | str,
    *,
    judgement: Judgement | None = None,
    where: Callable[[Trajectory], bool] | None = None,
) -> Iterator[Trajectory]:
    """The trajectories of a run, the last line of each (problem, sample), in file order, one in memory at a time.

    Works while the run is being written; a torn last line is passed over. Raises InputError for a damaged line before it.
    """
    manifest(path)
    file = Path(path) / TRAJECTORIES
    entries = _index(file)
    if not entries:
        return
    with file.open("rb") as lines:
        for entry in entries.values():
            lines.seek(entry.offset)
            trajectory = _parse(file, entry.line, lines.readline())
            if judgement is not None and (trajectory.verdict is None or trajectory.verdict.judgement is not judgement):
                continue
            if where is None or where(trajectory):
                yield trajectory


class _Entry(NamedTuple):
    line: int
    offset: int
    stop: str


def _index(file: Path) -> dict[Key, _Entry]:
    """Where the last line of each key is, in file order."""
    entries: dict[Key, _Entry] = {}
    if not file.exists():
        return entries
    offset = 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                break  # torn: a crash, or a write under way
            try:
                row = json.loads(line)
                key = Key(str(row["problem_id"]), int(row["sample"]))
                entry = _Entry(number, offset, str(row["stop"]))
            except (ValueError, KeyError, TypeError) as error:
                raise _damaged(file, number, error) from error
            entries.pop(key, None)
            entries[key] = entry
            offset += len(line)
    return entries


def _parse(file: Path, number: int, line: bytes) -> Trajectory:
    try:
        return from_json(Trajectory, line)
    except ValueError as error:
        raise _damaged(file, number, error) from error


def _damaged(file: Path, number: int, error: Exception) -> InputError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(
        f"{file} line {number} is damaged ({reason}). Nothing was changed. "
        f"To drop that line and collect its rollout again: sed -i {number}d {shlex.quote(str(file))}"
    )


def _settle(path: Path, wanted: Manifest) -> None:
    """Write the manifest of a new run; refuse to mix other settings into one that has trajectories."""
    file = path / TRAJECTORIES
    empty = not file.exists() or file.stat().st_size == 0
    if (path / MANIFEST).exists():
        differences = manifest(path).differences(wanted)
        if differences and not empty:
            raise SettingsError(
                f"{path} was collected with other settings:\n  " + "\n  ".join(differences) + "\n"
                "Nothing was changed. Give the same settings to resume it, or another directory with --out."
            )
        if not differences:
            return
    elif not empty:
        raise SettingsError(f"{path} has trajectories but no {MANIFEST}: name another directory with --out")
    replace_file(path / MANIFEST, to_json(wanted) + "\n")
