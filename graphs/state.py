"""The state of a rollout, plain data that any checkpointer can store, and the context that brings the live things."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypedDict

from toolreason.execution.base import Sessions
from toolreason.graphs.events import Event
from toolreason.policies.base import Finish, Policy
from toolreason.tools.workshop import Workshop
from toolreason.types import Problem, Sampling, Segment, StopReason, TakenBack, Tooling, Trajectory


class RolloutInput(TypedDict, total=False):
    """What a rollout starts from. `sample` numbers the rollouts of one problem; `key` names this one and its calls (default: a
    new id; give your own where a run resumed from before its first step has to have the same)."""

    problem: Problem
    sample: int
    key: str


class RolloutOutput(TypedDict):
    trajectory: Trajectory


class Unseen(TypedDict):
    """A cell that ran and stands in no segment: after the first `after` cells that do. `tools` are those that it installed."""

    after: int
    call_id: str
    code: str
    tools: list[str]


class Fault(TypedDict):
    """A tool of the library that a cell found faulty: the version, the call as source, how it ended."""

    tool: str
    call: str
    error: str


class RolloutState(RolloutInput, total=False):
    """`finish`, `stop_string` and `end_characters` say how the last model segment ended, as in `strategies.base.View`, which also
    explains `taken_back`, `asked`, `seed` and `template_thinks`. `aside` and `tooling` become the trajectory's; `failing` are the
    faults of the last cell; `noted` are, by tool, calls, failed ones, faults and seconds that the session has told of; `report` is
    what there is to tell of a build."""

    segments: list[Segment]
    taken_back: list[TakenBack]
    asked: int
    seed: str
    template_thinks: bool
    finish: Finish | None
    stop_string: str | None
    end_characters: int
    unseen: list[Unseen]
    aside: list[Trajectory]
    tooling: Tooling
    failing: list[Fault]
    noted: dict[str, list[float]]
    report: str
    timings: dict[str, float]
    stop: StopReason
    trajectory: Trajectory


@dataclass(frozen=True)
class RolloutContext:
    """What a rollout runs with: given at run time, never stored. `sessions` may be None for strategies that run no code, `workshop`
    for those that have no library of tools. `review`: a person decides on each cell before it runs (`graphs.review`).
    `on_event` is told what the custom stream would carry, which then does not; an engine's own thread may call it.
    """

    policy: Policy
    sessions: Sessions | None = None
    sampling: Sampling = field(default_factory=Sampling)
    workshop: Workshop | None = None
    review: bool = False
    on_event: Callable[[Event], Any] | None = None


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
        aside=tuple(state.get("aside", ())),
        tooling=state.get("tooling"),
    )
