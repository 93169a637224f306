"""The control: begin → think → end."""

from __future__ import annotations

from typing import Any

from langgraph.graph import END, START, StateGraph

from toolreason import formats
from toolreason.graphs.nodes import TRY_AGAIN, Nodes
from toolreason.graphs.state import RolloutContext, RolloutInput, RolloutOutput, RolloutState
from toolreason.strategies.base import Strategy
from toolreason.strategies.plain import PlainSettings, decide

DEFAULT = PlainSettings()


def build(settings: PlainSettings = DEFAULT) -> StateGraph[RolloutState, RolloutContext, RolloutInput, RolloutOutput]:
    """The graph for these settings, not compiled."""
    node = Nodes("plain", decide, settings, wording="plain", written=formats.get("fenced"))
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(
        RolloutState, RolloutContext, input_schema=RolloutInput, output_schema=RolloutOutput
    )
    graph.add_node("begin", node.begin)
    graph.add_node("think", node.think, retry_policy=TRY_AGAIN)
    graph.add_node("end", node.end)
    graph.add_edge(START, "begin")
    graph.add_conditional_edges("begin", node.route, ["think", "end"])
    graph.add_conditional_edges("think", node.route, ["think", "end"])
    graph.add_edge("end", END)
    return graph


strategy = Strategy("plain", PlainSettings, build)
