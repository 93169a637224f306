"""One question to a policy: the answer may be begun for it."""

from __future__ import annotations

import pytest

from toolreason.policies.base import Message
from toolreason.policies.chat import ChatPolicy
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.tools import writing
from toolreason.tools.asking import ask, code_block, said
from toolreason.types import Source

QUESTION: list[Message] = [{"role": "user", "content": "Write it."}]


@pytest.mark.parametrize(
    "answer",
    [
        "x = 1\n```",
        "```python\nx = 1\n```",
        "Sure, here it is:\n```python\nx = 1\n```",
        "x = 1\n```\nSo:\n```python\nprint(x)\n```",
    ],
)
async def test_a_model_goes_on_where_its_answer_was_begun_or_begins_anew(answer: str) -> None:
    done = await ask(ScriptedPolicy([answer]), QUESTION, purpose="build:code", lead=writing.CODE)
    assert [segment.source for segment in done.segments] == [Source.PROMPT, Source.HINT, Source.MODEL]
    assert code_block(said(done)) == "x = 1\n"
    assert done.segments[2].text.startswith(answer)


@pytest.mark.parametrize("answer", [" yes\nsafe: yes\ngeneral: yes\nreason: fine", "correct: yes\nsafe: yes\ngeneral: yes"])
async def test_a_critic_finds_its_first_line_begun(answer: str) -> None:
    done = await ask(ScriptedPolicy([answer]), QUESTION, purpose="build:critic", lead=writing.VERDICT)
    assert writing.review(said(done)).against == ()


async def test_the_begun_answer_is_what_the_engine_was_given() -> None:
    policy = ScriptedPolicy(["x = 1\n```"])
    done = await ask(policy, QUESTION, purpose="build:code", lead=writing.CODE)
    assert policy.calls[0].prompt == "".join(segment.text for segment in done.segments[:2])
    assert done.segments[1].token_ids == policy.encode(writing.CODE)


async def test_a_text_only_policy_answers_without() -> None:
    from langchain_core.language_models.fake_chat_models import FakeListChatModel

    done = await ask(ChatPolicy(FakeListChatModel(responses=["```python\nx = 1\n```"])), QUESTION, purpose="p", lead=writing.CODE)
    assert [segment.source for segment in done.segments] == [Source.PROMPT, Source.MODEL]
    assert code_block(said(done)) == "x = 1\n"
