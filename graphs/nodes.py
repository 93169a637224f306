"""The nodes that the rollout graphs share: begin, think, act, hint, end, and the route between them.

Each node carries out one action of the strategy's decision. The decision is pure, so the route computes it to choose the node and
the node computes it again to learn the details. Whatever is sampled or inserted is appended; only the end of the last segment is
ever taken back, by whole tokens, before a hint or a result goes there.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from contextvars import copy_context
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Generic

from langgraph.runtime import Runtime
from langgraph.types import RetryPolicy

from toolreason import formats, tracing
from toolreason.errors import CapabilityError, PolicyError, SandboxError
from toolreason.graphs import review, splice
from toolreason.graphs.events import Event, emit
from toolreason.graphs.state import RolloutContext, RolloutState, Unseen, trajectory
from toolreason.policies.base import Completion
from toolreason.strategies import prompts
from toolreason.strategies.base import Act, Action, Build, Decide, End, Insert, SettingsT, Think, View, as_dict
from toolreason.tools import core
from toolreason.types import Cell, CellResult, Outcome, ReferenceKind, Segment, Source, cells

TRY_AGAIN = (RetryPolicy(initial_interval=0.2, max_attempts=3, retry_on=(PolicyError, SandboxError)),)
CHANGED = "[a person changed the code before it ran, to:\n{code}\nwhich gave:]\n"


@dataclass(frozen=True)
class Nodes(Generic[SettingsT]):
    """The nodes of one strategy. `wording` names its prompt, `written` the format that its faults are read by."""

    strategy: str
    decide: Decide[SettingsT]
    settings: SettingsT
    wording: str
    written: formats.Format

    async def route(self, state: RolloutState, runtime: Runtime[RolloutContext]) -> str:
        match self.decide(view_of(state, runtime), self.settings):
            case Think():
                return "think"
            case Act():
                return "act"
            case Insert():
                return "hint"
            case Build():
                return "build"
            case End():
                return "end"

    async def begin(self, state: RolloutState, runtime: Runtime[RolloutContext]) -> RolloutState:
        problem, context = state["problem"], runtime.context
        segment = context.policy.prompt(prompts.messages(problem, self.wording, self.settings.system))
        return {
            "key": state.get("key") or uuid.uuid4().hex,
            "segments": [segment],
            "taken_back": [],
            "asked": 0,
            "seed": f"{context.sampling.seed}:{problem.id}",
            "template_thinks": context.policy.thinks,
            "timings": {"started": time.time()},
            **_nothing_said(),
        }

    async def think(self, state: RolloutState, runtime: Runtime[RolloutContext]) -> RolloutState:
        action = self.action(state, runtime, Think)
        view = view_of(state, runtime)
        started = time.perf_counter()
        completion = await self._sample(view, action, runtime)
        segments = list(view.segments)
        if completion.token_ids or completion.text:
            segments.append(splice.spoken(runtime.context.policy, segments, completion))
        return {
            "segments": segments,
            "asked": view.turns + 1,
            "finish": completion.finish,
            "stop_string": completion.stop,
            "end_characters": splice.end_characters(runtime.context.policy, segments[-1], completion),
            "timings": spent(state, "sample", started),
        }

    async def _sample(self, view: View, action: Think, runtime: Runtime[RolloutContext]) -> Completion:
        """One call of the policy; what it streamed is taken back from the stream if it fails, since it is tried again."""
        context, streamed = runtime.context, 0
        here = copy_context()  # the stream's writer works in this node's context only, and an engine's thread calls from none

        def on_text(text: str) -> None:
            nonlocal streamed
            streamed += len(text)
            here.run(emit, runtime, Event(kind="text", source=Source.MODEL.value, text=text))

        try:
            completion: Completion = await tracing.sample(
                context.policy,
                view.segments,
                context.sampling,
                max_tokens=view.left(self.settings),
                stop=action.stops,
                seed=seed_of(view.seed, view.turns),
                on_text=on_text,
            )
        except PolicyError:
            emit(runtime, Event(kind="cut", characters=streamed))
            raise
        return completion

    async def act(self, state: RolloutState, runtime: Runtime[RolloutContext]) -> RolloutState:
        action = self.action(state, runtime, Act)
        return await self.cell(state, runtime, action.code)

    async def cell(self, state: RolloutState, runtime: Runtime[RolloutContext], code: str) -> RolloutState:
        """Run this code and insert its result."""
        sessions = runtime.context.sessions
        if sessions is None:
            raise CapabilityError(f"strategy {self.strategy!r} runs code: give its context `sessions`, e.g. a SessionBook")
        segments = splice.without_end(state, runtime.context.policy)
        done = cells(segments)
        call_id = f"{state['key']}:{len(done)}"
        decision = review.ask(code, call_id) if runtime.context.review else review.Decision(code)
        emit(runtime, Event(kind="call", call_id=call_id, code=code))
        started = time.perf_counter()
        if decision.code is None:
            result = CellResult(Outcome.REFUSED, error=decision.message)
        else:
            files = await core.install(sessions, state["key"], state["problem"].attachments)
            result = await tracing.execute(
                sessions,
                state["key"],
                call_id,
                decision.code,
                history=[*files, *history(done, state.get("unseen", []))],
                stateful=bool(getattr(self.settings, "stateful", True)),
                timeout_s=getattr(self.settings, "cell_timeout_s", None),
            )
            if decision.code != code:
                code, changed = decision.code, CHANGED.format(code=decision.code.strip())
                result = replace(result, stdout=f"{changed}{result.stdout}")
        _tell_cut(runtime, state, segments)  # not before: a call that fails is tried again from the same state
        emit(runtime, Event(kind="result", call_id=call_id, outcome=result.outcome.value, text=formats.feedback(result)))
        text = self.written.result(result, formats.tail(segments))
        cell = Cell(call_id, code, result)
        taken_back = splice.taken_back(state, segments)
        segments.append(_streamed(runtime, splice.inserted(runtime.context.policy, segments, text, Source.TOOL, cell)))
        return {"segments": segments, "taken_back": taken_back, "timings": spent(state, "tool", started), **_nothing_said()}

    async def hint(self, state: RolloutState, runtime: Runtime[RolloutContext]) -> RolloutState:
        action = self.action(state, runtime, Insert)
        policy = runtime.context.policy
        if not policy.exact:
            raise CapabilityError(
                f"strategy {self.strategy!r} writes hints into the model's own text, which {policy.name} cannot continue: "
                "use an exact policy, `vllm:URL` or `transformers:NAME`"
            )
        segments = splice.take_back(state, policy, action.cut_at)
        taken_back = splice.taken_back(state, segments, action.ended)
        _tell_cut(runtime, state, segments)
        lead = splice.lead(segments[-1], action.lead)
        segments.append(_streamed(runtime, splice.inserted(runtime.context.policy, segments, action.text, Source.HINT, lead=lead)))
        return {"segments": segments, "taken_back": taken_back, **_nothing_said()}

    async def end(self, state: RolloutState, runtime: Runtime[RolloutContext]) -> RolloutState:
        action = self.action(state, runtime, End)
        if runtime.context.sessions is not None:
            await runtime.context.sessions.release(state["key"])
        faults = self.written.faults(splice.without_end(state, runtime.context.policy))
        finished = trajectory(state, runtime.context, self.strategy, as_dict(self.settings), action.reason, faults=faults)
        return {"stop": action.reason, "trajectory": finished}

    def action(self, state: RolloutState, runtime: Runtime[RolloutContext], kind: type[Any]) -> Any:
        action: Action = self.decide(view_of(state, runtime), self.settings)
        assert isinstance(action, kind), f"the graph of {self.strategy!r} routes {action} to the node for {kind.__name__}"
        return action


def seed_of(rollout: str, call: int) -> int:
    """With what a rollout's call of the policy draws: its own for each problem, seed (the `seed` of the state) and call; 31 bits.

    Problems that shared a seed would draw with the same numbers, and all go wrong, or right, together.
    """
    return int.from_bytes(sha256(f"{rollout}:{call}".encode("utf-8", "replace")).digest()[:4]) >> 1


def view_of(state: RolloutState, runtime: Runtime[RolloutContext]) -> View:
    return View(
        tuple(state.get("segments", ())),
        state.get("finish"),
        state.get("stop_string"),
        state.get("end_characters", 0),
        tuple(state.get("taken_back", ())),
        state.get("seed", ""),
        state["problem"].domain,
        state["problem"].reference.kind is ReferenceKind.CODE,
        state.get("asked", 0),
        sum(one.spent for one in state.get("aside", ())),
        tooling.tickets if (tooling := state.get("tooling")) else 0,
        tuple(fault["tool"] for fault in state.get("failing", ())),
        state.get("template_thinks", False),
        runtime.context.policy.decode if runtime.context.policy.exact else None,
    )


def history(done: Sequence[Cell], unseen: Sequence[Unseen] = ()) -> list[tuple[str, str]]:
    """The cells whose effects are in the session's state, in the order in which they ran: call id and code."""
    ran: list[tuple[str, str]] = []
    for number in range(len(done) + 1):
        ran += [(one["call_id"], one["code"]) for one in unseen if one["after"] == number]
        ran += [(cell.call_id, cell.code) for cell in done[number : number + 1] if cell.result.outcome.committed]
    return ran


def _nothing_said() -> RolloutState:
    """The last segment is not the model's any more."""
    return {"finish": None, "stop_string": None, "end_characters": 0}


def spent(state: RolloutState, part: str, started: float) -> dict[str, float]:
    timings = dict(state.get("timings", {}))
    timings[part] = timings.get(part, 0.0) + time.perf_counter() - started
    return timings


def _tell_cut(runtime: Runtime[RolloutContext], state: RolloutState, kept: list[Segment]) -> None:
    """Take back in the stream what was taken back from the segments."""
    lost = sum(len(segment.text) for segment in state["segments"]) - sum(len(segment.text) for segment in kept)
    if lost:
        emit(runtime, Event(kind="cut", characters=lost))


def _streamed(runtime: Runtime[RolloutContext], segment: Segment) -> Segment:
    """The segment, told to the stream."""
    emit(runtime, Event(kind="text", source=segment.source.value, text=segment.text))
    return segment
