"""START's Hint-infer as a state machine (arXiv 2503.04625, section 3.1).

begin → think ⇄ hint
          ⇅  ↘
         act → end
"""

from __future__ import annotations

from typing import Any

from langgraph.graph import END, START, StateGraph

from toolreason import formats
from toolreason.graphs.nodes import TRY_AGAIN, Nodes
from toolreason.graphs.state import RolloutContext, RolloutInput, RolloutOutput, RolloutState
from toolreason.strategies.base import Strategy
from toolreason.strategies.hint_infer import HintInferSettings, decide

DEFAULT = HintInferSettings()


def build(settings: HintInferSettings = DEFAULT) -> StateGraph[RolloutState, RolloutContext, RolloutInput, RolloutOutput]:
    """The graph for these settings, not compiled. Its context is a `RolloutContext` with `sessions`."""
    node = Nodes("hint_infer", decide, settings, wording="hint_infer", written=formats.get("fenced"))
    graph: StateGraph[Any, Any, Any, Any] = StateGraph(
        RolloutState, RolloutContext, input_schema=RolloutInput, output_schema=RolloutOutput
    )
    graph.add_node("begin", node.begin)
    graph.add_node("think", node.think, retry_policy=TRY_AGAIN)
    graph.add_node("act", node.act, retry_policy=TRY_AGAIN)
    graph.add_node("hint", node.hint)
    graph.add_node("end", node.end)
    graph.add_edge(START, "begin")
    graph.add_conditional_edges("begin", node.route, ["think", "hint"])
    graph.add_conditional_edges("think", node.route, ["think", "hint", "act", "end"])
    graph.add_conditional_edges("hint", node.route, ["think", "end"])
    graph.add_conditional_edges("act", node.route, ["think", "end"])
    graph.add_edge("end", END)
    return graph


strategy = Strategy("hint_infer", HintInferSettings, build)
