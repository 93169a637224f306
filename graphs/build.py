"""UCT's online build loop as a state machine of its own (arXiv 2602.01983): a build ticket becomes a tested tool, or is refused.

reproduce → write → test → examine      Gate, trial and critic are one node. What is found wanting goes back to `write`, with the
     ↘ end    ↑_______________|  ↘ end  reasons, as often as there are attempts.

A repair ticket begins with `reproduce`: the call that failed is tried in a session of its own, on the tool as it is now. It keeps
the tool's tests and adds that call: nobody writes tests for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from toolreason.errors import InputError
from toolreason.graphs.nodes import TRY_AGAIN
from toolreason.policies.base import Message, Policy
from toolreason.tools import signature, suites, trial, writing
from toolreason.tools.admission import Admission, dependencies, examine, settle
from toolreason.tools.asking import ask, code_block, said
from toolreason.tools.candidate import candidate
from toolreason.tools.package import Status, Ticket, ToolPackage
from toolreason.tools.workshop import Workshop
from toolreason.types import Sampling, Trajectory

SEED_STRIDE = 31
HOLDS = "it holds numbers or words of this problem: make them parameters, and test other cases"
NO_BLOCK = "there was no closed ```python block in the answer"
NO_TOKENS = "the tokens of this rollout are used up"
TOO_DEEP = "it is nested too deep: write plain statements"
ROUNDS = 3  # of gate and trial, where others change the tool meanwhile


@dataclass(frozen=True)
class BuildContext:
    """What a build runs with. `answers`: texts that give the problem's answer away, which may not stand in a tool. Tokens: at most
    `call_tokens` a call and `most_tokens` in all. `critic`: whether one reads what passed the trial.
    """

    policy: Policy
    workshop: Workshop
    sampling: Sampling = field(default_factory=Sampling)
    answers: tuple[str, ...] = ()
    attempts: int = 3
    call_tokens: int = 800
    most_tokens: int = 1 << 30
    critic: bool = True


class BuildInput(TypedDict, total=False):
    """`error`: how the call of a repair ticket ended. `seed` is the build's own."""

    ticket: Ticket
    error: str
    seed: int


class BuildOutput(TypedDict, total=False):
    """`package`: the version that the library keeps now and offers, None where the ticket was refused: `reasons`, of the last
    attempt. `attempts`: how many there were; 0 for a repair that was not needed: of a `package` that others have mended, or of one
    whose failing call works. `aside`: the policy's calls.
    """

    package: ToolPackage | None
    reasons: list[str]
    attempts: int
    aside: list[Trajectory]


class BuildState(BuildInput, BuildOutput, total=False):
    """`repaired` is the tool that a repair ticket is about, `advice` why the attempt before this one was refused."""

    repaired: ToolPackage
    code: str
    tests: str
    advice: list[str]


def build() -> StateGraph[BuildState, BuildContext, BuildInput, BuildOutput]:
    """The graph, not compiled. Its context is a `BuildContext`."""
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(BuildState, BuildContext, input_schema=BuildInput, output_schema=BuildOutput)
    graph.add_node("reproduce", reproduce, retry_policy=TRY_AGAIN)
    graph.add_node("write", write, retry_policy=TRY_AGAIN)
    graph.add_node("test", test, retry_policy=TRY_AGAIN)
    graph.add_node("examine", examine_, retry_policy=TRY_AGAIN)
    graph.add_conditional_edges(START, lambda state: "reproduce" if state["ticket"].repairs else "write", ["reproduce", "write"])
    graph.add_conditional_edges("reproduce", lambda state: "write" if "repaired" in state else END, ["write", END])
    graph.add_conditional_edges("write", _after("test"), ["test", "write", END])
    graph.add_conditional_edges("test", _after("examine"), ["examine", "write", END])
    graph.add_conditional_edges("examine", _again, ["write", END])
    return graph


async def run(ticket: Ticket, context: BuildContext, *, error: str = "", seed: int = 0) -> BuildOutput:
    """The whole loop for one ticket, also from inside another graph. Raises PolicyError, SandboxError."""
    config = RunnableConfig(recursion_limit=4 * context.attempts + 8)
    given = BuildInput(ticket=ticket, error=error, seed=seed)
    alone = copy_context()
    alone.run(var_child_runnable_config.set, None)  # else it would take on how the graph around it is checkpointed
    done: BuildOutput = await asyncio.create_task(_compiled().ainvoke(given, config, context=context), context=alone)
    return done


@cache
def _compiled() -> Any:
    """Without a checkpointer, also where the task loop has one: a build that was cut off begins anew."""
    return build().compile(name="build", checkpointer=False)


async def reproduce(state: BuildState, runtime: Runtime[BuildContext]) -> BuildState:
    """Whether the tool, as it is now, fails the call by itself: the session that told of it ran other code too."""
    ticket, workshop = state["ticket"], runtime.context.workshop
    head = await workshop.library.get(ticket.repairs.partition("@")[0])
    nothing: BuildState = {"package": None, "reasons": [], "attempts": 0, "aside": []}
    if head.status not in (Status.ADMITTED, Status.BROKEN):
        return {**nothing, "reasons": [f"{head.identity} is {head.status}"]}
    tests = suites.case(head.name, ticket.failing, head.version + 1)
    try:
        needed = await dependencies(workshop.library, head, offered=False)
    except InputError as error:
        return {**nothing, "reasons": [str(error)]}
    report = await trial.run(replace(head, tests=tests), workshop.sandbox, needed=needed)
    if not (report.tests and all(one.outcome is trial.TestOutcome.PASSED for one in report.tests)):
        return {**nothing, "repaired": head}
    if head.status is Status.ADMITTED and head.identity != ticket.repairs:
        return {**nothing, "package": head}
    return {**nothing, "reasons": [f"{ticket.failing} works in a session of its own: something else was to blame"]}


