"""UCT's online build loop as a state machine of its own (arXiv 2602.01983): a build ticket becomes a tested tool, or is refused.

write → test → examine → review → keep        The gate and the trial are one node. What is found wanting goes back to `write`,
  ↑________________________|  ↘ end           with the reasons, as often as there are attempts.

A repair ticket keeps the tool's tests and adds the call that failed: nobody writes tests for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from toolreason.errors import InputError
from toolreason.graphs.nodes import TRY_AGAIN
from toolreason.policies.base import Message, Policy
from toolreason.tools import signature, suites, writing
from toolreason.tools.admission import Admission, examine, settle
from toolreason.tools.asking import ask, code_block, said
from toolreason.tools.package import Status, Ticket, ToolPackage
from toolreason.tools.workshop import Workshop
from toolreason.types import Sampling, Trajectory

SEED_STRIDE = 31
HOLDS = "it holds numbers or words of this problem: make them parameters, and test other cases"
NO_BLOCK = "there was no closed ```python block in the answer"


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
    """`repaired` is the tool that a repair ticket is about, `error` how its call ended. `seed` is the build's own."""

    ticket: Ticket
    repaired: ToolPackage | None
    error: str
    seed: int


class BuildOutput(TypedDict, total=False):
    """`package`: the version that the library keeps now and offers, None where the ticket was refused: `reasons`, of the last
    attempt. `attempts`: how many there were. `aside`: the policy's calls.
    """

    package: ToolPackage | None
    reasons: list[str]
    attempts: int
    aside: list[Trajectory]


class BuildState(BuildInput, BuildOutput, total=False):
    """`advice`: why the attempt before this one was refused."""

    code: str
    tests: str
    advice: list[str]


def build() -> StateGraph[BuildState, BuildContext, BuildInput, BuildOutput]:
    """The graph, not compiled. Its context is a `BuildContext`."""
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(BuildState, BuildContext, input_schema=BuildInput, output_schema=BuildOutput)
    graph.add_node("write", write, retry_policy=TRY_AGAIN)
    graph.add_node("test", test, retry_policy=TRY_AGAIN)
    graph.add_node("examine", examine_, retry_policy=TRY_AGAIN)
    graph.add_edge(START, "write")
    graph.add_conditional_edges("write", _after("test"), ["test", "write", END])
    graph.add_conditional_edges("test", _after("examine"), ["examine", "write", END])
    graph.add_conditional_edges("examine", _again, ["write", END])
    return graph


async def write(state: BuildState, runtime: Runtime[BuildContext]) -> BuildState:
    """The code, in a call of its own."""
    ticket, repaired, reasons = state["ticket"], state.get("repaired"), state.get("reasons", [])
    if repaired is not None:
        messages = writing.repair(ticket, repaired, state.get("error", ""), reasons)
    else:
        messages = writing.code(ticket, reasons)
    answer = await _ask(state, runtime, messages, "build:code")
    attempts = state.get("attempts", 0) + 1
    update: BuildState = {"attempts": attempts, "aside": [*state.get("aside", []), answer], "package": None, "reasons": []}
    update["advice"] = reasons
    code = code_block(said(answer))
    if code is None:
        return {**update, "reasons": [NO_BLOCK]}
    try:
        signature.read(code, repaired.name if repaired else None)
    except InputError as error:
        return {**update, "reasons": [str(error)]}
    return {**update, "code": code}


async def test(state: BuildState, runtime: Runtime[BuildContext]) -> BuildState:
    """The tests, in a second call that does not see the code; a repair's are the old ones and the call that failed."""
    repaired, ticket = state.get("repaired"), state["ticket"]
    if repaired is not None:
        return {"tests": suites.join(repaired.tests, suites.case(repaired.name, ticket.failing, repaired.version + 1))}
    answer = await _ask(state, runtime, writing.suite(ticket, state["code"], state.get("advice", [])), "build:tests")
    update: BuildState = {"aside": [*state.get("aside", []), answer]}
    tests = code_block(said(answer))
    return {**update, "reasons": [f"the tests: {NO_BLOCK}"]} if tests is None else {**update, "tests": tests}


async def examine_(state: BuildState, runtime: Runtime[BuildContext]) -> BuildState:
    """Gate and trial, then the critic, then the library."""
    context = runtime.context
    library = context.workshop.library
    try:
        package = await _package(state, runtime)
        seen = await examine(library, package, context.workshop.sandbox, answer=context.answers, settings=context.workshop.gate)
    except InputError as error:
        return {"reasons": [str(error)]}
    update, against = await _reviewed(state, runtime, seen)
    kept = await settle(library, seen, by=context.policy.name, against=against)
    if kept.admitted:
        return {**update, "package": kept.package, "reasons": []}
    return {**update, "reasons": _told(seen, kept.reasons)}


def _told(seen: Admission, reasons: Sequence[str]) -> list[str]:
    """The reasons as the model may read them: that a number is the problem's answer would give the answer away."""
    secret = {str(finding) for finding in seen.gate.findings if finding.rule == "answer"}
    told = [HOLDS if reason in secret else reason for reason in reasons]
    return list(dict.fromkeys(told))


async def _package(state: BuildState, runtime: Runtime[BuildContext]) -> ToolPackage:
    """The candidate. Under a name that is taken it has to pass that tool's tests too: it would stand in its place."""
    context, repaired = runtime.context, state.get("repaired")
    if repaired is not None:
        made = signature.edited(repaired, state["code"], state["tests"], author=context.policy.name)
        return replace(made, ticket=state["ticket"])
    made = signature.package(state["code"], state["tests"], author=context.policy.name, ticket=state["ticket"])
    there = await _offered(context.workshop, made.name)
    if there is not None and there.parameters != made.parameters:
        raise InputError(f"there is a tool {made.name} already, which takes other arguments: give this one another name")
    if there is None:
        return made
    return signature.package(
        made.code,
        suites.join(there.tests, made.tests),
        category=there.category,
        author=made.author,
        ticket=made.ticket,
        parents=(there.identity,),
    )


async def _offered(workshop: Workshop, name: str) -> ToolPackage | None:
    """The tool of this name, if it is offered or was."""
    try:
        head = await workshop.library.get(name)
    except InputError:
        return None
    return None if head.status is Status.CANDIDATE else head


async def _reviewed(state: BuildState, runtime: Runtime[BuildContext], seen: Admission) -> tuple[BuildState, tuple[str, ...]]:
    """What the critic says against it. Only what passed the trial is shown to one."""
    if not (seen.admitted and runtime.context.critic):
        return {}, ()
    answer = await _ask(state, runtime, writing.critic(state["ticket"], seen.package), "build:critic")
    return {"aside": [*state.get("aside", []), answer]}, writing.review(said(answer)).against


async def _ask(state: BuildState, runtime: Runtime[BuildContext], messages: Sequence[Message], purpose: str) -> Trajectory:
    context = runtime.context
    calls = len(state.get("aside", []))
    return await ask(
        context.policy,
        messages,
        purpose=purpose,
        problem_id=state["ticket"].problem_id,
        sampling=context.sampling,
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
