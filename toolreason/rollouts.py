"""One rollout from problem to trajectory: the shortest way to run a strategy, and what collections run many of."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from langchain_core.runnables import RunnableConfig

from toolreason import scaling, tracing
from toolreason.errors import InfrastructureError, PolicyError, SandboxError
from toolreason.execution.base import Sessions
from toolreason.graphs.events import Event
from toolreason.graphs.state import RolloutContext, RolloutState, trajectory
from toolreason.policies.base import Policy
from toolreason.strategies.base import Settings, Strategy, as_dict, load
from toolreason.tools.workshop import Workshop, Workshops
from toolreason.types import Problem, Reference, ReferenceKind, Sampling, StopReason, Trajectory

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

TOP_LOGPROBS = 20  # what vLLM gives by default at most


async def rollout(
    problem: Problem,
    *,
    strategy: Strategy[Any] | str,
    policy: Policy,
    sessions: Sessions | None = None,
    sampling: Sampling | None = None,
    settings: Settings | None = None,
    sample: int = 0,
    workshop: Workshop | None = None,
    on_event: Callable[[Event], None] | None = None,
    key: str | None = None,
) -> Trajectory:
    """Run a strategy on a problem. The verdict is not part of it: a verifier adds it. `workshop`: for strategies that keep tools.
    `key` becomes the trajectory's id (default: a new one).

    Raises InputError when the policy or the settings do not fit the strategy. A part that fails and goes on failing gives a
    trajectory with `StopReason.ABORTED`, its `error`, and the segments up to there; so does a session that cannot be given back.
    Cancellation ends the rollout's session.
    """
    plan = load(strategy) if isinstance(strategy, str) else strategy
    chosen = settings if settings is not None else plan.settings()
    told = _in_this_loop(on_event) if on_event is not None else _unheard
    context = RolloutContext(policy, sessions, _with_certainties(sampling or Sampling(), chosen), workshop, on_event=told)
    state: RolloutState = {"problem": problem, "sample": sample, "key": key or uuid.uuid4().hex}
    with tracing.rollout(plan.name, policy.name, context.sampling, as_dict(chosen), state["key"]) as span:
        done = await _run(plan, chosen, context, state)
        tracing.ended(span, done)
    return done


async def _run(plan: Strategy[Any], settings: Settings, context: RolloutContext, state: RolloutState) -> Trajectory:
    """The graph from this state to its end, or to where a part failed for good."""
    config, failed = RunnableConfig(recursion_limit=steps_of(settings)), None
    try:
        async for values in compiled(plan, settings).astream(dict(state), config, context=context, stream_mode="values"):
            state = cast(RolloutState, values)
    except InfrastructureError as error:
        failed = error
    finally:
        unreleased = await _release(context.sessions, state["key"])
    if (why := failed or unreleased) is None:
        return state["trajectory"]
    told = f"{type(why).__name__}: {why}"
    return trajectory(state, context, plan.name, as_dict(settings), StopReason.ABORTED, error=told)


def _unheard(event: Event) -> None:
    """Nobody asked."""


def _in_this_loop(on_event: Callable[[Event], None]) -> Callable[[Event], None]:
    """The same, called in this event loop and in order, whichever thread tells."""
    loop, home = asyncio.get_running_loop(), threading.get_ident()

    def told(event: Event) -> None:
        if threading.get_ident() == home:
            on_event(event)
        else:
            loop.call_soon_threadsafe(on_event, event)

    return told


def failure(done: Trajectory) -> InfrastructureError:
    """Why a rollout was aborted, as the error that it was."""
    told = done.error or "the rollout was aborted"
    name, _, why = told.partition(": ")
    kind = {one.__name__: one for one in (PolicyError, SandboxError)}.get(name)
    return kind(why) if kind else InfrastructureError(told)


def _with_certainties(sampling: Sampling, settings: Settings) -> Sampling:
    """Certainties are asked for where the settings choose a round by them."""
    wanted = getattr(settings, "answer", None) == "certain" and not sampling.top_logprobs
    return replace(sampling, top_logprobs=TOP_LOGPROBS) if wanted else sampling


async def _release(sessions: Sessions | None, key: str) -> InfrastructureError | None:
    """End the rollout's session. A failure is told, not raised: it must not hide what ended the rollout, nor end its neighbours."""
    try:
        if sessions is not None:
            await sessions.release(key)
    except InfrastructureError as error:
        return error
    return None


def solve(
    question: str,
    *,
    answer: str | None = None,
    strategy: str = "hint_infer",
    policy: str = "transformers:qwen2.5-coder-0.5b-instruct",
    sandbox: str = "docker",
    sampling: Sampling | None = None,
    settings: Settings | None = None,
) -> Trajectory:
    """Answer one question: the synchronous door. Opens the policy and the sandbox by name, and closes both.

    With `answer`, the gold answer in LaTeX or as a number, the trajectory has its verdict. Raises SetupError when the model or the
    sandbox's image is missing, InputError for a wrong setting; see `rollout` for the rest. Not for use inside an event loop.
    """
    reference = Reference(ReferenceKind.MATH, answer) if answer is not None else Reference()
    return asyncio.run(_solve(Problem("question", question, reference), strategy, policy, sandbox, sampling, settings))


async def _solve(
    problem: Problem, strategy: str, policy: str, sandbox: str, sampling: Sampling | None, settings: Settings | None
) -> Trajectory:
    from toolreason.execution import SessionBook, open_sandbox
    from toolreason.policies import open_policy
    from toolreason.verify import Verifier

    engine = await open_policy(policy)
    try:
        async with open_sandbox(sandbox) as box, Verifier(sandbox=box) as verifier, Workshops(box) as workshops:
            plan = load(strategy)
            chosen = settings if settings is not None else plan.settings()
            done = await rollout(
                problem,
                strategy=plan,
                policy=engine,
                sessions=SessionBook(box),
                sampling=sampling,
                settings=chosen,
                workshop=await workshops.of(chosen),
            )
            return await scaling.judge(problem, done, verifier) if problem.reference.answer else done
    finally:
        await engine.aclose()


def steps_of(settings: Settings) -> int:
    """How many steps of its graph a rollout takes at most."""
    return 4 * settings.max_turns + 2 * getattr(settings, "max_tickets", 0) + 10


@lru_cache(maxsize=32)
def compiled(strategy: Strategy[Any], settings: Settings) -> CompiledStateGraph[Any, Any, Any, Any]:
    """The strategy's graph, without a checkpointer of its own."""
    return strategy.build(settings).compile(name=strategy.name)
