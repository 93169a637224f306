"""The strategies as LangGraph state machines: `artist`, `hint_infer`, `plain`, each with `build(settings) -> StateGraph`.

They share one state (`RolloutState`) and one context (`RolloutContext`: the policy, the sessions, the sampling).
"""

from toolreason.graphs.state import RolloutContext, RolloutInput, RolloutOutput, RolloutState

__all__ = ["RolloutContext", "RolloutInput", "RolloutOutput", "RolloutState"]