async def write(state: BuildState, runtime: Runtime[BuildContext]) -> BuildState:
    """The code, in a call of its own."""
    ticket, repaired, reasons = state["ticket"], state.get("repaired"), state.get("reasons", [])
    if repaired is not None:
        messages = writing.repair(ticket, repaired, state.get("error", ""), reasons)
    else:
        messages = writing.code(ticket, reasons)
    answer = await _ask(state, runtime, messages, "build:code", writing.CODE)
    attempts = state.get("attempts", 0) + 1
    update: BuildState = {"attempts": attempts, "aside": [*state.get("aside", []), answer], "package": None, "reasons": []}
    update["advice"] = reasons
    code = code_block(said(answer))
    if code is None:
        return {**update, "reasons": [NO_BLOCK]}
    try:
        signature.read(code, repaired.name if repaired else None)
        writing.header(code)
    except InputError as error:
        return {**update, "reasons": [str(error)]}
    except RecursionError:
        return {**update, "reasons": [TOO_DEEP]}
    return {**update, "code": code}


async def test(state: BuildState, runtime: Runtime[BuildContext]) -> BuildState:
    """The tests, in a second call that does not see the code; a repair's are the old ones and the call that failed."""
    repaired, ticket = state.get("repaired"), state["ticket"]
    if repaired is not None:
        case = suites.case(repaired.name, ticket.failing, repaired.version + 1)
        return {"tests": suites.join(repaired.name, repaired.tests, case)}
    if _left(state, runtime.context) <= 0:
        return {"reasons": [NO_TOKENS]}
    answer = await _ask(
        state, runtime, writing.suite(ticket, state["code"], state.get("advice", [])), "build:tests", writing.begun(state["code"])
    )
    update: BuildState = {"aside": [*state.get("aside", []), answer]}
    tests = code_block(said(answer))
    return {**update, "reasons": [f"the tests: {NO_BLOCK}"]} if tests is None else {**update, "tests": tests}


async def examine_(state: BuildState, runtime: Runtime[BuildContext]) -> BuildState:
    """Gate and trial, then the critic, then the library. Again, without the critic, where another version came in between."""
    context, workshop = runtime.context, runtime.context.workshop
    update, against = BuildState(), tuple[str, ...]()
    for number in range(ROUNDS):
        try:
            package, over = await candidate(
                workshop.library,
                state["ticket"],
                state["code"],
                state["tests"],
                repaired=state.get("repaired"),
                author=context.policy.name,
            )
            seen = await examine(workshop.library, package, workshop.sandbox, answer=context.answers, settings=workshop.gate)
        except InputError as error:
            return {**update, "reasons": [str(error)]}
        except RecursionError:
            return {**update, "reasons": [TOO_DEEP]}
        if not number:
            update, against = await _reviewed(state, runtime, seen)
        try:
            kept = await settle(workshop.library, seen, by=context.policy.name, against=against, over=over)
        except InputError as error:
            update = {**update, "reasons": [str(error)]}
            continue
        if kept.admitted:
            return {**update, "package": kept.package, "reasons": []}
        return {**update, "reasons": _told(seen, kept.reasons)}
    return update


def _told(seen: Admission, reasons: Sequence[str]) -> list[str]:
    """The reasons as the model may read them: that a number is the problem's answer would give the answer away."""
    secret = {str(finding) for finding in seen.gate.findings if finding.rule == "answer"}
    told = [HOLDS if reason in secret else reason for reason in reasons]
    return list(dict.fromkeys(told))


async def _reviewed(state: BuildState, runtime: Runtime[BuildContext], seen: Admission) -> tuple[BuildState, tuple[str, ...]]:
    """What the critic says against it. Only what passed the trial is shown to one."""
    if not (seen.admitted and runtime.context.critic):
        return {}, ()
    if _left(state, runtime.context) <= 0:
        return {}, (NO_TOKENS,)
    answer = await _ask(state, runtime, writing.critic(state["ticket"], seen.package), "build:critic", writing.VERDICT)
    return {"aside": [*state.get("aside", []), answer]}, writing.review(said(answer)).against


async def _ask(
    state: BuildState, runtime: Runtime[BuildContext], messages: Sequence[Message], purpose: str, lead: str
) -> Trajectory:
    context = runtime.context
    calls = len(state.get("aside", []))
    return await ask(
        context.policy,
        messages,
        purpose=purpose,
        problem_id=state["ticket"].problem_id,
        sampling=context.sampling,
        lead=lead,
        max_tokens=max(1, min(context.call_tokens, _left(state, context))),
        seed=state.get("seed", 0) * SEED_STRIDE + calls,
    )


def _left(state: BuildState, context: BuildContext) -> int:
    return context.most_tokens - sum(one.spent for one in state.get("aside", []))


def _after(then: str) -> Any:
    def route(state: BuildState, runtime: Runtime[BuildContext]) -> str:
        return _again(state, runtime) if state.get("reasons") else then

    return route


def _again(state: BuildState, runtime: Runtime[BuildContext]) -> str:
    """Another attempt, if the last one was refused, and attempts and tokens are left."""
    context = runtime.context
    more = state.get("reasons") and state.get("attempts", 0) < context.attempts and _left(state, context) > 0
    return "write" if more else END
