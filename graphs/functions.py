"""ARTIST's function calling as a state machine (arXiv 2505.01441). The environment lives in the agent's session.

begin → think ⇄ act
         ↑ ↓
        ask  → end     ask: the model ended its turn, and the user says the next thing
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime

from toolreason import tokens
from toolreason.errors import ProblemError
from toolreason.functions import cells, turns
from toolreason.graphs import splice
from toolreason.graphs.events import Event, emit
from toolreason.graphs.nodes import TRY_AGAIN, Nodes, view_of
from toolreason.graphs.state import RolloutContext, RolloutInput, RolloutOutput, RolloutState
from toolreason.strategies import prompts
from toolreason.strategies.base import Act, End, Strategy
from toolreason.strategies.functions import WRITTEN, FunctionSettings, decide
from toolreason.types import FunctionTask, Segment, Source, StopReason

DEFAULT = FunctionSettings()


class FunctionNodes(Nodes[FunctionSettings]):
    """The shared nodes, with an environment in the session and a user who goes on."""

    async def route(self, state: RolloutState, runtime: Runtime[RolloutContext]) -> str:
        action = self.decide(view_of(state, runtime), self.settings)
        ended = action == End(StopReason.ANSWERED)
        return "ask" if ended and _told(state) < len(_task(state).turns) else await super().route(state, runtime)

    async def begin(self, state: RolloutState, runtime: Runtime[RolloutContext]) -> RolloutState:
        """Name the functions in the prompt."""
        problem, task = state["problem"], _task(state)
        turns.check(task, problem.question)
        cells.documented(task)
        messages = prompts.messages(problem, self.wording, self.settings.system)
        for message in messages:
            if message["role"] == "system":
                message["content"] = message["content"].replace("{tools}", turns.documentation(task.turns[0]))
        begun = await super().begin(state, runtime)
        return {**begun, "segments": [runtime.context.policy.prompt(messages)]}

    async def act(self, state: RolloutState, runtime: Runtime[RolloutContext]) -> RolloutState:
        """Make the calls, in a session that has the environment."""
        action: Act = self.action(state, runtime, Act)
        context = runtime.context
        if context.sessions is not None:
            sessions = cells.InEnvironment(context.sessions, cells.install_code(_task(state)))
            runtime = runtime.override(context=replace(context, sessions=sessions))
        return await self.cell(state, runtime, cells.call_code(action.code, _told(state) - 1))

    async def ask(self, state: RolloutState, runtime: Runtime[RolloutContext]) -> RolloutState:
        """Say the user's next turn. An end token that the model sampled stays where it is the one that its template writes."""
        policy, segments = runtime.context.policy, list(state["segments"])
        said = turns.message(_task(state).turns[_told(state)])
        if not policy.exact:
            after = policy.prompt([said])
        else:
            ids = turns.following(policy, said)
            if segments[-1].source is Source.MODEL and segments[-1].token_ids[-1:] == ids[:1]:
                ids = ids[1:]
            else:
                segments = splice.without_end(state, policy)
            after = Segment(Source.PROMPT, tokens.text_after(policy.decode, splice.history(segments), ids), ids)
        lost = sum(len(one.text) for one in state["segments"]) - sum(len(one.text) for one in segments)
        if lost:
            emit(runtime, Event(kind="cut", characters=lost))
        emit(runtime, Event(kind="text", source=after.source.value, text=after.text))
        return {
            "segments": [*segments, after],
            "taken_back": splice.taken_back(state, segments),
            "finish": None,
            "stop_string": None,
            "end_characters": 0,
        }


def _task(state: RolloutState) -> FunctionTask:
    problem = state["problem"]
    if problem.reference.task is None:
        raise ProblemError(f"problem {problem.id!r} is no task of function calling: its reference has no `task`")
    return problem.reference.task


def _told(state: RolloutState) -> int:
    """How many of the user's turns have been told."""
    return sum(segment.source is Source.PROMPT for segment in state["segments"])


def build(settings: FunctionSettings = DEFAULT) -> StateGraph[RolloutState, RolloutContext, RolloutInput, RolloutOutput]:
    """The graph for these settings, not compiled. Its context is a `RolloutContext` with `sessions`."""
    node = FunctionNodes("functions", decide, settings, wording="functions", written=WRITTEN)
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(
        RolloutState, RolloutContext, input_schema=RolloutInput, output_schema=RolloutOutput
    )
    graph.add_node("begin", node.begin)
    graph.add_node("think", node.think, retry_policy=TRY_AGAIN)
    graph.add_node("act", node.act, retry_policy=TRY_AGAIN)
    graph.add_node("ask", node.ask)
    graph.add_node("end", node.end)
    graph.add_edge(START, "begin")
    graph.add_conditional_edges("begin", node.route, ["think"])
    graph.add_conditional_edges("think", node.route, ["think", "act", "ask", "end"])
    graph.add_conditional_edges("act", node.route, ["think", "end"])
    graph.add_conditional_edges("ask", node.route, ["think", "end"])
    graph.add_edge("end", END)
    return graph


strategy = Strategy("functions", FunctionSettings, build)
