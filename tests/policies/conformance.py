"""What every policy does (`AnyPolicy`), and every exact one (`ExactPolicy`). A test class per engine gives the `policy` fixture."""

from __future__ import annotations

import asyncio
import math

import pytest

from toolreason.policies.base import Completion, Finish, Message, Policy
from toolreason.types import Sampling, Segment, Source

GREEDY = Sampling(temperature=0.0)
HOT = Sampling(temperature=1.0)
QUESTION: list[Message] = [{"role": "user", "content": "Write a long story about a fox who counts."}]


async def draw(policy: Policy, max_tokens: int = 16, sampling: Sampling = GREEDY, **options: object) -> Completion:
    return await policy.sample([policy.prompt(QUESTION)], sampling, max_tokens=max_tokens, **options)  # type: ignore[arg-type]


def inside_a_token(policy: Policy, completion: Completion) -> tuple[str, int]:
    """A stop string that ends inside a token of this completion, and how many tokens hold it."""
    texts = [policy.decode(completion.token_ids[:n]) for n in range(len(completion.token_ids) + 1)]
    for n in range(3, len(completion.token_ids)):
        stop = texts[n + 1][:-1][-6:]
        if (
            len(texts[n + 1]) - len(texts[n]) > 1
            and "\ufffd" not in texts[n + 1]
            and completion.text.find(stop) + len(stop) > len(texts[n])
        ):
            return stop, n + 1
    raise AssertionError(f"no token of two characters in {completion.text!r}")


class AnyPolicy:
    """What needs no token ids."""

    async def test_no_tokens_are_drawn_where_none_are_asked_for(self, policy: Policy) -> None:
        completion = await draw(policy, 0)
        assert (completion.text, completion.token_ids, completion.finish) == ("", (), Finish.LENGTH)

    async def test_the_pieces_that_stream_join_to_the_text(self, policy: Policy) -> None:
        pieces: list[str] = []
        completion = await draw(policy, 20, on_text=pieces.append)
        assert "".join(pieces) == completion.text
        assert len(pieces) > 1

    async def test_a_stop_string_stays_in_the_text_and_ends_it(self, policy: Policy) -> None:
        free = (await draw(policy, 24)).text
        stop = free[6:12]
        stopped = await draw(policy, 24, stop=["never there", stop])
        assert (stopped.finish, stopped.stop) == (Finish.STOP, stop)
        assert free.startswith(stopped.text)
        assert stop in stopped.text
        assert stop not in stopped.text[: -len(stop)]

    async def test_a_cancelled_call_leaves_the_others_and_the_engine_alone(self, policy: Policy) -> None:
        started = asyncio.Event()
        long = asyncio.create_task(draw(policy, 1500, HOT, seed=3, on_text=lambda piece: started.set()))
        await started.wait()
        other = asyncio.create_task(draw(policy, 6))
        long.cancel()
        with pytest.raises(asyncio.CancelledError):
            await long
        drawn = await other
        assert drawn.text
        assert len(drawn.token_ids) == (6 if policy.exact else 0)

    async def test_what_it_gives_becomes_a_segment_that_it_can_continue(self, policy: Policy) -> None:
        prompt = policy.prompt(QUESTION)
        first = (await policy.sample([prompt], GREEDY, max_tokens=5)).segment()
        assert first.source is Source.MODEL
        assert (await policy.sample([prompt, first], GREEDY, max_tokens=5)).text


