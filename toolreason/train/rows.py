"""The rows that are trained on: read, checked, counted. Ids and labels are taken as they are; nothing is encoded again.

Long data stays in Arrow tables (4 bytes an id). A row that cannot be trained on is dropped and counted by its reason; a row that
contradicts itself is an error, because a wrong mask trains what the sandbox printed.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

from toolreason.errors import InputError, SettingsError
from toolreason.export import files
from toolreason.export.files import BATCH, TEST, TRAIN
from toolreason.export.tokens import IGNORED
from toolreason.train.sft_data import NEEDED, Model, Part, Row, RowReport, parts

UNKNOWN = "unknown"  # the source of tokens in rows that do not say


@dataclass(frozen=True, slots=True)
class Rows:
    """Arrow tables with `input_ids`, `labels`, `sources`, `id`, `problem_id`. `digest` names what is trained on, and its order."""

    train: Any
    held_out: Any
    report: RowReport
    digest: str


class _Dropped(Exception):
    """Why a row is not trained on."""


def read(
    paths: Sequence[str | Path],
    model: Model,
    *,
    max_length: int | None = None,
    long: str = "drop",
    held_out: float = 0.0,
    seed: int = 0,
) -> Rows:
    """The rows of exports (.parquet, .jsonl, a directory of `datasets`), run directories and curated sets, one after the other.

    Where a `datasets` directory has a test part, that is held out; else the rows of a share of the problems are. Raises InputError
    for what is no such data, for rows that contradict themselves and where no row is left; CapabilityError for text without ids.
    """
    limit = min(max_length or model.context, model.context)
    report = RowReport()
    places = [part for path in paths for part in parts(Path(path), model, report)]
    sift = _Sieve(model, limit, long == "truncate", report)
    train = files.table(sift(part for part in places if part.name == TRAIN))
    apart = files.table(sift(part for part in places if part.name == TEST))
    digests = sift.digests[: train.num_rows]
    if not apart.num_rows and held_out and train.num_rows:
        problems = train["problem_id"].to_pylist()
        if len(set(problems)) < 2:
            raise SettingsError("the rows are of one problem only, so none can be held out: give --held-out 0")
        chosen = files.order(problems, held_out, seed)
        train, apart = train.take(chosen[TRAIN]), train.take(chosen[TEST])
        digests = [digests[index] for index in chosen[TRAIN]]
    _count(train, report)
    report.held_out = apart.num_rows
    report.check()
    return Rows(train, apart, report, sha256(b"".join(digests)).hexdigest()[:16])


def batches(table: Any) -> Iterator[list[Row]]:
    """The rows of a table as Python values, so many at a time."""
    for batch in table.to_batches(max_chunksize=BATCH):
        yield batch.to_pylist()


def _count(table: Any, report: RowReport) -> None:
    report.rows = table.num_rows
    for row in chain.from_iterable(batches(table)):
        report.trained += sum(label != IGNORED for label in row["labels"])
        report.longest = max(report.longest, len(row["input_ids"]))
        for run in row["sources"]:
            report.tokens[run["source"]] += run["count"]


class _Sieve:
    """Checks rows, cuts or drops the long ones, and keeps a digest of each that stays, in order."""

    def __init__(self, model: Model, limit: int, truncate: bool, report: RowReport) -> None:
        self._model, self._limit, self._truncate, self._report = model, limit, truncate, report
        self._seen: set[str] = set()
        self.digests: list[bytes] = []

    def __call__(self, parts: Iterable[Part]) -> Iterator[Row]:
        for part in parts:
            for number, row in enumerate(part.rows(), 1):
                self._report.read += 1
                try:
                    kept = self._fit(row, f"{part.path}: row {number}")
                except _Dropped as reason:
                    self._report.dropped[str(reason)] += 1
                    continue
                content = array("i", kept["input_ids"]), array("i", kept["labels"])
                self.digests.append(sha256(b"".join(one.tobytes() for one in content)).digest())
                yield kept

    def _fit(self, row: Row, where: str) -> Row:
        ids, labels = _checked(row, where, self._model.vocabulary)
        name = str(row.get("id") or where)
        if name in self._seen:
            raise _Dropped("there already")
        self._seen.add(name)
        sources = _sources(row, len(ids), where)
        if len(ids) > self._limit:
            if not self._truncate:
                raise _Dropped("too long")
            ids, labels, sources = ids[: self._limit], labels[: self._limit], _first(sources, self._limit)
            self._report.truncated += 1
        labels[:1] = [IGNORED] * len(labels[:1])  # nothing stands before it that it could be learnt from
        if all(label == IGNORED for label in labels):
            raise _Dropped("no trained token")
        problem = str(row.get("problem_id") or name)
        return {"input_ids": ids, "labels": labels, "sources": sources, "id": name, "problem_id": problem}


def _checked(row: Row, where: str, vocabulary: int) -> tuple[list[int], list[int]]:
    ids, labels = (row.get(name) for name in NEEDED)
    if not isinstance(ids, list) or not isinstance(labels, list):
        raise InputError(f"{where} has no input_ids and labels: train on what `toolreason export --for sft` writes")
    if row.get("reward") is not None:
        raise InputError(f"{where} is for rl, where wrong answers are rows too: export again with --for sft")
    if len(ids) != len(labels) or not all(isinstance(token, int) for token in (*ids, *labels)):
        raise InputError(f"{where} has {len(ids)} ids and {len(labels)} labels: they have to be whole numbers, and as many")
    if ids and not 0 <= min(ids) <= max(ids) < vocabulary:
        raise InputError(f"{where} has ids that the model lacks ({vocabulary} tokens): it was made with another model's tokenizer")
    if any(label not in (IGNORED, token) for token, label in zip(ids, labels, strict=True)):
        raise InputError(f"{where} has a label that is neither its own token nor {IGNORED}: labels are not shifted here")
    return ids, labels


def _sources(row: Row, length: int, where: str) -> list[Row]:
    runs = row.get("sources") or [{"source": UNKNOWN, "count": length}]
    if sum(run["count"] for run in runs) != length:
        raise InputError(f"{where} has sources for another number of tokens than it has")
    return list(runs)


def _first(sources: Sequence[Row], limit: int) -> list[Row]:
    kept: list[Row] = []
    for run in sources:
        count = min(run["count"], limit)
        kept += [{"source": run["source"], "count": count}] if count else []
        limit -= count
    return kept
