"""What happens to a group, the rollouts of one problem in one step, between being scored and being trained on.

1. *Resample-on-correct* (rStar2-Agent): of more rollouts than the group has places, failures are kept uniformly, and successes
   rather where few calls failed and the format is clean. Right and wrong ones keep their proportion.
2. *Void turns* (SimpleTIR): a rollout with a turn that has neither a complete call nor a final answer teaches nothing.
3. *Over-length*: nor, if asked for, does one that a token limit cut off.
4. *Equal groups*: nor does a group whose rewards are all the same.

What teaches nothing has a loss mask of zeros; its reward stays in the group's baseline.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from toolreason import formats
from toolreason.errors import SettingsError
from toolreason.train.rewards import Parts
from toolreason.types import Judgement, Source, StopReason, Trajectory
from toolreason.verify import extract

EQUAL = 1e-9  # rewards that differ by less are the same


class Mute(StrEnum):
    """Why no token of a rollout is trained."""

    ABORTED = "aborted"
    UNSCORED = "unscored"
    SILENT = "silent"  # no token of it is the model's
    VOID = "void"
    OVER_LENGTH = "over_length"
    EQUAL = "equal"


@dataclass(slots=True)
class Member:
    """One rollout of a group. `reward` is the weighed sum of `parts`, None for who is no member of the baseline.

    `mute`: why its mask is all zeros, None where it is trained. `hinted`: it was rolled out with hints, to explore.
    """

    trajectory: Trajectory
    parts: Parts
    reward: float | None
    mute: Mute | None = None
    hinted: bool = False

    @property
    def right(self) -> bool:
        verdict = self.trajectory.verdict
        return verdict is not None and verdict.judgement is Judgement.CORRECT


def void(trajectory: Trajectory) -> bool:
    """Whether a turn of the model ended with neither a complete call nor a final answer. Only the last can have: a turn that a
    result follows was a call, and where the model was not asked again after a result there is no turn.
    """
    if trajectory.stop is StopReason.ANSWERED:
        return False
    last = trajectory.segments[-1] if trajectory.segments else None
    if last is None or last.source is not Source.MODEL:
        return False
    try:
        written = formats.get(str(trajectory.settings.get("format", "fenced")))
    except SettingsError:  # another package's way to write: what its strategy says has to do
        return trajectory.stop not in (StopReason.CALL_LIMIT, StopReason.TURN_LIMIT)
    answered = written.answered(extract.own_text(trajectory.segments))
    return not answered and written.call(formats.tail(trajectory.segments).rstrip()) is None


def over_length(trajectory: Trajectory) -> bool:
    return trajectory.stop in (StopReason.LENGTH, StopReason.CONTEXT_FULL)


def equal(members: Sequence[Member]) -> bool:
    """Whether nobody in the group is better than another: those without a reward do not count."""
    rewards = [member.reward for member in members if member.reward is not None]
    return not rewards or max(rewards) - min(rewards) < EQUAL


def failed(members: Sequence[Member]) -> bool:
    """Whether the group has been judged, and nobody was right."""
    return any(member.reward is not None for member in members) and not any(member.right for member in members)


def mute(members: Sequence[Member], *, void_turns: bool = True, too_long: bool = False, same: bool = True) -> None:
    """Say of each member why it is not trained; the first reason counts."""
    everyone = same and equal(members)
    for member in members:
        trajectory = member.trajectory
        if trajectory.stop is StopReason.ABORTED:
            member.mute = Mute.ABORTED
        elif member.reward is None:
            member.mute = Mute.UNSCORED
        elif not trajectory.tokens(Source.MODEL):
            member.mute = Mute.SILENT
        elif void_turns and void(trajectory):
            member.mute = Mute.VOID
        elif too_long and over_length(trajectory):
            member.mute = Mute.OVER_LENGTH
        elif everyone:
            member.mute = Mute.EQUAL


def blemish(trajectory: Trajectory) -> float:
    """How far a success is from a clean one: the share of calls that failed (a half without a call), and 1 for format faults."""
    calls = trajectory.cells
    errors = sum(not cell.result.ok for cell in calls) / len(calls) if calls else 0.5
    return errors + float(bool(trajectory.faults))


def resample(members: Sequence[Member], keep: int, draw: random.Random) -> list[Member]:
    """`keep` of these, in their order; the rest is not trained on. Who has no reward is kept only where the others are too few."""
    right = [member for member in members if member.reward is not None and member.right]
    wrong = [member for member in members if member.reward is not None and not member.right]
    rest = [member for member in members if member.reward is None]
    places = min(keep, len(right) + len(wrong))
    share = round(places * len(right) / (len(right) + len(wrong))) if right or wrong else 0
    share = min(max(share, places - len(wrong), min(len(right), 1)), len(right), places)
    if wrong and share == places > 1:
        share -= 1  # one failure stays, or there would be nothing to tell the successes from
    clean = sorted(right, key=lambda one: -(draw.random() ** (0.1 + blemish(one.trajectory))))
    kept = [*clean[:share], *draw.sample(wrong, places - share), *rest[: keep - places]]
    return [member for member in members if any(member is one for one in kept)]
