"""The strategies as graphs for LangGraph's own server: `graphs/langgraph.json` names them.

Policy and sandbox come from the environment, as the commands take them, and are opened at the first run:

    TOOLREASON_POLICY    default: the small model of `toolreason models pull qwen2.5-coder-0.5b-instruct`
    TOOLREASON_SANDBOX   docker (the default), shared, local, or none
    TOOLREASON_STRATEGY  the strategy of `rollout`, by the name of its entry point; default: hint_infer

`plain`, `artist`, `hint_infer` and `uct` are agents over messages: a thread is the conversation, its last message is answered by
one that carries the trajectory. `rollout` takes a problem, a row as in a file of problems, and gives its trajectory.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from typing import Any, TypedDict

from langgraph.graph import START, MessagesState, StateGraph

from toolreason.adapters import messages
from toolreason.adapters.live import DEFAULT_POLICY
from toolreason.adapters.node import Read, Write, reasoner
from toolreason.errors import InputError, ProblemError
from toolreason.problems import from_row
from toolreason.types import Problem, to_json

POLICY, SANDBOX, STRATEGY = "TOOLREASON_POLICY", "TOOLREASON_SANDBOX", "TOOLREASON_STRATEGY"


class Asked(TypedDict):
    problem: dict[str, Any]


class Done(TypedDict):
    trajectory: dict[str, Any]


class Rolled(Asked, Done):
    """A problem and its trajectory, both as plain data."""


def agent(strategy: str) -> Any:
    """A compiled graph over messages. Raises SettingsError for a strategy that is not installed."""
    return _compiled(StateGraph(MessagesState), strategy, _conversation, lambda done: {"messages": [messages.message(done)]})


def rollouts(strategy: str) -> Any:
    """A compiled graph from a problem to its trajectory, which nobody has judged. Files of this machine cannot be attached. Raises
    SettingsError for a strategy that is not installed.
    """
    graph = StateGraph(Rolled, input_schema=Asked, output_schema=Done)
    return _compiled(graph, strategy, _problem, lambda done: {"trajectory": json.loads(to_json(done))})


def _compiled(graph: StateGraph[Any, Any, Any, Any], strategy: str, read: Read, write: Write) -> Any:
    sandbox = os.environ.get(SANDBOX, "docker")
    policy = os.environ.get(POLICY, DEFAULT_POLICY)
    node = reasoner(strategy, policy=policy, sandbox=None if sandbox == "none" else sandbox, read=_told(read), write=write)
    graph.add_node("reason", node)
    graph.add_edge(START, "reason")
    return graph.compile(name=strategy)


def _told(read: Read) -> Read:
    """What is wrong with the input is for who sent it; the server passes on what errors of Python's own say, not what ours do."""

    def told(state: Any) -> Problem | str:
        try:
            return read(state)
        except (InputError, ProblemError) as error:
            raise ValueError(str(error)) from error

    return told


def _conversation(state: Mapping[str, Any]) -> Problem:
    return messages.problem(state.get("messages", []))


def _problem(state: Mapping[str, Any]) -> Problem:
    return from_row(state.get("problem"), uuid.uuid4().hex)


plain = agent("plain")
artist = agent("artist")
hint_infer = agent("hint_infer")
uct = agent("uct")
rollout = rollouts(os.environ.get(STRATEGY, "hint_infer"))
