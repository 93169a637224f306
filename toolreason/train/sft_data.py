"""Where rows lie: exports, directories of `datasets`, run directories and curated sets, each by what it looks like."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from toolreason import export, runs
from toolreason.errors import CapabilityError, InputError, SetupError
from toolreason.export.files import BATCH, MADE_BY_DATASETS, TEST, TRAIN
from toolreason.types import Trajectory

Row = dict[str, Any]

NEEDED, KNOWN = ("input_ids", "labels"), ("sources", "id", "problem_id", "reward")
SAMPLED = 8  # trajectories of a run whose text is compared with what the tokenizer makes of their ids


class Part(NamedTuple):
    """Rows that lie in one place. `name`: whether they are to be trained on, or measured with."""

    path: str
    name: str
    rows: Callable[[], Iterator[Row]]


@dataclass(frozen=True, slots=True)
class Model:
    """What rows have to fit: a vocabulary, a context length, the ids that end a turn (the first is added where one is missing), and
    the tokenizer's decoding.
    """

    vocabulary: int
    context: int
    ends: tuple[int, ...] = ()
    decode: Callable[[Sequence[int]], str] | None = None


@dataclass(slots=True)
class RowReport:
    """What became of the rows. `held_out` is a number of rows; `tokens` by source, `trained` of them, and `longest` are of the
    rows that are trained on.
    """

    read: int = 0
    rows: int = 0
    held_out: int = 0
    truncated: int = 0
    trained: int = 0
    longest: int = 0
    tokens: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)

    def check(self) -> None:
        """Raise InputError where there is nothing to train on."""
        if not self.rows:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.dropped.most_common()) or "none was there"
            raise InputError(f"no row is left to train on, of {self.read} ({reasons})")

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "tokens": dict(self.tokens), "dropped": dict(self.dropped.most_common())}


def parts(path: Path, model: Model, report: RowReport) -> list[Part]:
    """What lies at `path`, by what it looks like."""
    if path.suffix == ".parquet" and path.is_file():
        return [Part(str(path), TRAIN, lambda: _parquet(path))]
    if path.suffix == ".jsonl" and path.is_file():
        return [Part(str(path), TRAIN, lambda: _lines(path))]
    if (path / runs.MANIFEST).is_file():
        return [Part(str(path), TRAIN, lambda: _run(path, model, report))]
    if any((path / name).is_file() for name in (*MADE_BY_DATASETS, "state.json")):
        return _datasets(path)
    raise InputError(
        f"{path} is no training data: give a file or directory that `toolreason export --for sft` wrote, a run directory of "
        "`toolreason collect`, or a set of `toolreason curate`"
    )


def _parquet(path: Path) -> Iterator[Row]:
    parquet = _library("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path) as file:
            columns = _columns(file.schema_arrow.names, path)
            for batch in file.iter_batches(BATCH, columns=columns):
                yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own errors are these
        raise InputError(f"{path} cannot be read: {error}") from error


def _lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InputError(f"{path} line {number} is no JSON: {error}") from error
            if not isinstance(row, dict):
                raise InputError(f"{path} line {number} is no row")
            _columns(row, path)
            yield row


def _datasets(path: Path) -> list[Part]:
    datasets = _library("datasets")
    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be read as a directory of datasets: {error}") from error
    named = dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {TRAIN: loaded}
    if unknown := sorted(named.keys() - {TRAIN, TEST}):
        raise InputError(f"{path} has a part {unknown[0]!r}; there may be {TRAIN} and {TEST}, which is held out")

    return [Part(f"{path}/{name}", name, partial(_arrow, part, path)) for name, part in named.items()]


def _arrow(part: Any, path: Path) -> Iterator[Row]:
    chosen = part.select_columns(_columns(part.column_names, path)).with_format("arrow")
    for table in chosen.iter(BATCH):
        yield from table.to_pylist()


def _run(path: Path, model: Model, report: RowReport) -> Iterator[Row]:
    """The rows that an export would make, end tokens added where we stopped the model at its answer."""
    counted = export.Report()
    trajectories = runs.read(path)
    sample = list(islice(trajectories, SAMPLED))
    _compare([one for one in sample if one.token_ids], path, model)
    try:
        yield from export.rows(chain(sample, trajectories), "sft", report=counted, end_tokens=model.ends)
    except CapabilityError as error:
        raise CapabilityError(f"{path}: {error}") from error
    report.read += counted.left_out.total()
    report.dropped.update(counted.left_out)


def _compare(sample: Sequence[Trajectory], path: Path, model: Model) -> None:
    """Raise InputError where the model's tokenizer reads no trajectory's ids as its text. (A character that is cut between two
    segments is no text in either.)
    """
    if model.decode is not None and sample and not any(model.decode(one.token_ids) == one.text for one in sample):
        raise InputError(
            f"{path} was sampled with another tokenizer than this model's (by {sample[0].policy}): its ids mean another text here. "
            "Train the model that it was sampled with"
        )


def _columns(names: Iterable[str], path: Path) -> list[str]:
    there = set(names)
    if missing := [name for name in NEEDED if name not in there]:
        what = "text rows, which cannot be masked" if there & {"messages", "prompt", "completion"} else f"no column {missing[0]}"
        raise InputError(f"{path} has {what}: export it with `toolreason export --for sft`")
    return [name for name in (*NEEDED, *KNOWN) if name in there]


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise SetupError(f"training needs {name}: pip install 'toolreason[train]'") from None
