"""Tokens and tool events stream, also from inside a parent graph; a strategy is a node like any other."""

from typing import Any

import pytest
from langgraph.graph import END, START, StateGraph

from toolreason.graphs import artist
from toolreason.graphs.state import RolloutContext, RolloutState
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.strategies.artist import ArtistSettings
from toolreason.types import Problem, Trajectory

from .conftest import FakeSessions

PROBLEM = Problem("p1", "What is 6 times 7?")
GRAPH = artist.build(ArtistSettings(format="fenced"))
REPLIES = ["Hm.\n```python\nprint(6*7)\n```\n", "So \\boxed{42}"]


def check(events: list[dict[str, Any]]) -> None:
    spoken = [event for event in events if event["kind"] == "text" and event["source"] == "model"]
    assert len(spoken) > 5  # piece by piece, not all at once
    assert "".join(event["text"] for event in spoken) == "".join(REPLIES) + "<|im_end|>"
    kinds = [event["kind"] for event in events if event["kind"] != "text"]
    assert kinds == ["call", "result"]
    tool = [event["text"] for event in events if event.get("source") == "tool"]
    assert tool == ["```output\n42\n```\n"]


async def test_tokens_and_tool_events_stream(sessions: FakeSessions) -> None:
    context = RolloutContext(ScriptedPolicy(REPLIES), sessions)
    events = [event async for event in GRAPH.compile().astream({"problem": PROBLEM}, context=context, stream_mode="custom")]
    check(events)


@pytest.mark.parametrize("shared", [True, False], ids=["shared keys", "its own node"])
async def test_tokens_and_tool_events_stream_from_inside_a_parent_graph(sessions: FakeSessions, shared: bool) -> None:
    """langgraph issue 4718: they vanish without `subgraphs=True`, which is what a parent has to ask for."""
    inner = GRAPH.compile()

    class Parent(RolloutState, total=False):
        summary: str

    async def reason(state: Parent) -> dict[str, Trajectory]:
        done = await inner.ainvoke({"problem": state["problem"]}, context=RolloutContext(policy, sessions))
        return {"trajectory": done["trajectory"]}

    def sum_up(state: Parent) -> dict[str, str]:
        return {"summary": state["trajectory"].stop.value}

    policy = ScriptedPolicy(REPLIES)
    parent = StateGraph(Parent, RolloutContext)
    parent.add_node("reason", inner if shared else reason)
    parent.add_node("sum_up", sum_up)
    parent.add_edge(START, "reason")
    parent.add_edge("reason", "sum_up")
    parent.add_edge("sum_up", END)
    compiled = parent.compile()
    events, summary = [], None
    stream = compiled.astream(
        {"problem": PROBLEM}, context=RolloutContext(policy, sessions), stream_mode=["custom", "values"], subgraphs=True
    )
    async for path, mode, event in stream:
        if mode == "custom":
            assert path
            events.append(event)
        elif not path:
            summary = event.get("summary", summary)
    check(events)
    assert summary == "answered"
