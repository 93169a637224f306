"""The scripted policy passes the conformance suite, and does what only a script can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.policies.conformance import GREEDY, QUESTION, ExactPolicy, draw
from toolreason.errors import PolicyError, SettingsError
from toolreason.policies import Finish, ScriptedPolicy, open_policy


def speak(prompt: str, index: int) -> str:
    return "OK." if "Say OK" in prompt else "one\n```python\nprint(1)\n``` is zwei €𝄞 and so on, let me count " + prompt


class TestConformance(ExactPolicy):
    seeded = False

    @pytest.fixture
    async def policy(self) -> AsyncIterator[ScriptedPolicy]:
        policy = ScriptedPolicy(speak, context_length=600)
        yield policy
        await policy.aclose()


async def test_replies_come_in_order_and_the_end_of_the_script_is_an_error() -> None:
    policy = ScriptedPolicy(["one", "two"])
    assert [(await draw(policy)).text for _ in range(2)] == ["one<|im_end|>", "two<|im_end|>"]
    with pytest.raises(PolicyError, match="2 replies, and this is call 3"):
        await draw(policy)


async def test_an_exception_in_the_script_is_raised_and_the_next_call_goes_on() -> None:
    policy = ScriptedPolicy([PolicyError("the engine died"), "fine"])
    with pytest.raises(PolicyError, match="the engine died"):
        await draw(policy)
    assert (await draw(policy)).finish is Finish.END


async def test_calls_are_counted_and_recorded() -> None:
    policy = ScriptedPolicy(lambda prompt, index: "one two three four", delay_s=0.001)
    await asyncio.gather(*(draw(policy, seed=n) for n in range(5)))
    assert (policy.busiest, policy.busy) == (5, 0)
    assert [call.seed for call in policy.calls] == [0, 1, 2, 3, 4]
    assert policy.calls[0].prompt == policy.prompt(QUESTION).text


async def test_a_character_split_over_tokens_streams_whole() -> None:
    pieces: list[str] = []
    policy = ScriptedPolicy(["a€𝄞b"])
    completion = await draw(policy, on_text=pieces.append)
    assert pieces == ["a", "€", "𝄞", "b", "<|im_end|>"]
    assert len(completion.token_ids) == 1 + 3 + 4 + 1 + 1


async def test_a_completion_that_ends_inside_a_character_has_its_ids_and_a_mark() -> None:
    policy = ScriptedPolicy(["a€"])
    completion = await draw(policy, 3)
    assert completion.token_ids == tuple("a€".encode()[:3])
    assert completion.text == "a\ufffd"


async def test_of_two_stop_strings_the_one_that_ends_first_counts() -> None:
    policy = ScriptedPolicy(["say </python> now"])
    completion = await policy.sample([policy.prompt(QUESTION)], GREEDY, max_tokens=99, stop=["now", "</python>", "python>"])
    assert (completion.stop, completion.text) == ("</python>", "say </python>")


async def test_a_script_opens_from_a_file_and_a_bad_one_names_the_fix(tmp_path: Path) -> None:
    (tmp_path / "good.json").write_text('["hello"]')
    (tmp_path / "bad.json").write_text('{"a": 1}')
    policy = await open_policy(f"scripted:{tmp_path / 'good.json'}")
    assert (await draw(policy)).text == "hello<|im_end|>"
    with pytest.raises(SettingsError, match="first reply"):
        await open_policy(f"scripted:{tmp_path / 'bad.json'}")


@pytest.mark.parametrize("spec", ["llamafile:x", "vllm", "transformers:", ""])
async def test_an_unknown_spec_names_the_choices(spec: str) -> None:
    with pytest.raises(SettingsError, match="chat:PROVIDER:MODEL"):
        await open_policy(spec)


async def test_an_unknown_option_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("[]")
    with pytest.raises(SettingsError, match="colour"):
        await open_policy(f"scripted:{tmp_path / 'r.json'}", colour="red")
