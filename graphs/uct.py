"""UCT's online task loop as a state machine (arXiv 2602.01983). The build loop is a graph of its own: `toolreason.graphs.build`.

begin → think ⇄ act
          ⇅  ↘   ↓
        build   end        act → build: a tool that the cell found faulty is repaired
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from toolreason import formats
from toolreason.errors import CapabilityError
from toolreason.graphs import build as builds
from toolreason.graphs import toolkit
from toolreason.graphs.nodes import SEED_STRIDE, TRY_AGAIN, Nodes, spent, view_of
from toolreason.graphs.state import Fault, RolloutContext, RolloutInput, RolloutOutput, RolloutState
from toolreason.strategies import prompts
from toolreason.strategies.base import Build, Strategy
from toolreason.strategies.uct import UctSettings, decide
from toolreason.tools import gate_answer, writing
from toolreason.tools.package import Ticket, ToolPackage
from toolreason.tools.workshop import Workshop
from toolreason.types import Tooling, cells

DEFAULT = UctSettings()
NO_TOOLS = "(there are none yet)"


class UctNodes(Nodes[UctSettings]):
    """The shared nodes, with a library of tools around them."""

    async def begin(self, state: RolloutState, runtime: Runtime[RolloutContext]) -> RolloutState:
        """Find the tools that fit, name them in the prompt, and have them put into the session before its first cell."""
        begun = await super().begin(state, runtime)
        problem, library = state["problem"], self.workshop(runtime).library
        hits = await library.search(problem.question, self.settings.offered) if self.settings.offered else []
        offered = [hit.package for hit in hits]
        messages = prompts.messages(problem, "uct", self.settings.system)
        for message in messages:
            if message["role"] == "system":
                message["content"] = str(message["content"]).replace("{tools}", writing.offered(offered) or NO_TOOLS)
        return {
            **begun,
            "segments": [runtime.context.policy.prompt(messages)],
            "unseen": [*begun.get("unseen", []), await toolkit.installing(library, offered, f"{begun['key']}:tools")],
            "aside": [],
            "tooling": Tooling(offered=tuple(package.identity for package in offered)),
            "failing": [],
            "noted": 0,
        }

    async def act(self, state: RolloutState, runtime: Runtime[RolloutContext]) -> RolloutState:
        """Run the cell, and ask the session which tools it called and how they did."""
        update = await super().act(state, runtime)
        after: RolloutState = {**state, **update}
        return {**update, **await toolkit.count(after, runtime.context, frozen=self.settings.frozen)}

    async def build(self, state: RolloutState, runtime: Runtime[RolloutContext]) -> RolloutState:
        """Have a tool made or repaired, and tell the model, as the output of a cell, what came of it."""
        action: Build = self.action(state, runtime, Build)
        if action.refused:
            refused: RolloutState = {"tooling": toolkit.told(state["tooling"], refused=[action.refused]), "failing": []}
            return await self._tell(state, refused, runtime, action.refused)
        started = time.perf_counter()
        fault = next((one for one in state["failing"] if one["tool"] == action.repairs), None)
        made = await self._made(state, runtime, action, fault)
        update: RolloutState = {
            "aside": [*state["aside"], *made.get("aside", [])],
            "failing": [one for one in state["failing"] if one["tool"] != action.repairs],
            "timings": spent(state, "build", started),
        }
        package, reasons = made.get("package"), made.get("reasons") or ["the tokens are used up"]
        if package is None:
            update["tooling"] = toolkit.told(state["tooling"], refused=["; ".join(reasons)])
            if fault is not None:
                await toolkit.give_up(self.workshop(runtime).library, fault, by=runtime.context.policy.name)
            what = f"{fault['tool'].partition('@')[0]} could not be repaired" if fault else "No tool could be made"
            return await self._tell(state, update, runtime, f"{what}: {reasons[0]}\nGo on without it.")
        update["tooling"] = toolkit.told(state["tooling"], **{"repaired" if fault else "made": [package.identity]})
        call_id = f"{state['key']}:tool{update['tooling'].tickets}"
        library, after = self.workshop(runtime).library, len(cells(state["segments"]))
        update["unseen"] = [*state["unseen"], await toolkit.installing(library, [package], call_id, after)]
        ready = f"{'Repaired' if fault else 'Ready'}: from toolbox import {package.name}"
        return await self._tell(state, update, runtime, f"{ready}\n{writing.header(package.code)}")

    async def _tell(self, state: RolloutState, update: RolloutState, runtime: Runtime[RolloutContext], text: str) -> RolloutState:
        after: RolloutState = {**state, **update}
        return {**update, **await self.cell(after, runtime, f"print({text!r})")}

    async def _made(
        self, state: RolloutState, runtime: Runtime[RolloutContext], action: Build, fault: Fault | None
    ) -> builds.BuildOutput:
        """Run the build loop."""
        context, workshop, problem = runtime.context, self.workshop(runtime), state["problem"]
        repaired: ToolPackage | None = None
        ticket = Ticket(action.need, problem.question, problem.id)
        if fault is not None:
            name, _, number = fault["tool"].partition("@")
            repaired = await workshop.library.get(name, int(number))
            ticket = Ticket(repaired.description, problem.question, problem.id, fault["tool"], fault["call"])
        given = builds.BuildInput(
            ticket=ticket,
            repaired=repaired,
            error=fault["error"] if fault else "",
            seed=context.sampling.seed * SEED_STRIDE + state["tooling"].tickets,
        )
        done: builds.BuildOutput = await _builder().ainvoke(
            given,
            context=builds.BuildContext(
                workshop.builder or context.policy,
                workshop,
                context.sampling,
                gate_answer.gold(problem.reference),
                attempts=self.settings.attempts,
                call_tokens=self.settings.build_tokens,
                most_tokens=view_of(state, runtime).left(self.settings),
                critic=self.settings.critic,
            ),
        )
        return done

    def workshop(self, runtime: Runtime[RolloutContext]) -> Workshop:
        if runtime.context.workshop is None:
            raise CapabilityError("strategy 'uct' keeps tools: give its context a `workshop`, and a sandbox that runs code")
        return runtime.context.workshop


@cache
def _builder() -> Any:
    """The build loop, compiled without a checkpointer, also where the task loop has one: a build that was cut off begins anew."""
    return builds.build().compile(name="build", checkpointer=False)


def build(settings: UctSettings = DEFAULT) -> StateGraph[RolloutState, RolloutContext, RolloutInput, RolloutOutput]:
    """The graph for these settings, not compiled. Its context is a `RolloutContext` with `sessions` and a `workshop`."""
    node = UctNodes("uct", decide, settings, wording="uct", written=formats.get("fenced"))
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(
        RolloutState, RolloutContext, input_schema=RolloutInput, output_schema=RolloutOutput
    )
    graph.add_node("begin", node.begin)
    graph.add_node("think", node.think, retry_policy=TRY_AGAIN)
    graph.add_node("act", node.act, retry_policy=TRY_AGAIN)
    graph.add_node("build", node.build, retry_policy=TRY_AGAIN)
    graph.add_node("end", node.end)
    graph.add_edge(START, "begin")
    graph.add_conditional_edges("begin", node.route, ["think"])
    graph.add_conditional_edges("think", node.route, ["think", "act", "build", "end"])
    graph.add_conditional_edges("act", node.route, ["think", "build", "end"])
    graph.add_conditional_edges("build", node.route, ["think", "build", "end"])
    graph.add_edge("end", END)
    return graph


strategy = Strategy("uct", UctSettings, build)
