"""From trajectories to training rows: a segment says who wrote its tokens, the purpose says which of them are trained.

    sft        input_ids, labels             model and hint tokens are trained
    rl         ... and logprobs, reward      model tokens are trained
    messages   messages, or prompt + completion: text, for those who need it; no masks
    dpo, kto   right and wrong ones of one problem, as pairs or with a label; model tokens are trained
    openenv, verl, verifiers                 rl in the shapes of other systems

The ids are those of the trajectory, one after the other: nothing is encoded again and nothing is shifted (trainers shift labels
themselves). Prompt and tool tokens are never trained. What was taken back before a hint is in no row: the model did not go on from
it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from toolreason import runs
from toolreason.export import files, openenv, pairs, text, tokens, verifiers, verl
from toolreason.export.base import PAIRED, LeftOut, Options, Purpose, Report, Row
from toolreason.scaling import whole
from toolreason.types import Judgement, StopReason, Trajectory

__all__ = ["PAIRED", "LeftOut", "Options", "Purpose", "Report", "Row", "dataset", "read", "rows"]

MAKERS: Mapping[Purpose, Callable[[Options], Callable[[Trajectory, Report], Any]]] = {
    Purpose.SFT: tokens.Maker,
    Purpose.RL: tokens.Maker,
    Purpose.MESSAGES: text.Maker,
    Purpose.DPO: pairs.Maker,
    Purpose.KTO: pairs.Maker,
    Purpose.OPENENV: openenv.Maker,
    Purpose.VERL: verl.Maker,
    Purpose.VERIFIERS: verifiers.Maker,
}


def rows(
    trajectories: Iterable[Trajectory], purpose: Purpose | str = Purpose.SFT, *, report: Report | None = None, **options: Any
) -> Iterator[Row]:
    """One row a trajectory, in their order; for dpo one a pair and for kto those that have an opposite, when all were read.

    `options` are the fields of `Options`, and `report` counts what was left out and why.

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
    table = files.table(rows(read(source), purpose, report=counted, seed=seed, **options))
    counted.check()
    return files.to_dataset(files.parts(table, split, seed, shuffle))


def read(source: str | Path | Sequence[str | Path] | Iterable[Trajectory]) -> Iterator[Trajectory]:
    """The trajectories of a run directory, of several one after the other, or those that are given."""
    if isinstance(source, (str, os.PathLike)):
        return runs.read(source)
    return chain.from_iterable([one] if isinstance(one, Trajectory) else runs.read(one) for one in source)


def _rows(trajectories: Iterable[Trajectory], options: Options, report: Report) -> Iterator[Row]:
    made = _made(trajectories, options, report)
    for row in pairs.rows(made, options, report) if options.purpose in PAIRED else made:
        report.rows += 1
        yield row


def _made(trajectories: Iterable[Trajectory], options: Options, report: Report) -> Iterator[Any]:
    """What the purpose's maker makes of each: rows, or sides of pairs."""
    seen: set[str] = set()
    make = MAKERS[options.purpose](options)

    def one(trajectory: Trajectory) -> Any:
        report.read += 1
        try:
            _check(trajectory, options, seen)
            return make(trajectory, report)
        except LeftOut as reason:
            report.left_out[str(reason)] += 1
            return None

    for trajectory in map(whole, trajectories):
        made = one(trajectory)
        if made is not None:
            yield made
        if made is None or not options.aside:
            report.aside += len(trajectory.aside)
            continue
        for part in trajectory.aside:
            said = one(replace(part, verdict=trajectory.verdict, sample=trajectory.sample))
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
