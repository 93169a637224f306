"""`HintedInterpreter` in LangChain's agents: the tool is there, and a model that would not use it is asked to, once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from toolreason.adapters.langchain import PythonTool
from toolreason.adapters.middleware import HintedInterpreter
from toolreason.errors import SettingsError
from toolreason.execution.scripted import ScriptedSandbox

CALL = AIMessage("", tool_calls=[{"name": "python", "args": {"code": "print(6*7)"}, "id": "1"}])


class Model(GenericFakeChatModel):
    """Says what it is told to, whatever tools it is given."""

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        assert [tool.name for tool in tools] == ["python"]
        return self


def talk(said: Sequence[AIMessage], **options: Any) -> list[BaseMessage]:
    python = PythonTool(sandbox=ScriptedSandbox({"print(6*7)": "42\n"}))
    middleware = HintedInterpreter(python, **options)
    agent = create_agent(Model(messages=iter(said)), middleware=[middleware])
    done = agent.invoke({"messages": [HumanMessage("What is 6 times 7?")]})
    middleware.close()
    found: list[BaseMessage] = done["messages"]
    return found


def kinds(messages: Sequence[BaseMessage]) -> list[str]:
    return [message.type for message in messages]


def test_a_model_that_would_end_without_having_run_anything_is_asked_to() -> None:
    found = talk([AIMessage("It is 41."), CALL, AIMessage("It is 42.")])
    assert kinds(found) == ["human", "ai", "human", "ai", "tool", "ai"]
    assert "Python" in found[2].text
    assert "```" not in found[2].text
    assert found[2].text.endswith(".")
    assert isinstance(found[4], ToolMessage)
    assert found[4].content == "42"


def test_a_model_that_ran_something_is_left_alone() -> None:
    assert kinds(talk([CALL, AIMessage("It is 42.")])) == ["human", "ai", "tool", "ai"]


def test_no_more_hints_than_are_wanted() -> None:
    assert kinds(talk([AIMessage("41."), AIMessage("41.")])) == ["human", "ai", "human", "ai"]
    assert kinds(talk([AIMessage("41."), AIMessage("41."), AIMessage("41.")], most=2)) == [
        "human",
        "ai",
        "human",
        "ai",
        "human",
        "ai",
    ]


def test_a_hint_with_the_question_and_none_at_all() -> None:
    assert kinds(talk([CALL, AIMessage("42.")], hint="start")) == ["human", "human", "ai", "tool", "ai"]
    assert kinds(talk([AIMessage("41.")], hint="none")) == ["human", "ai"]


@pytest.mark.parametrize(
    ("options", "says"), [({"hint": "middle"}, "no place"), ({"most": 0}, "1 or more"), ({"kind": "no such"}, "no such")]
)
def test_wrong_options_are_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        HintedInterpreter(PythonTool(sandbox=ScriptedSandbox({})), **options)
