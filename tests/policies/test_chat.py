"""A LangChain chat model as a policy: what holds of the conformance suite without token ids, and how segments become messages."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel, FakeListChatModel

from tests.chatmodel import Recorder
from tests.policies.conformance import AnyPolicy
from toolreason.errors import CapabilityError, PolicyError, SettingsError, SetupError
from toolreason.policies import ChatPolicy, Finish, open_policy
from toolreason.policies.base import Message
from toolreason.types import Cell, CellResult, Outcome, Sampling, Segment, Source

ASK: list[Message] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2? €"}]
GREEDY = Sampling()


def policy_of(*responses: str, **options: Any) -> tuple[ChatPolicy, Recorder]:
    model = Recorder(responses=list(responses), **options)
    return ChatPolicy(model), model


class TestConformance(AnyPolicy):
    @pytest.fixture
    def policy(self) -> ChatPolicy:
        return policy_of("Once there was a fox who counted: eins, zwei, drei.", sleep=0.001)[0]


def test_the_prompt_s_text_is_canonical_json_of_the_messages() -> None:
    policy, _ = policy_of("x")
    prompt = policy.prompt(ASK)
    assert prompt.text == '[{"role":"system","content":"Be brief."},{"role":"user","content":"2+2? €"}]'
    assert json.loads(prompt.text) == ASK
    assert prompt.token_ids == ()


def test_ids_are_refused_with_the_policies_that_have_them() -> None:
    policy, _ = policy_of("x")
    assert not policy.exact
    with pytest.raises(CapabilityError, match="vllm:URL or transformers:MODEL"):
        policy.encode("x")
    with pytest.raises(CapabilityError, match="exact policy"):
        policy.decode([1])


async def test_a_reply_is_text_without_ids_and_its_pieces_join_to_it() -> None:
    policy, _ = policy_of("four €")
    pieces: list[str] = []
    completion = await policy.sample([policy.prompt(ASK)], GREEDY, max_tokens=9, on_text=pieces.append)
    assert (completion.text, completion.token_ids, completion.logprobs) == ("four €", (), None)
    assert completion.finish is Finish.END
    assert pieces == list("four €")
    assert completion.segment() == Segment(Source.MODEL, "four €")


async def test_a_stop_string_stays_what_follows_is_cut_and_the_stream_is_closed() -> None:
    policy, model = policy_of("x = 1\n```\nand more")
    completion = await policy.sample([policy.prompt(ASK)], GREEDY, max_tokens=99, stop=["never", "```\n"])
    assert (completion.text, completion.finish, completion.stop) == ("x = 1\n```\n", Finish.STOP, "```\n")
    await model.given_up.wait()


async def test_the_provider_s_length_limit_is_told_from_an_end() -> None:
    policy, _ = policy_of("cut sho", finish="length")
    assert (await policy.sample([policy.prompt(ASK)], GREEDY, max_tokens=3)).finish is Finish.LENGTH


async def test_settings_go_to_the_model_where_it_has_them() -> None:
    policy, model = policy_of("x")
    await policy.sample([policy.prompt(ASK)], Sampling(temperature=0.9, top_p=0.5), max_tokens=3, seed=4)
    assert model.options[0] == {"temperature": 0.9, "max_tokens": 3}


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("assistant", [("system", "Be brief."), ("human", "2+2? €"), ("ai", "Hm. Use Python: 4")]),
        ("user", [("system", "Be brief."), ("human", "2+2? €"), ("ai", "Hm."), ("human", " Use Python:"), ("human", " 4")]),
    ],
)
async def test_segments_become_messages_by_their_source(prefix: Any, expected: list[tuple[str, str]]) -> None:
    _, model = policy_of("ok")
    policy = ChatPolicy(model, prefix)
    cell = Cell("c1", "2+2", CellResult(Outcome.OK, value="4"))
    segments = [
        policy.prompt(ASK),
        Segment(Source.MODEL, "Hm."),
        Segment(Source.HINT, " Use Python:"),
        Segment(Source.TOOL, " 4", cell=cell),
    ]
    await policy.sample(segments, GREEDY, max_tokens=3)
    assert [(message.type, message.content) for message in model.seen[0]] == expected


async def test_a_model_that_fails_is_a_policy_error_that_names_it() -> None:
    model: BaseChatModel = FakeListChatModel(responses=["abc"], error_on_chunk_number=1)
    policy = ChatPolicy(model)
    with pytest.raises(PolicyError, match="chat:FakeListChatModel failed"):
        await policy.sample([policy.prompt(ASK)], GREEDY, max_tokens=3)
    with pytest.raises(PolicyError, match="not made by a chat policy"):
        await policy.sample([Segment(Source.PROMPT, "hello")], GREEDY, max_tokens=3)


async def test_a_cancelled_call_closes_the_stream() -> None:
    policy, model = policy_of("a long answer", sleep=0.01)
    started = asyncio.Event()
    task = asyncio.create_task(policy.sample([policy.prompt(ASK)], GREEDY, max_tokens=99, on_text=lambda piece: started.set()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await model.given_up.wait()


async def test_concurrent_calls_equal_single_calls() -> None:
    policy, _ = policy_of("same")
    calls = [policy.sample([policy.prompt(ASK)], GREEDY, max_tokens=9) for _ in range(8)]
    assert {completion.text for completion in await asyncio.gather(*calls)} == {"same"}


async def test_a_chat_spec_without_langchain_names_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain.chat_models", None)
    with pytest.raises(SetupError, match=r"pip install 'toolreason\[chat\]'"):
        await open_policy("chat:openai:gpt-x")
    with pytest.raises(SettingsError, match="neither"):
        ChatPolicy(FakeListChatModel(responses=["x"]), "system")  # type: ignore[arg-type]
