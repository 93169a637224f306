"""The strategies as agents over messages, for LangGraph's own server: `graphs/langgraph.json` names them.

Policy and sandbox come from the environment, as the commands take them, and are opened at the first run:

    TOOLREASON_POLICY    default: the small model of `toolreason models pull qwen2.5-coder-0.5b-instruct`
    TOOLREASON_SANDBOX   docker (the default), shared, local, or none

A thread's messages are the conversation: the last is answered, by a message that carries the trajectory.
"""

from __future__ import annotations

import os
from typing import Any

from langgraph.graph import START, MessagesState, StateGraph

from toolreason.adapters.live import DEFAULT_POLICY
from toolreason.adapters.node import reasoner

POLICY, SANDBOX = "TOOLREASON_POLICY", "TOOLREASON_SANDBOX"


def agent(strategy: str) -> Any:
    """A compiled graph of one node. Raises SettingsError for a strategy that is not installed."""
    sandbox = os.environ.get(SANDBOX, "docker")
    node = reasoner(strategy, policy=os.environ.get(POLICY, DEFAULT_POLICY), sandbox=None if sandbox == "none" else sandbox)
    graph = StateGraph(MessagesState)
    graph.add_node("reason", node)
    graph.add_edge(START, "reason")
    return graph.compile(name=strategy)


plain = agent("plain")
artist = agent("artist")
hint_infer = agent("hint_infer")
uct = agent("uct")
