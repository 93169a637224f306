"""Rewards of function calling (ARTIST, arXiv 2505.01441), each a part of its own. Weigh them by name in `toolreason train rl`.

    state           0.5 x the share of the environment's attributes that end as expected
    changed         the same of those attributes alone that the expected calls or the model's change (ours): in its place, since a
                    model that does nothing at all has most of `state`
    function        0.5 x the share of the expected calls that were made: name and arguments
    format_relaxed  0.1 x the share of the pairs of tags that are there: reasoning, tool
    format_strict   0.1 if every message is reasoning and then one call, or reasoning and then words
    tool_success    calls that went well / calls; 0 without a call (not the paper's, to be looked at)

State and function are parts of the verdict, which the verifier makes in a sandbox (`toolreason.functions.judge`). A rollout that
was aborted or could not be judged has no reward.
"""

from __future__ import annotations

from toolreason.functions import cells, format
from toolreason.types import Judgement, StopReason, Trajectory

_HERE = "toolreason.train.function_rewards"
ARTIST = {f"{_HERE}:{name}": 1.0 for name in ("state", "function", "format_relaxed", "format_strict")}
"""The paper's sum, as weights by name."""


def state(trajectory: Trajectory) -> float | None:
    return _half(trajectory, "state")


def changed(trajectory: Trajectory) -> float | None:
    return _half(trajectory, "changed")


def function(trajectory: Trajectory) -> float | None:
    return _half(trajectory, "function")


def format_relaxed(trajectory: Trajectory) -> float | None:
    return 0.1 * format.share_of_tags(trajectory.segments) if _judged(trajectory) else None


def format_strict(trajectory: Trajectory) -> float | None:
    return 0.1 * format.strict(trajectory.segments) if _judged(trajectory) else None


def tool_success(trajectory: Trajectory) -> float | None:
    if not _judged(trajectory):
        return None
    went = [status for cell in trajectory.cells for status in cells.statuses(cell)]
    return went.count(cells.OK) / len(went) if went else 0.0


def _half(trajectory: Trajectory, part: str) -> float | None:
    verdict = trajectory.verdict
    if verdict is None or not _judged(trajectory) or part not in verdict.parts:
        return None
    return 0.5 * verdict.parts[part]


def _judged(trajectory: Trajectory) -> bool:
    verdict = trajectory.verdict
    return verdict is not None and verdict.judgement is not Judgement.UNSCORED and trajectory.stop is not StopReason.ABORTED
