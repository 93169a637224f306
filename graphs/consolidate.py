"""UCT's offline consolidation as a state machine of its own (arXiv 2602.01983): a library becomes smaller and better, or a plan
says how.

survey → duplicates → merge → classify → deprecate → plan → apply      `apply` only where the input asks for it.

Nothing is changed before `apply`, so a run that dies before has cost its time only, and one that dies there is gone on with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from toolreason.execution.base import Sandbox
from toolreason.graphs.nodes import TRY_AGAIN
from toolreason.policies.base import Policy
from toolreason.tools import applying, consolidation, merging, signature
from toolreason.tools.applying import Keep, nothing
from toolreason.tools.classify import Classifier
from toolreason.tools.consolidation import ConsolidationSettings
from toolreason.tools.gate import GateSettings
from toolreason.tools.health import Health, Run, Runs, each, health, run_all
from toolreason.tools.library import Library
from toolreason.tools.merging import Maker, Merge
from toolreason.tools.package import Status, ToolPackage
from toolreason.tools.plan import Action, Left, Plan, Step, projected
from toolreason.types import Sampling, Trajectory

Tell = Callable[[str, int, int], None]


def silent(what: str, done: int, of: int) -> None:
    """A `Tell` that tells nobody."""


@dataclass(frozen=True)
class ConsolidateContext:
    """What a consolidation runs with. `policy` may write tools that stand for several; None: one of them does. `place` is where the
    library lies, for the plan to say. `tell(what, done, of)` hears how it goes; `keep` is given the plan while it is applied.
    """

    library: Library
    sandbox: Sandbox
    policy: Policy | None = None
    settings: ConsolidationSettings = field(default_factory=ConsolidationSettings)
    sampling: Sampling = field(default_factory=Sampling)
    gate: GateSettings | None = None
    place: str = ""
    tell: Tell = silent
    keep: Keep = nothing


class ConsolidateInput(TypedDict, total=False):
    apply: bool


class ConsolidateOutput(TypedDict, total=False):
    """`aside`: the policy's calls."""

    plan: Plan
    aside: list[Trajectory]


class ConsolidateState(ConsolidateInput, ConsolidateOutput, total=False):
    """`runs` by the hash of the package; `exact` and `alike` are groups of names, best first; `steps` and `left` grow node by
    node.
    """

    runs: dict[str, Run]
    exact: list[list[str]]
    alike: list[list[str]]
    steps: list[Step]
    left: list[Left]


def build() -> StateGraph[ConsolidateState, ConsolidateContext, ConsolidateInput, ConsolidateOutput]:
    """The graph, not compiled. Its context is a `ConsolidateContext`."""
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(
        ConsolidateState, ConsolidateContext, input_schema=ConsolidateInput, output_schema=ConsolidateOutput
    )
    nodes = (survey, duplicates, merge, classify, deprecate, plan)
    for node in nodes:
        graph.add_node(node.__name__, node, retry_policy=TRY_AGAIN)
    graph.add_node("apply", apply)
    for one, other in zip((START, *(node.__name__ for node in nodes)), (node.__name__ for node in nodes), strict=False):
        graph.add_edge(one, other)
    graph.add_conditional_edges("plan", _then, ["apply", END])
    graph.add_edge("apply", END)
    return graph


async def survey(state: ConsolidateState, runtime: Runtime[ConsolidateContext]) -> ConsolidateState:
    """The tests of all tools on offer, run again."""
    context = runtime.context
    runs = await _run(context, await _offered(context), {}) if context.settings.tests else {}
    return {"runs": runs, "steps": [], "left": [], "aside": []}


async def duplicates(state: ConsolidateState, runtime: Runtime[ConsolidateContext]) -> ConsolidateState:
    """Exact ones by normalised tree, near ones by description and code."""
    exact, alike = await _alike(runtime.context, await _offered(runtime.context))
    return {"exact": exact, "alike": alike}


async def merge(state: ConsolidateState, runtime: Runtime[ConsolidateContext]) -> ConsolidateState:
    """One tool for each group, tried with the tests of all. What fails already is not merged."""
    context, settings = runtime.context, runtime.context.settings
    offered = await _offered(context)
    by_name = {one.name: one for one in offered if _passes(one, state["runs"])}
    groups = [[by_name[name] for name in group if name in by_name] for group in state["alike"]]
    groups = [group for group in groups if len(group) > 1] if settings.merge else []
    maker = Maker(context.library, context.sandbox, merging.users_of(offered), context.policy, context.sampling, gate=context.gate)
    done: dict[str, Merge] = {}

    async def one(group: list[ToolPackage]) -> None:
        done[group[0].name] = await merging.merge(group, maker)
        context.tell("trying merges", len(done), len(groups))

    await each(groups, one, settings.at_once)
    classifier = Classifier(offered) if settings.classify else None
    merges = [done[group[0].name] for group in groups]
    steps = [step for made in merges for step in consolidation.merge_steps(made, classifier)]
    left = [
        Left(tuple(one.name for one in group), f"{name}: {reason}" if name else reason)
        for group, made in zip(groups, merges, strict=True)
        for name, reason in made.reasons.items()
    ]
    return {"steps": steps, "left": left, "aside": [call for made in merges for call in made.aside]}