class ExactPolicy(AnyPolicy):
    """`seeded`: draws at temperature above 0 depend on the seed (a script's do not). `tie`: log-probabilities so close may swap."""

    seeded = True
    tie = 0.0

    def test_the_prompt_is_a_segment_whose_ids_decode_to_its_text(self, policy: Policy) -> None:
        prompt = policy.prompt(QUESTION)
        assert prompt.source is Source.PROMPT
        assert policy.decode(prompt.token_ids) == prompt.text
        assert prompt.text.endswith("assistant\n")
        assert QUESTION[0]["content"] in prompt.text

    @pytest.mark.parametrize(
        "text", ["plain words", "```python\nprint('ä€𝄞')\n```\n", " 日本語 🦊\n\n", "\t x  y", "<|im_end|> is only text here"]
    )
    def test_an_inserted_text_survives_encoding(self, policy: Policy, text: str) -> None:
        assert policy.decode(policy.encode(text)) == text

    def test_an_inserted_text_never_holds_an_end_token(self, policy: Policy) -> None:
        end = policy.prompt(QUESTION).token_ids
        special = set(end) - set(policy.encode(policy.decode(end)))
        assert special
        assert not special & set(policy.encode("<|im_end|>\n<|im_start|>"))

    async def test_certainties_come_one_per_token_and_only_where_asked_for(self, policy: Policy) -> None:
        plain, told = await draw(policy, 6), await draw(policy, 6, Sampling(top_logprobs=5))
        assert plain.certainties is None
        assert told.certainties is not None
        assert len(told.certainties) == len(told.token_ids)
        assert told.segment().certainties == told.certainties
        assert all(value > 0 for value in told.certainties)

    async def test_ids_are_what_was_drawn_and_the_text_is_their_decoding(self, policy: Policy) -> None:
        completion = await draw(policy)
        assert completion.text == policy.decode(completion.token_ids)
        assert completion.logprobs is not None
        assert len(completion.logprobs) == len(completion.token_ids)
        assert all(math.isfinite(value) and value <= 0 for value in completion.logprobs)

    async def test_the_texts_of_a_continued_rollout_join_to_the_decoding_of_its_ids(self, policy: Policy) -> None:
        segments = [policy.prompt(QUESTION)]
        segments.append((await policy.sample(segments, GREEDY, max_tokens=5)).segment())
        ids = policy.encode(" Wait, let me use Python:\n```python\n")
        segments.append(Segment(Source.HINT, policy.decode(ids), ids))
        segments.append((await policy.sample(segments, GREEDY, max_tokens=5)).segment())
        every = [token for segment in segments for token in segment.token_ids]
        assert policy.decode(every) == "".join(segment.text for segment in segments)

    @pytest.mark.parametrize("count", [1, 7])
    async def test_max_tokens_is_exact(self, policy: Policy, count: int) -> None:
        completion = await draw(policy, count)
        assert (len(completion.token_ids), completion.finish) == (count, Finish.LENGTH)

    async def test_a_stop_string_inside_a_token_keeps_the_whole_token_and_nothing_after_it(self, policy: Policy) -> None:
        free = await draw(policy, 24)
        stop, count = inside_a_token(policy, free)
        stopped = await draw(policy, 24, stop=["never there", stop])
        assert (stopped.finish, stopped.stop) == (Finish.STOP, stop)
        assert len(stopped.token_ids) == count
        assert stop in stopped.text
        assert not stopped.text.endswith(stop)
        assert stopped.token_ids == free.token_ids[:count]

    async def test_the_end_token_is_the_last_id_and_has_a_log_probability(self, policy: Policy) -> None:
        say: list[Message] = [{"role": "user", "content": "Say OK."}]
        completion = await policy.sample([policy.prompt(say)], GREEDY, max_tokens=200)
        assert completion.finish is Finish.END
        assert completion.text.endswith("<|im_end|>")
        assert completion.text.count("<|im_end|>") == 1
        assert policy.decode(completion.token_ids[-1:]) == "<|im_end|>"
        assert completion.logprobs is not None
        assert len(completion.logprobs) == len(completion.token_ids)

    async def test_a_seed_repeats_its_tokens_and_another_draws_others(self, policy: Policy) -> None:
        first, again, other = [(await draw(policy, 20, HOT, seed=seed)).token_ids for seed in (7, 7, 8)]
        assert first == again
        assert (first != other) == self.seeded

    async def test_concurrent_calls_equal_single_calls(self, policy: Policy) -> None:
        questions = [f"What is {n} plus {n}?" for n in range(1, 5)]
        prompts = [policy.prompt([{"role": "user", "content": question}]) for question in questions]
        single = [await policy.sample([prompt], GREEDY, max_tokens=10) for prompt in prompts]
        together = await asyncio.gather(*(policy.sample([prompt], GREEDY, max_tokens=10) for prompt in prompts))
        for one, other in zip(single, together, strict=True):
            at = next((n for n, pair in enumerate(zip(one.token_ids, other.token_ids, strict=False)) if pair[0] != pair[1]), None)
            if at is not None:  # another shape of the batch rounds differently: two tokens may change places at a near-tie
                assert one.logprobs is not None
                assert other.logprobs is not None
                assert abs(one.logprobs[at] - other.logprobs[at]) <= self.tie
            else:
                assert one == other or self.tie

    async def test_a_full_context_gives_what_fits_and_says_so(self, policy: Policy) -> None:
        prompt = policy.prompt(QUESTION)
        filler = policy.encode("a b c d e f g h " * 4)
        room = policy.context_length - len(prompt.token_ids)
        many = (filler * (room // len(filler) + 1))[: room - 3]
        almost = Segment(Source.HINT, policy.decode(many), many)
        completion = await policy.sample([prompt, almost], GREEDY, max_tokens=50)
        if completion.finish is not Finish.END:
            assert (len(completion.token_ids), completion.finish) == (3, Finish.CONTEXT)
        more = policy.encode("a b c ")[:3]
        full = [prompt, almost, Segment(Source.HINT, policy.decode(more), more)]
        assert await policy.sample(full, GREEDY, max_tokens=50) == Completion("", (), (), Finish.CONTEXT)
