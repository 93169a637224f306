"""`reasoner`: a strategy as a node of somebody's graph, with what LangGraph offers around it."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, RetryPolicy, Send

from toolreason import Problem, Trajectory, reasoner
from toolreason.adapters import messages
from toolreason.adapters.node import Reasoner
from toolreason.errors import InputError, PolicyError, SettingsError
from toolreason.execution.scripted import ScriptedSandbox
from toolreason.policies.base import Completion
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.types import CellResult, Outcome, Segment, StopReason

CALL = "Let me compute.\n```python\nprint(6*7)\n```\n"
ANSWER = "So \\boxed{42}."
THREAD: Any = {"configurable": {"thread_id": "t"}}


class Box(ScriptedSandbox):
    """Prints 42 whatever it is asked, and remembers what that was."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        super().__init__(self._answer)

    def _answer(self, code: str) -> CellResult:
        self.ran.append(code)
        return CellResult(Outcome.OK, stdout="42\n")


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    async with Box() as one:
        yield one


def node(box: Box, texts: Sequence[str] = (CALL, ANSWER), **more: Any) -> Reasoner:
    settings = {"format": "fenced", "stateful": True}
    return reasoner("artist", policy=ScriptedPolicy(list(texts)), sandbox=box, settings=settings, **more)


class Asked(TypedDict, total=False):
    problem: Problem
    trajectory: Trajectory


def graph(state: Any, one: Reasoner, **how: Any) -> StateGraph[Any, Any, Any, Any]:
    built: StateGraph[Any, Any, Any, Any] = StateGraph(state)
    built.add_node("reason", one, **how)
    built.add_edge(START, "reason")
    return built


async def test_a_state_with_a_problem_gets_a_trajectory(box: Box) -> None:
    done = await graph(Asked, node(box)).compile().ainvoke({"problem": Problem("p", "What is 6 times 7?")})
    assert done["trajectory"].stop is StopReason.ANSWERED
    assert box.ran == ["print(6*7)\n"]


async def test_messages_are_answered_by_a_message_that_carries_its_trajectory(box: Box) -> None:
    said = [SystemMessage("Be brief."), HumanMessage("Hello."), AIMessage("Hello!"), HumanMessage("What is 6 times 7?")]
    one = node(box)
    done = await graph(MessagesState, one).compile().ainvoke({"messages": said})
    answer = done["messages"][-1]
    assert [part["type"] for part in answer.content_blocks] == ["text", "server_tool_call", "server_tool_result", "text"]
    assert answer.content_blocks[1]["args"] == {"code": "print(6*7)\n"}
    assert (answer.content_blocks[2]["status"], answer.content_blocks[2]["output"]) == ("success", "42")
    assert answer.text.endswith(ANSWER)
    kept = messages.trajectory(answer)
    assert (
        kept.segments[0].text.index("Be brief.") < kept.segments[0].text.index("Hello!") < kept.segments[0].text.index("6 times 7")
    )
    assert answer.usage_metadata["total_tokens"] == len(kept.token_ids)
    with pytest.raises(InputError, match="carries no trajectory"):
        messages.trajectory(AIMessage("hm"))


class Own(TypedDict, total=False):
    ask: str
    found: str


async def test_any_other_state_is_read_and_written_as_one_says(box: Box) -> None:
    one = node(box, read=lambda state: state["ask"], write=lambda done: {"found": done.stop.value})
    assert (await graph(Own, one).compile().ainvoke({"ask": "What is 6 times 7?"}))["found"] == "answered"
    with pytest.raises(InputError, match="neither a `problem` nor `messages`"):
        await graph(Own, node(box)).compile().ainvoke({"ask": "?"})
    with pytest.raises(SettingsError, match="write without read"):
        reasoner(write=lambda done: {})
    with pytest.raises(SettingsError, match="no setting 'formatted'; there are: "):
        reasoner(settings={"formatted": "fenced"})


class Many(TypedDict, total=False):
    found: Annotated[list[str], operator.add]


async def test_many_at_once_by_send(box: Box) -> None:
    one = node(box, [ANSWER] * 8, read=lambda state: Problem(state["id"], "?"), write=lambda done: {"found": [done.id]})
    built: StateGraph[Any, Any, Any, Any] = StateGraph(Many)
    built.add_node("reason", one)
    built.add_conditional_edges(START, lambda state: [Send("reason", {"id": str(number)}) for number in range(8)], ["reason"])
    found = (await built.compile().ainvoke({}))["found"]
    assert len(set(found)) == 8


