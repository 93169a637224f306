"""A rollout in the few numbers that a comparison needs, so that runs of any size fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from toolreason import runs
from toolreason.errors import SettingsError
from toolreason.runs import Key
from toolreason.scaling import WAYS
from toolreason.stats import scored
from toolreason.types import Source, StopReason, Trajectory

Choose = Callable[[Trajectory, str, int | None], int]


@dataclass(frozen=True, slots=True)
class Round:
    """A rollout as it was after one of its rounds. `right` by the way the answer is chosen among the rounds so far."""

    spent: int
    calls: int
    right: dict[str, bool | None]


@dataclass(frozen=True, slots=True)
class Row:
    """`right` is None where there is no verdict that counts. Tokens by source; `spent` is what the budget limits."""

    key: Key
    stop: StopReason
    right: bool | None
    spent: int
    model: int
    hint: int
    tool: int
    calls: int
    seconds: float
    rounds: tuple[Round, ...] = ()
    answer: str | None = None

    @property
    def aborted(self) -> bool:
        return self.stop is StopReason.ABORTED

    @property
    def taken_back(self) -> int:
        return self.spent - self.model - self.hint - self.tool


def row(trajectory: Trajectory, choose: Choose | None = None) -> Row:
    """What one trajectory comes to. With `choose` (`toolreason.scaling.choose`) its rounds too."""
    aborted = trajectory.stop is StopReason.ABORTED
    return Row(
        Key(trajectory.problem_id, trajectory.sample),
        trajectory.stop,
        None if aborted else scored(trajectory),
        trajectory.spent,
        trajectory.tokens(Source.MODEL),
        trajectory.tokens(Source.HINT),
        trajectory.tokens(Source.TOOL),
        len(trajectory.cells),
        trajectory.timings.get("total", 0.0),
        rounds(trajectory, choose) if choose is not None and not aborted else (),
        trajectory.verdict.answer if trajectory.verdict else None,
    )


def rounds(trajectory: Trajectory, choose: Choose) -> tuple[Round, ...]:
    """The rounds of a trajectory. A way that cannot choose (no certainties were collected) decides nothing."""
    parts = trajectory.rounds
    verdicts = trajectory.round_verdicts if len(trajectory.round_verdicts) == len(parts) else tuple(one.verdict for one in parts)
    certain = any(segment.certainties for segment in trajectory.segments)

    def right(by: str, upto: int) -> bool | None:
        try:
            verdict = verdicts[choose(trajectory, by, upto)] if by != "certain" or certain else None
        except SettingsError:  # a round whose tokens have no certainties
            return None
        return None if verdict is None else scored(trajectory.with_verdict(verdict))

    return tuple(Round(part.spent, len(part.cells), {by: right(by, upto) for by in WAYS}) for upto, part in enumerate(parts, 1))


def read(path: Path, *, wanted: Callable[[Key], bool], choose: Choose | None = None) -> Iterator[Row]:
    """The rows of a run, of the rollouts that are wanted."""
    for trajectory in runs.read(path):
        if wanted(Key(trajectory.problem_id, trajectory.sample)):
            yield row(trajectory, choose)
