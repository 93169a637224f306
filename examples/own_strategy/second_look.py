"""A strategy of one's own: plain reasoning, then a second look, and what it says then counts.

What a strategy is: settings, a pure decision (what has been said so far, to what is done next), and a graph that carries it out.
"""

from dataclasses import dataclass
from typing import Any

from langgraph.graph import END, START, StateGraph

from toolreason import StopReason, formats
from toolreason.graphs import RolloutContext, RolloutInput, RolloutOutput, RolloutState
from toolreason.graphs.nodes import TRY_AGAIN, Nodes
from toolreason.policies import Finish
from toolreason.strategies.base import Action, End, Insert, Settings, Strategy, Think, View, limit


@dataclass(frozen=True, slots=True)
class SecondLookSettings(Settings):
    """`looks`: how often. Every field can be given with --set."""

    looks: int = 1
    words: str = "Let me look at this once more."


def decide(view: View, settings: SecondLookSettings) -> Action:
    """Called after each step with all that was said; it computes nothing else, so a run can be taken up anywhere."""
    if view.finish is Finish.END:
        if view.hints < settings.looks and view.left(settings) > 0:
            return Insert(settings.words)  # in the model's own voice; its end token is taken back
        return End(StopReason.ANSWERED if view.answered(formats.get("fenced")) else StopReason.NO_ANSWER)
    return limit(view, settings) or Think()


def build(settings: SecondLookSettings) -> StateGraph[RolloutState, RolloutContext, RolloutInput, RolloutOutput]:
    """The graph, not compiled. `Nodes` has a node for each kind of action; `wording` names the prompt."""
    node = Nodes("second_look", decide, settings, wording="plain", written=formats.get("fenced"))
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(
        RolloutState, RolloutContext, input_schema=RolloutInput, output_schema=RolloutOutput
    )
    graph.add_node("begin", node.begin)
    graph.add_node("think", node.think, retry_policy=TRY_AGAIN)
    graph.add_node("hint", node.hint)
    graph.add_node("end", node.end)
    graph.add_edge(START, "begin")
    graph.add_conditional_edges("begin", node.route, ["think"])
    graph.add_conditional_edges("think", node.route, ["think", "hint", "end"])
    graph.add_conditional_edges("hint", node.route, ["think", "end"])
    graph.add_edge("end", END)
    return graph


strategy = Strategy("second_look", SecondLookSettings, build)