async def test_its_events_are_in_the_stream_of_the_graph_around_it(box: Box) -> None:
    kinds = []
    stream = graph(Asked, node(box)).compile().astream({"problem": Problem("p", "?")}, stream_mode="custom", subgraphs=True)
    async for place, event in stream:
        assert place[0].startswith("reason:")
        kinds.append(event["kind"])
    assert {"text", "call", "result"} <= set(kinds)
    assert kinds.index("call") < kinds.index("result")


def decisions(**one: Any) -> Command[Any]:
    return Command(resume={"decisions": [one]})


EDITED = {"edited_action": {"name": "python", "args": {"code": "print(7*6)\n"}}}


@pytest.mark.parametrize(
    ("answer", "ran", "told"),
    [
        (decisions(type="approve"), ["print(6*7)\n"], "42"),
        (decisions(type="edit", **EDITED), ["print(7*6)\n"], "a person changed the code before it ran, to:\nprint(7*6)"),
        (decisions(type="reject", message="too costly"), [], "[not run: a person refused it: too costly]"),
    ],
)
async def test_a_person_decides_on_each_cell(
    box: Box, answer: Command[Any], ran: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGGRAPH_STRICT_MSGPACK", "true")
    agent = graph(Asked, node(box, review=True)).compile(checkpointer=InMemorySaver())
    waiting = await agent.ainvoke({"problem": Problem("p", "What is 6 times 7?")}, THREAD)
    asked = waiting["__interrupt__"][0].value
    assert asked["action_requests"][0]["args"] == {"code": "print(6*7)\n"}
    assert box.ran == []
    again = await agent.ainvoke(Command(resume="yes"), THREAD)  # no decision
    assert "'yes' is no decision" in again["__interrupt__"][0].value["error"]
    done = (await agent.ainvoke(answer, THREAD))["trajectory"]
    assert box.ran == ran
    assert told in done.segments[2].text
    assert done.stop is StopReason.ANSWERED
    assert [segment.source.value for segment in done.segments] == ["prompt", "model", "tool", "model"]


class Failing(ScriptedPolicy):
    """Fails so often, then answers."""

    def __init__(self, times: int) -> None:
        super().__init__([ANSWER] * 20)
        self.left = times

    async def sample(self, segments: Sequence[Segment], *args: Any, **kwargs: Any) -> Completion:
        self.left -= 1
        if self.left >= 0:
            raise PolicyError("the server is down")
        return await super().sample(segments, *args, **kwargs)


async def test_an_engine_that_fails_is_an_error_that_a_retry_policy_sees(box: Box) -> None:
    def agent(**how: Any) -> Any:
        return graph(Asked, reasoner("plain", policy=Failing(3), sandbox=None), **how).compile()

    with pytest.raises(PolicyError, match="the server is down"):
        await agent().ainvoke({"problem": Problem("p", "?")})
    again = RetryPolicy(initial_interval=0.01, max_attempts=2, retry_on=PolicyError)
    done = await agent(retry_policy=again).ainvoke({"problem": Problem("p", "?")})
    assert done["trajectory"].stop is StopReason.ANSWERED


class Endless(ScriptedPolicy):
    async def sample(self, *args: Any, **kwargs: Any) -> Completion:
        await asyncio.sleep(60)
        raise AssertionError


async def test_a_time_limit_of_the_graph_around_it_ends_it_and_its_session(box: Box) -> None:
    agent = graph(Asked, reasoner("plain", policy=Endless([]), sandbox=box)).compile()
    agent.step_timeout = 0.2
    with pytest.raises(TimeoutError):
        await agent.ainvoke({"problem": Problem("p", "?")})


def test_without_an_event_loop() -> None:
    one = node(Box())
    done = graph(Asked, one).compile(checkpointer=InMemorySaver()).invoke({"problem": Problem("p", "?")}, THREAD)
    assert done["trajectory"].stop is StopReason.ANSWERED
    one.close()
    one.close()


async def test_what_it_opens_it_closes_and_opens_again(tmp_path: Any) -> None:
    script = tmp_path / "s.json"
    script.write_text('["\\\\boxed{1}", "\\\\boxed{2}"]')
    async with reasoner("plain", policy=f"scripted:{script}", sandbox=None) as one:
        agent = graph(Asked, one).compile()
        await agent.ainvoke({"problem": Problem("p", "?")})
        await one.aclose()
        done = await agent.ainvoke({"problem": Problem("p", "?")})
        assert "1" in done["trajectory"].response  # opened anew, the script is at its beginning
