"""The state of a rollout, plain data that any checkpointer can store, and the context that brings the live things."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, TypedDict

from toolreason.execution.base import Sessions
from toolreason.policies.base import Finish, Policy
from toolreason.types import Problem, Sampling, Segment, StopReason, TakenBack, Trajectory


class RolloutInput(TypedDict, total=False):
    """What a rollout starts from. `sample` numbers the rollouts of one problem; `key` names this one and its calls (default: a
    new id; give your own where a run resumed from before its first step has to have the same)."""

    problem: Problem
    sample: int
    key: str


class RolloutOutput(TypedDict):
    trajectory: Trajectory


class RolloutState(RolloutInput, total=False):
    """`finish`, `stop_string` and `end_characters` say how the last model segment ended, as in `strategies.base.View`, which also
    explains `taken_back`, `asked`, `seed` and `template_thinks`."""

    segments: list[Segment]
    taken_back: list[TakenBack]
    asked: int
    seed: str
    template_thinks: bool
    finish: Finish | None
    stop_string: str | None
    end_characters: int
    timings: dict[str, float]
    stop: StopReason
    trajectory: Trajectory


@dataclass(frozen=True)
class RolloutContext:
    """What a rollout runs with: given at run time, never stored. `sessions` may be None for strategies without tools."""

    policy: Policy
    sessions: Sessions | None = None
    sampling: Sampling = field(default_factory=Sampling)


def trajectory(
    state: RolloutState,
    context: RolloutContext,
    strategy: str,
    settings: dict[str, Any],
    stop: StopReason,
    *,
    faults: tuple[str, ...] = (),
    error: str | None = None,
) -> Trajectory:
    """What the state amounts to, also when the rollout was aborted in the middle. Timings are seconds; `total` is wall time."""
    timings = dict(state.get("timings", {}))
    timings["total"] = time.time() - timings.pop("started", time.time())
    return Trajectory(
        id=state["key"],
        problem_id=state["problem"].id,
        sample=state.get("sample", 0),
        strategy=strategy,
        settings=settings,
        policy=context.policy.name,
        sampling=context.sampling,
        segments=tuple(state.get("segments", ())),
        stop=stop,
        faults=faults,
        timings=timings,
        error=error,
        taken_back=tuple(state.get("taken_back", ())),
    )
