"""From trajectories to training rows: a segment says who wrote its tokens, the purpose says which of them are trained.

    sft        input_ids, labels             model and hint tokens are trained
    rl         ... and logprobs, reward      model tokens are trained
    messages   messages, or prompt + completion: text, for those who need it; no masks

The ids are those of the trajectory, one after the other: nothing is encoded again and nothing is shifted (trainers shift labels
themselves). Prompt and tool tokens are never trained. What was taken back before a hint is in no row: the model did not go on from
it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from toolreason import runs
from toolreason.export import files, text, tokens
from toolreason.export.base import LeftOut, Options, Purpose, Report, Row
from toolreason.scaling import whole
from toolreason.types import Judgement, StopReason, Trajectory

__all__ = ["LeftOut", "Options", "Purpose", "Report", "Row", "dataset", "read", "rows"]


def rows(
    trajectories: Iterable[Trajectory], purpose: Purpose | str = Purpose.SFT, *, report: Report | None = None, **options: Any
) -> Iterator[Row]:
    """One row a trajectory, in their order; `options` are the fields of `Options`, and `report` counts what was left out and why.

    Raises SettingsError for an option that cannot be; while it runs, CapabilityError for text-only trajectories where tokens are
    asked for, and InputError for problems that are not those of the trajectories.
    """
    return _rows(trajectories, Options(Purpose.of(purpose), **options), Report() if report is None else report)


def dataset(
    source: str | Path | Sequence[str | Path] | Iterable[Trajectory],
    purpose: Purpose | str = Purpose.SFT,
    *,
    split: float | None = None,
    seed: int = 0,
    shuffle: bool = False,
    report: Report | None = None,
    **options: Any,
) -> Any:
    """The rows as a `datasets.Dataset`; with `split`, a `DatasetDict` of train and test that share no problem.

    `source` is a run directory, several, or trajectories. Raises what `rows` does, InputError where no row is left, and SetupError
    without the library.
    """
    counted = Report() if report is None else report
    table = files.table(rows(read(source), purpose, report=counted, **options))
    counted.check()
    return files.to_dataset(files.parts(table, split, seed, shuffle))


def read(source: str | Path | Sequence[str | Path] | Iterable[Trajectory]) -> Iterator[Trajectory]:
    """The trajectories of a run directory, of several one after the other, or those that are given."""
    if isinstance(source, (str, os.PathLike)):
        return runs.read(source)
    return chain.from_iterable([one] if isinstance(one, Trajectory) else runs.read(one) for one in source)


def _rows(trajectories: Iterable[Trajectory], options: Options, report: Report) -> Iterator[Row]:
    seen: set[str] = set()
    make = text.Maker(options) if options.purpose is Purpose.MESSAGES else tokens.Maker(options)

    def row(trajectory: Trajectory) -> Row | None:
        report.read += 1
        try:
            _check(trajectory, options, seen)
            made = make(trajectory, report)
        except LeftOut as reason:
            report.left_out[str(reason)] += 1
            return None
        report.rows += 1
        return made

    for trajectory in map(whole, trajectories):
        made = row(trajectory)
        if made is not None:
            yield made
        if made is None or not options.aside:
            report.aside += len(trajectory.aside)
            continue
        for one in trajectory.aside:
            said = row(replace(one, verdict=trajectory.verdict, sample=trajectory.sample))
            if said is not None:
                yield said


def _check(trajectory: Trajectory, options: Options, seen: set[str]) -> None:
    """Raise LeftOut for what no row is made of, whatever is in it."""
    if trajectory.id in seen:
        raise LeftOut("there already")
    seen.add(trajectory.id)
    if trajectory.stop is StopReason.ABORTED:
        raise LeftOut("aborted")
    judgement = Judgement.UNSCORED if trajectory.verdict is None else trajectory.verdict.judgement
    if judgement not in options.judgements:
        raise LeftOut(judgement.value)