async def classify(state: ConsolidateState, runtime: Runtime[ConsolidateContext]) -> ConsolidateState:
    """A category for tools that have none, and that no step so far is about."""
    context = runtime.context
    if not context.settings.classify:
        return {}
    offered = await _offered(context)
    taken = {step.tool for step in state["steps"]}
    free = [one for one in offered if one.name not in taken and _passes(one, state["runs"])]
    return {"steps": [*state["steps"], *consolidation.classify_steps(free, Classifier(offered))]}


async def deprecate(state: ConsolidateState, runtime: Runtime[ConsolidateContext]) -> ConsolidateState:
    """What fails its own tests, and what is never reused. A tool that is merged or deprecated has its step already."""
    context, steps = runtime.context, state["steps"]
    taken = {step.tool for step in steps if step.action is not Action.CLASSIFY}
    offered = await _offered(context)
    free = [one for one in offered if one.name not in taken]
    failing = consolidation.failing_steps(free, state["runs"])
    still = [one for one in free if one.name not in {step.tool for step in failing}]
    users = merging.users_of(offered)
    unused = await consolidation.unused_steps(context.library, still, await context.library.usages(), users, context.settings)
    gone = {step.tool for step in (*failing, *unused)}
    return {"steps": [*(step for step in steps if step.tool not in gone), *failing, *unused]}


async def plan(state: ConsolidateState, runtime: Runtime[ConsolidateContext]) -> ConsolidateState:
    """All steps, and the library's health before and, where nothing will be applied, as it would be after."""
    context, library = runtime.context, runtime.context.library
    heads, usages = await library.list(), await library.usages()
    steps, left = _without_needed(state["steps"], state["left"])
    before = health(heads, usages, state["runs"], state["alike"])
    after: Health | None = before
    if steps:
        after = None if state.get("apply") else await _health(context, projected(heads, steps), state["runs"])
    made = datetime.now(UTC).isoformat(timespec="seconds")
    tokens = sum(call.spent for call in state["aside"])
    return {"plan": Plan(tuple(steps), tuple(left), before, after, context.place, made, tokens)}


async def apply(state: ConsolidateState, runtime: Runtime[ConsolidateContext]) -> ConsolidateState:
    """The steps, one after the other, and the health that comes of it."""
    context = runtime.context
    applied = await applying.apply(context.library, state["plan"], keep=context.keep)
    applied = replace(applied, after=await _health(context, await context.library.list(), state["runs"]))
    context.keep(applied)
    return {"plan": applied}


def _then(state: ConsolidateState) -> str:
    return "apply" if state.get("apply") else END


def _passes(package: ToolPackage, runs: Runs) -> bool:
    return package.hash not in runs or runs[package.hash].ok


def _without_needed(steps: list[Step], left: list[Left]) -> tuple[list[Step], list[Left]]:
    """Without the deprecation of what a merged tool, one that a policy wrote, imports."""
    needed = {
        name
        for step in steps
        if step.package is not None and step.action is Action.MERGE
        for name in signature.other_tools(signature.parse(step.package.code), step.tool)
    }
    kept = [step for step in steps if step.action is not Action.DEPRECATE or step.tool not in needed]
    return kept, [*left, *(Left((step.tool,), "a merged tool imports it") for step in steps if step not in kept)]


async def _offered(context: ConsolidateContext) -> list[ToolPackage]:
    return await context.library.list(status=Status.ADMITTED)


async def _run(context: ConsolidateContext, packages: Sequence[ToolPackage], known: Runs) -> Runs:
    tell = lambda done, of: context.tell("running tests", done, of)  # noqa: E731
    return await run_all(context.library, packages, context.sandbox, known, context.settings.at_once, tell)


async def _alike(context: ConsolidateContext, offered: Sequence[ToolPackage]) -> tuple[list[list[str]], list[list[str]]]:
    context.tell("comparing", 0, len(offered))
    better = consolidation.better(await context.library.usages(), merging.users_of(offered), offered)
    return await consolidation.alike(context.library, offered, context.settings, better)


async def _health(context: ConsolidateContext, heads: Sequence[ToolPackage], runs: Runs) -> Health:
    """Of these heads; what has not been run is run."""
    offered = [one for one in heads if one.status is Status.ADMITTED]
    runs = await _run(context, offered, runs) if context.settings.tests else {}
    _, alike = await _alike(context, offered)
    return health(heads, await context.library.usages(), runs, alike)
