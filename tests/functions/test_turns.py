"""A user's next turn, by the chat templates of five families: the ids are those of the whole conversation rendered at once."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.chat_templates.families import FAMILIES, LLAMA3, QWEN3, QWEN25, R1_DISTILL, SMOLLM2, Family
from toolreason.errors import CapabilityError, ProblemError
from toolreason.functions import turns
from toolreason.policies.base import Message
from toolreason.policies.chat import ChatPolicy
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.types import UserTurn

from .bank import TASK

FIRST: Message = {"role": "user", "content": "What is 17 * 23?"}
NEXT: Message = {"role": "user", "content": "And with Python? 🧮 ä\n\n q7k"}
WORDS = "Let me think: the answer is 391."


@pytest.fixture(params=FAMILIES, ids=str)
def family(request: pytest.FixtureRequest) -> Family:
    found: Family = request.param
    return found


def whole(family: Family, *messages: Message) -> list[int]:
    tokenizer: Any = family.hugging_face()
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def test_what_follows_begins_with_the_end_token_and_ends_where_the_model_speaks(family: Family) -> None:
    tokenizer = family.tokenizer()
    ids = turns.following(tokenizer, NEXT)  # type: ignore[arg-type]
    assert tokenizer.decode(ids[:1]) == family.end
    assert ids[0] in tokenizer.end_ids
    prompt = tokenizer.prompt([NEXT])
    shared = tokenizer.decode(ids).partition(NEXT["content"])[2]
    assert shared
    assert prompt.text.endswith(shared)


@pytest.mark.parametrize("family", [QWEN25, QWEN3, LLAMA3, SMOLLM2], ids=str)
def test_prompt_words_and_next_turn_are_the_conversation_rendered_at_once(family: Family) -> None:
    tokenizer = family.tokenizer()
    ids = (*tokenizer.prompt([FIRST]).token_ids, *tokenizer.encode(WORDS), *turns.following(tokenizer, NEXT))  # type: ignore[arg-type]
    assert list(ids) == whole(family, FIRST, {"role": "assistant", "content": WORDS}, NEXT)


def test_a_template_that_opens_thoughts_opens_them_in_the_next_turn_too() -> None:
    tokenizer = R1_DISTILL.tokenizer()
    assert tokenizer.decode(turns.following(tokenizer, NEXT)).endswith("<think>\n")  # type: ignore[arg-type]


def test_nothing_of_the_opening_conversation_is_in_it(family: Family) -> None:
    text = family.tokenizer().decode(turns.following(family.tokenizer(), {"role": "user", "content": "Go on."}))  # type: ignore[arg-type]
    assert turns.MARK not in text
    assert text.count("Go on.") == 1
    assert "You are" not in text


def test_a_template_without_the_assistants_words_is_refused() -> None:
    class Forgetful(ScriptedPolicy):
        def prompt(self, messages: Any) -> Any:
            return super().prompt(messages[-1:])

    with pytest.raises(CapabilityError, match="conversations"):
        turns.following(Forgetful([]), NEXT)


def test_functions_that_become_known_are_told_before_the_message() -> None:
    said = turns.message(TASK.turns[2])
    assert said["role"] == "user"
    assert said["content"].endswith("\n\nNow you can.")
    assert json.loads(said["content"].splitlines()[1])["name"] == "vault"
    assert turns.message(TASK.turns[1])["content"] == "Take it out of the vault!"


def test_a_chat_policy_is_sent_the_turns_one_after_the_other() -> None:
    from langchain_core.language_models.fake_chat_models import FakeListChatModel

    policy = ChatPolicy(FakeListChatModel(responses=[]))
    row = [policy.prompt([FIRST]), policy.prompt([NEXT])]
    assert policy.messages(row) == [("user", FIRST["content"]), ("user", NEXT["content"])]


def test_a_task_whose_question_is_another_is_refused() -> None:
    turns.check(TASK, TASK.turns[0].message)
    with pytest.raises(ProblemError, match="question"):
        turns.check(TASK, "Another")
    with pytest.raises(ProblemError, match="message"):
        turns.check(replace(TASK, turns=(*TASK.turns, UserTurn(" "))), TASK.turns[0].message)
