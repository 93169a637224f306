"""ARTIST's rollout as a state machine (arXiv 2505.01441, section 3).

begin → think ⇄ act
          ↓
         end
"""

from __future__ import annotations

from typing import Any

from langgraph.graph import END, START, StateGraph

from toolreason import formats
from toolreason.graphs.nodes import TRY_AGAIN, Nodes
from toolreason.graphs.state import RolloutContext, RolloutInput, RolloutOutput, RolloutState
from toolreason.strategies.artist import ArtistSettings, decide
from toolreason.strategies.base import Strategy

DEFAULT = ArtistSettings()


def build(settings: ArtistSettings = DEFAULT) -> StateGraph[RolloutState, RolloutContext, RolloutInput, RolloutOutput]:
    """The graph for these settings, not compiled. Its context is a `RolloutContext` with `sessions`."""
    wording = settings.format if settings.offered else "hint_infer"
    node = Nodes("artist", decide, settings, wording, written=formats.get(settings.format))
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(
        RolloutState, RolloutContext, input_schema=RolloutInput, output_schema=RolloutOutput
    )
    graph.add_node("begin", node.begin)
    graph.add_node("think", node.think, retry_policy=TRY_AGAIN)
    graph.add_node("act", node.act, retry_policy=TRY_AGAIN)
    graph.add_node("end", node.end)
    graph.add_edge(START, "begin")
    graph.add_conditional_edges("begin", node.route, ["think"])
    graph.add_conditional_edges("think", node.route, ["think", "act", "end"])
    graph.add_conditional_edges("act", node.route, ["think", "end"])
    graph.add_edge("end", END)
    return graph


strategy = Strategy("artist", ArtistSettings, build)
