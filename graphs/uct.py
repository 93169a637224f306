"""UCT's online task loop as a state machine (arXiv 2602.01983). The build loop is a graph of its own: `toolreason.graphs.build`.

begin → think ⇄ act
         ↑ ↘     ↓  ↘
         ↑ build ← ← end      act → build: a tool that the cell found faulty is repaired
         tell ↵               tell inserts what came of it, as the output of a cell
"""

from __future__ import annotations

import time
from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from toolreason import formats
from toolreason.errors import CapabilityError
from toolreason.graphs import build as builds
from toolreason.graphs import toolkit
from toolreason.graphs.nodes import TRY_AGAIN, Nodes, seed_of, spent, view_of
from toolreason.graphs.state import Fault, RolloutContext, RolloutInput, RolloutOutput, RolloutState
from toolreason.strategies import prompts
from toolreason.strategies.base import Build, Strategy
from toolreason.strategies.uct import UctSettings, decide
from toolreason.tools import gate_answer, untrusted, writing
from toolreason.tools.package import Ticket
from toolreason.tools.workshop import Workshop
from toolreason.types import Tooling, cells

DEFAULT = UctSettings()
NO_TOOLS = "(there are none yet)"
MOST_REASONS = 2_000  # characters of why a ticket was refused


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
            "noted": {},
        }

    async def act(self, state: RolloutState, runtime: Runtime[RolloutContext]) -> RolloutState:
        """Run the cell, and ask the session which tools it called and how they did."""
        update = await super().act(state, runtime)
        after: RolloutState = {**state, **update}
        return {**update, **await toolkit.count(after, runtime.context, frozen=self.settings.frozen)}

    async def build(self, state: RolloutState, runtime: Runtime[RolloutContext]) -> RolloutState:
        """Have a tool made or repaired. What is to be told of it is the `report`."""
        action: Build = self.action(state, runtime, Build)
        if action.refused:
            return {"tooling": toolkit.told(state["tooling"], refused=[action.refused]), "report": action.refused}
        started = time.perf_counter()
        fault = next((one for one in state["failing"] if one["tool"] == action.repairs), None)
        made = await self._made(state, runtime, action, fault)
        update: RolloutState = {
            "aside": [*state["aside"], *made.get("aside", [])],
            "failing": [one for one in state["failing"] if one["tool"] != action.repairs],
            "timings": spent(state, "build", started),
        }
        package, reasons = made.get("package"), made.get("reasons") or [builds.NO_TOKENS]
        tried = made.get("attempts", 0) > 0
        if package is None:
            why = untrusted.line("; ".join(map(untrusted.line, reasons)), MOST_REASONS)
            update["tooling"] = toolkit.told(state["tooling"], refused=[why])
            if fault is not None and tried:
                await toolkit.give_up(self.workshop(runtime).library, fault, by=runtime.context.policy.name)
            what = f"{fault['tool'].partition('@')[0]} could not be repaired" if fault else "No tool could be made"
            update["report"] = f"{what}: {untrusted.line(reasons[0])}\nGo on without it."
            return update
        if tried:
            update["tooling"] = toolkit.told(state["tooling"], **{"repaired" if fault else "made": [package.identity]})
        library, after = self.workshop(runtime).library, len(cells(state["segments"]))
        call_id = f"{state['key']}:tool{len(state['unseen'])}"
        update["unseen"] = [*state["unseen"], await toolkit.installing(library, [package], call_id, after)]
        head = writing.header(package.code, package.description)
        update["report"] = f"{'Repaired' if fault else 'Ready'}: from toolbox import {package.name}\n{head}"
        return update

    async def tell(self, state: RolloutState, runtime: Runtime[RolloutContext]) -> RolloutState:
        """Tell the model, as the output of a cell. A node of its own: where the sandbox fails, nothing is built again."""
        told = await self.cell(state, runtime, f"__import__('builtins').print({state['report']!r})")
        return {**told, "report": ""}

    async def _made(
        self, state: RolloutState, runtime: Runtime[RolloutContext], action: Build, fault: Fault | None
    ) -> builds.BuildOutput:
        """Run the build loop."""
        context, workshop, problem = runtime.context, self.workshop(runtime), state["problem"]
        about, need = problem.question[: writing.CONTEXT], untrusted.block(action.need, writing.NEED)
        ticket = Ticket(need, about, problem.id)
        if fault is not None:
            name, _, number = fault["tool"].partition("@")
            need = (await workshop.library.get(name, int(number))).description
            ticket = Ticket(need, about, problem.id, fault["tool"], fault["call"])
        given = builds.BuildContext(
            workshop.builder or context.policy,
            workshop,
            context.sampling,
            gate_answer.gold(problem.reference),
            attempts=self.settings.attempts,
            call_tokens=self.settings.build_tokens,
            most_tokens=view_of(state, runtime).left(self.settings),
            critic=self.settings.critic,
        )
        seed = seed_of(state["seed"], -1 - state["tooling"].tickets)  # below 0: the rollout's own calls count from 0
        return await builds.run(ticket, given, error=fault["error"] if fault else "", seed=seed)

    def workshop(self, runtime: Runtime[RolloutContext]) -> Workshop:
        if runtime.context.workshop is None:
            raise CapabilityError("strategy 'uct' keeps tools: give its context a `workshop`, and a sandbox that runs code")
        return runtime.context.workshop


def build(settings: UctSettings = DEFAULT) -> StateGraph[RolloutState, RolloutContext, RolloutInput, RolloutOutput]:
    """The graph for these settings, not compiled. Its context is a `RolloutContext` with `sessions` and a `workshop`."""
    node = UctNodes("uct", decide, settings, wording="uct", written=formats.get("fenced"))
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(
        RolloutState, RolloutContext, input_schema=RolloutInput, output_schema=RolloutOutput
    )
    graph.add_node("begin", node.begin)
    graph.add_node("think", node.think, retry_policy=TRY_AGAIN)
    graph.add_node("act", node.act, retry_policy=TRY_AGAIN)
    graph.add_node("build", node.build)  # its own nodes are tried again, one by one
    graph.add_node("tell", node.tell, retry_policy=TRY_AGAIN)
    graph.add_node("end", node.end)
    graph.add_edge(START, "begin")
    graph.add_conditional_edges("begin", node.route, ["think"])
    graph.add_conditional_edges("think", node.route, ["think", "act", "build", "end"])
    graph.add_conditional_edges("act", node.route, ["think", "build", "end"])
    graph.add_edge("build", "tell")
    graph.add_conditional_edges("tell", node.route, ["think", "build", "end"])
    graph.add_edge("end", END)
    return graph


strategy = Strategy("uct", UctSettings, build)
