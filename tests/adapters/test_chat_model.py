"""`ToolReasonerChat` is a chat model like any other: LangChain's own suites say so. And it streams what its tools do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from toolreason.adapters import messages
from toolreason.adapters.chat_model import ToolReasonerChat
from toolreason.errors import InputError, PolicyError
from toolreason.execution.scripted import ScriptedSandbox
from toolreason.policies.base import Completion
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.types import StopReason

CALL = "Let me compute.\n```python\nprint(6*7)\n```\n"
ANSWER = "So \\boxed{42}."


def scripted(texts: Sequence[str] = (CALL, ANSWER), **more: Any) -> ToolReasonerChat:
    settings = {"format": "fenced", "stateful": True}
    box = ScriptedSandbox({"print(6*7)": "42\n"})
    return ToolReasonerChat(strategy="artist", settings=settings, policy=ScriptedPolicy(list(texts)), sandbox=box, **more)


class TestUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ToolReasonerChat

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"strategy": "plain", "policy": ScriptedPolicy(["Hello."] * 50), "sandbox": None}


class TestIntegration(ChatModelIntegrationTests):
    """With a real small model."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ToolReasonerChat

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"strategy": "plain", "policy": "transformers:smollm2-135m-instruct", "sandbox": None, "max_tokens": 24}


def kinds(blocks: Any) -> list[str]:
    return [block["type"] for block in blocks]


async def test_a_stream_carries_text_calls_and_results_and_adds_up_to_the_answer() -> None:
    model = scripted()
    chunks = [chunk async for chunk in model.astream("What is 6 times 7?")]
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert isinstance(whole, AIMessageChunk)
    assert kinds(whole.content_blocks) == ["text", "server_tool_call", "server_tool_result", "text"]
    assert whole.content_blocks[1]["args"] == {"code": "print(6*7)\n"}
    done = messages.trajectory(whole)
    assert done.stop is StopReason.ANSWERED
    assert whole.text == f"Let me compute.\n{ANSWER}"
    assert whole.usage_metadata == messages.usage(done)
    again = await scripted().ainvoke("What is 6 times 7?")
    assert kinds(again.content_blocks) == kinds(whole.content_blocks)


def test_it_streams_without_an_event_loop_too() -> None:
    model = scripted()
    assert "".join(chunk.text for chunk in model.stream([HumanMessage("?")])) == f"Let me compute.\n{ANSWER}"
    model.close()


async def test_a_stop_sequence_cuts_the_text() -> None:
    assert (await scripted([ANSWER]).ainvoke("?", stop=["boxed"])).text == "So \\"


async def test_settings_of_one_call() -> None:
    model = scripted([ANSWER])
    done = messages.trajectory(await model.ainvoke("?", temperature=0.5, seed=3, max_tokens=77))
    assert (done.sampling.temperature, done.sampling.seed, done.settings["max_tokens"]) == (0.5, 3, 77)


class Endless(ScriptedPolicy):
    def __init__(self) -> None:
        super().__init__([])
        self.cancelled = False

    async def sample(self, *args: Any, **kwargs: Any) -> Completion:
        kwargs["on_text"]("Hm, let me think about this for a long time. ")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        raise AssertionError


async def test_who_stops_listening_stops_the_rollout() -> None:
    policy = Endless()
    stream: AsyncIterator[Any] = ToolReasonerChat(strategy="plain", policy=policy, sandbox=None).astream("?")
    async for _ in stream:
        break
    await stream.aclose()  # type: ignore[attr-defined]
    for _ in range(100):  # LangChain leaves our own generator to the event loop to close
        await asyncio.sleep(0.01)
        if policy.cancelled:
            return
    raise AssertionError("it went on")


class Down(ScriptedPolicy):
    async def sample(self, *args: Any, **kwargs: Any) -> Completion:
        raise PolicyError("the server is down")


async def test_what_fails_is_an_error_and_no_answer() -> None:
    model = ToolReasonerChat(strategy="plain", policy=Down([]), sandbox=None)
    with pytest.raises(PolicyError, match="the server is down"):
        await model.ainvoke("?")
    with pytest.raises(PolicyError, match="the server is down"):
        async for _ in model.astream("?"):
            pass
    with pytest.raises(InputError, match="the last message has to be the user's"):
        await model.ainvoke([("ai", "hello")])


async def test_it_opens_by_name(tmp_path: Path) -> None:
    script = tmp_path / "s.json"
    script.write_text('["Hello."]')
    model = ToolReasonerChat(strategy="plain", policy=f"scripted:{script}", sandbox=None)
    assert (await model.ainvoke("Hi")).text == "Hello."
    await model.aclose()
