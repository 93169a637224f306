"""A training run on disk, written so that `kill -9` at any instant costs what was done since the last checkpoint, and no more.

DIR/train.json               how it is trained (the manifest)
DIR/metrics.jsonl            append-only: what was logged, one line a step that logs; elapsed seconds over all sittings
DIR/checkpoints/             checkpoint-STEP, each with a file `complete` once all of it is on the disk
DIR/evaluations/step-STEP    a run directory as of `toolreason collect`, for `toolreason show`
DIR/model, DIR/adapter       the result: whole or merged weights; an adapter. Each appears whole or not at all
DIR/report.json              what came of it; when it is there, the run is finished
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolreason.durable import LOCK, replace_file, sync_directory
from toolreason.errors import InputError, SettingsError
from toolreason.types import coerce_tuples, from_json, to_json

FORMAT = 1
MANIFEST, METRICS, REPORT, COMPLETE = "train.json", "metrics.jsonl", "report.json", "complete"
CHECKPOINTS, EVALUATIONS, MODEL, ADAPTER = "checkpoints", "evaluations", "model", "adapter"
PREFIX = "checkpoint-"


@dataclass(frozen=True, slots=True)
class Manifest:
    """How a run is trained. All but the names of model and data, `versions` and `started` must be equal to go on with it.

    `model_hash` and `data_hash` name contents: the same rows from elsewhere are the same data. `processes`: how many share a batch.
    """

    kind: str
    settings: dict[str, Any]
    model: str
    model_hash: str
    data: tuple[str, ...]
    data_hash: str
    precision: str
    processes: int = 1
    versions: dict[str, str] = field(default_factory=dict)
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    format: int = FORMAT

    def __post_init__(self) -> None:
        coerce_tuples(self, "data")

    def differences(self, other: Manifest) -> list[str]:
        """What forbids going on with `self` as `other`, one line each."""
        mine, theirs = self._identity(), other._identity()
        names = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
        hashes = {"model_hash": f"model: its files are not those of {self.model} when it began", "data_hash": "data: other rows"}
        return [hashes.get(name) or f"{name}: {mine.get(name)!r} there, {theirs.get(name)!r} now" for name in names]

    def _identity(self) -> dict[str, Any]:
        flat: dict[str, Any] = json.loads(to_json(self))
        for name in ("model", "data", "versions", "started"):
            del flat[name]
        return {**flat.pop("settings"), **flat}


def manifest(out: Path) -> Manifest:
    """How the run at `out` is trained. Raises InputError where there is none."""
    file = out / MANIFEST
    try:
        return from_json(Manifest, file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{out} holds no training run (no {MANIFEST})") from None
    except ValueError as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def settle(out: Path, wanted: Manifest) -> None:
    """Write the manifest of a new run. Raises SettingsError for a directory of other things, or of a run with other settings."""
    if not (out / MANIFEST).exists():
        if any(file.name != LOCK for file in out.iterdir()):
            raise SettingsError(f"{out} is there already and is no training run: name another directory with --out")
    else:
        differences = manifest(out).differences(wanted)
        if not differences:
            return
        if latest(out) or (out / REPORT).exists():
            raise SettingsError(
                f"{out} is trained with other settings:\n  " + "\n  ".join(differences) + "\n"
                "Nothing was changed. Give the same settings to go on with it, or another directory with --out."
            )
    replace_file(out / MANIFEST, to_json(wanted) + "\n")


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(PREFIX))


def checkpoints(out: Path) -> list[Path]:
    """The complete checkpoints, by step."""
    found = (out / CHECKPOINTS).glob(f"{PREFIX}*")
    whole = [path for path in found if path.name.removeprefix(PREFIX).isdigit() and (path / COMPLETE).is_file()]
    return sorted(whole, key=step_of)


def latest(out: Path) -> Path | None:
    """The checkpoint to go on from. One that was half written when its process was killed is none."""
    whole = checkpoints(out)
    return whole[-1] if whole else None


def complete(checkpoint: Path, keep: int, tokens: int = 0) -> None:
    """Say that all of this checkpoint is written, once it is on the disk; then let older ones go, and what never got so far.

    `tokens`: how many were seen up to here, which the trainer's own files do not say.
    """
    for file in checkpoint.rglob("*"):
        if file.is_file():
            _sync(file)
    replace_file(checkpoint / COMPLETE, json.dumps({"step": step_of(checkpoint), "tokens": tokens}) + "\n")
    sync_directory(checkpoint)
    sync_directory(checkpoint.parent)
    tidy(checkpoint.parent.parent, keep)


def tokens_seen(checkpoint: Path) -> int:
    return int(json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))["tokens"])


def tidy(out: Path, keep: int) -> None:
    """Remove all checkpoints but the last `keep` complete ones."""
    kept = checkpoints(out)[-keep:]
    for path in (out / CHECKPOINTS).glob(f"{PREFIX}*"):
        if path not in kept:
            (path / COMPLETE).unlink(missing_ok=True)  # first: a half removed one is not to be taken for a whole one
            shutil.rmtree(path, ignore_errors=True)


def forget_after(out: Path, step: int | None) -> None:
    """Remove what was measured after this step, or all of it: it will be measured again."""
    for path in (out / EVALUATIONS).glob("step-*"):
        number = path.name.removeprefix("step-")
        if not number.isdigit() or step is None or int(number) > step:
            shutil.rmtree(path, ignore_errors=True)


class Metrics:
    """`metrics.jsonl`, cut back to a step (None: to nothing), and gone on with. A last line torn by a crash is left out."""

    def __init__(self, out: Path, upto: int | None, *, write: bool = True) -> None:
        self._file, self._write = out / METRICS, write
        self.lines = [] if upto is None else [line for line in read_metrics(out) if line["step"] <= upto]
        if write:
            replace_file(self._file, "".join(json.dumps(line) + "\n" for line in self.lines))
        self._before = max((line["elapsed_s"] for line in self.lines), default=0.0)
        self._started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds of this run, over all sittings whose work is still in it."""
        return self._before + time.monotonic() - self._started

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        line = {"step": step, "elapsed_s": round(self.elapsed_s, 3), **{key: _plain(value) for key, value in values.items()}}
        self.lines.append(line)
        if self._write:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def last(self, key: str) -> Any:
        return next((line[key] for line in reversed(self.lines) if key in line), None)

    def first(self, key: str) -> Any:
        return next((line[key] for line in self.lines if key in line), None)


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` so far."""
    file = out / METRICS
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")[:-1]  # what follows the last newline is torn, or nothing
    return [json.loads(line) for line in lines]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _sync(file: Path) -> None:
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
