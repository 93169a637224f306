"""What is logged of a step's rollouts, besides TRL's own figures: means over the rollouts of this process."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from toolreason.train import groups
from toolreason.train.groups import Member, Mute
from toolreason.types import Source, StopReason, Trajectory


def measures(done: Sequence[Sequence[Member]], seconds: float) -> dict[str, float]:
    """By name. `seconds` is the wall time of the rollouts; `sample_s` and `tool_s` are sums over rollouts, which run at once.

    `tool_errors_in_right` is the share of calls that failed in rollouts with a right answer: under a reward for the outcome alone,
    10 to 15 % are usual. Shares of nothing are left out.
    """
    members = [member for group in done for member in group]
    whole = [m.trajectory for m in members if m.trajectory.stop is not StopReason.ABORTED]
    right = [cell for m in members if m.reward is not None and m.right for cell in m.trajectory.cells]
    found: dict[str, float | None] = {
        "accuracy": _mean([float(m.right) for m in members if m.reward is not None]),
        "scored": float(sum(m.reward is not None for m in members)),
        "calls": _mean([len(one.cells) for one in whole]),
        "with_calls": _mean([float(bool(one.cells)) for one in whole]),
        "tokens/model": _mean([one.tokens(Source.MODEL) for one in whole]),
        "tokens/all": _mean([one.tokens() for one in whole]),
        "tool_errors": _mean([float(not cell.result.ok) for one in whole for cell in one.cells]),
        "tool_errors_in_right": _mean([float(not cell.result.ok) for cell in right]),
        "format_faults": _mean([float(bool(one.faults)) for one in whole]),
        "void": _mean([float(groups.void(one)) for one in whole]),
        "over_length": _mean([float(groups.over_length(one)) for one in whole]),
        "equal_groups": float(sum(groups.equal(group) for group in done)),
        "groups": float(len(done)),
        "hinted": float(sum(m.hinted for m in members)),
        "trained": _mean([float(m.mute is None) for m in members]),
        **{f"muted/{why}": float(sum(m.mute is why for m in members)) for why in Mute},
        "seconds": seconds,
        "sample_s": _spent(whole, "sample"),
        "tool_s": _spent(whole, "tool"),
    }
    return {f"rollout/{name}": value for name, value in found.items() if value is not None}


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _spent(whole: Sequence[Trajectory], part: str) -> float:
    return sum(one.timings.get(part, 0.0) for one in whole)
