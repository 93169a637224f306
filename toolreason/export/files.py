"""Rows on disk: Parquet, JSONL, or a directory of `datasets`; and the parts of a split, which share no problem."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from toolreason.errors import InputError, SettingsError, SetupError
from toolreason.export.base import Row
from toolreason.export.schema import schema as columns

ALL, TRAIN, TEST = "all", "train", "test"
BATCH = 256  # rows at a time on their way into columns
MADE_BY_DATASETS = ("dataset_info.json", "dataset_dict.json")


def order(problem_ids: Sequence[str], split: float | None, seed: int = 0, shuffle: bool = False) -> dict[str, list[int]]:
    """Which rows, given their problems, go into which part, in which order: `all`, or `train` and `test`.

    `split` is the share of the *problems* that goes to `test`, at least one and never all. A problem's rows all go one way; which
    way depends on seed and problem id, not on the order of the rows. Raises SettingsError where the share or the problems allow
    no two parts.
    """
    indices = list(range(len(problem_ids)))
    if shuffle:
        random.Random(seed).shuffle(indices)
    if split is None:
        return {ALL: indices}
    ranked = sorted(set(problem_ids), key=lambda name: sha256(f"{seed}:{name}".encode()).digest())
    if not 0 < split < 1 or len(ranked) < 2:
        raise SettingsError(f"a split takes a share between 0 and 1 and at least 2 problems, not {split} and {len(ranked)}")
    held_out = set(ranked[: min(max(round(split * len(ranked)), 1), len(ranked) - 1)])
    return {
        TRAIN: [index for index in indices if problem_ids[index] not in held_out],
        TEST: [index for index in indices if problem_ids[index] in held_out],
    }


def write(
    out: Path,
    rows: Iterable[Row],
    *,
    split: float | None = None,
    seed: int = 0,
    shuffle: bool = False,
    overwrite: bool = False,
    check: Callable[[], None] = lambda: None,
) -> dict[Path, int]:
    """Write the rows to `out`, each file whole or not at all; gives the number of rows by file. `check` is called after the last
    row and before anything is written.

    The name decides: `.parquet`, `.jsonl`, none (a directory for `datasets.load_from_disk`). A split makes two files, `NAME.train`
    and `NAME.test` before the suffix, or one directory with both. Raises InputError where a file is there and may not be replaced,
    SettingsError for another suffix, SetupError without the library, and whatever `rows` raises, with nothing written.
    """
    names = targets(out, split is not None, overwrite)
    if out.suffix == ".jsonl":
        return _write_lines(names, rows, split, seed, shuffle, check)
    whole = table(rows)
    check()
    made = parts(whole, split, seed, shuffle)
    if out.suffix == ".parquet":
        parquet = _library("pyarrow.parquet")
        for name, part in made.items():
            with _whole(names[name]) as file:
                parquet.write_table(part, file, compression="zstd")
        return {names[name]: part.num_rows for name, part in made.items()}
    with _whole(out) as directory:
        to_dataset(made).save_to_disk(str(directory))
    return {out / name if name != ALL else out: part.num_rows for name, part in made.items()}


def targets(out: Path, split: bool, overwrite: bool) -> dict[str, Path]:
    """The file of each part. Raises what `write` raises for names, so that nobody waits for rows that cannot be kept."""
    if out.suffix not in (".parquet", ".jsonl", ""):
        raise SettingsError(f"{out} names no known kind of file: end it in .parquet or .jsonl, or in nothing for a directory")
    if not out.suffix:
        names = {ALL: out}
        foreign = out.exists() and not any((out / name).exists() for name in MADE_BY_DATASETS)
    else:
        names = {name: out.with_name(f"{out.stem}.{name}{out.suffix}") for name in (TRAIN, TEST)} if split else {ALL: out}
        foreign = any(file.is_dir() for file in names.values())
    if foreign:
        raise InputError(f"{out} is there and is no earlier export: name another file with --out")
    if there := [str(file) for file in names.values() if file.exists() and not overwrite]:
        raise InputError(f"{' and '.join(there)} is there already: name another file with --out, or give --overwrite")
    return names


def table(rows: Iterable[Row]) -> Any:
    """All rows as a pyarrow Table: 4 bytes an id, 8 a log-probability."""
    pyarrow = _library("pyarrow")
    source, batches, schema = iter(rows), [], None
    while chunk := list(islice(source, BATCH)):
        schema = schema or columns(pyarrow, chunk[0])
        batches.append(pyarrow.RecordBatch.from_pylist(chunk, schema=schema))
    return pyarrow.Table.from_batches(batches, schema=schema or pyarrow.schema([]))


def parts(whole: Any, split: float | None, seed: int, shuffle: bool) -> dict[str, Any]:
    """The parts of a table, by name."""
    names = whole["problem_id"].to_pylist() if whole.num_rows else []
    chosen = order(names, split, seed, shuffle)
    return {name: whole.take(indices) if shuffle or name != ALL else whole for name, indices in chosen.items()}


def to_dataset(made: Mapping[str, Any]) -> Any:
    """A `datasets.Dataset`, or a `DatasetDict` of train and test."""
    datasets = _library("datasets")
    if ALL in made:
        return datasets.Dataset(made[ALL])
    return datasets.DatasetDict({name: datasets.Dataset(part) for name, part in made.items()})


def _write_lines(
    names: Mapping[str, Path], rows: Iterable[Row], split: float | None, seed: int, shuffle: bool, check: Callable[[], None]
) -> dict[Path, int]:
    lines, problems = [], []
    for row in rows:
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        problems.append(row["problem_id"])
    check()
    chosen = order(problems, split, seed, shuffle)
    for name, indices in chosen.items():
        with _whole(names[name]) as path, path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines[index] for index in indices)
    return {names[name]: len(indices) for name, indices in chosen.items()}


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes its place when that ended well. Raises InputError where nothing can be written."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        if path.is_dir():
            shutil.rmtree(path)
        beside.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; name another file with --out") from error
    finally:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            shutil.rmtree(beside) if beside.is_dir() else beside.unlink()


def _library(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise SetupError(f"this export needs {name}: pip install 'toolreason[export]' (.jsonl needs nothing)") from None
