"""Several servers behind one policy: who is asked, and what happens when one dies. The servers are httpx's mock transport."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from toolreason.errors import PolicyError, SettingsError
from toolreason.policies import Finish, VllmPolicy
from toolreason.policies.scripted import ScriptedTokenizer
from toolreason.policies.servers import BLOCK, SLACK, Servers
from toolreason.types import Sampling, Segment, Source

GREEDY = Sampling()
TOKENIZER = ScriptedTokenizer()
ANSWER = [*TOKENIZER.encode("one two three"), TOKENIZER.end_id]


class Tokenizer(ScriptedTokenizer):
    end_ids = frozenset([TOKENIZER.end_id])
    thinks = False
    vocabulary = TOKENIZER.end_id + 1


@dataclass
class Fake:
    """A server that continues `ANSWER`, in its way: `fault` is 'refuse', 'break' (after two tokens), 'busy' or None."""

    fault: str | None = None
    seen: list[dict[str, Any]] = field(default_factory=list)
    extra: list[dict[str, Any]] = field(default_factory=list)

    async def answer(self, request: httpx.Request) -> httpx.Response:
        if self.fault == "refuse":
            raise httpx.ConnectError("connection refused")
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "small", "root": "/m/small", "max_model_len": 512}]})
        if self.fault == "busy":
            return httpx.Response(503, text="overloaded")
        body = json.loads(request.content)
        self.seen.append(body)
        if body["prompt"][0] == 0:
            return httpx.Response(400, text="out of vocabulary")
        return httpx.Response(200, content=self.events(body))

    async def events(self, body: dict[str, Any]) -> AsyncIterator[bytes]:
        start = next((n for n in range(len(ANSWER), 0, -1) if body["prompt"][-n:] == ANSWER[:n]), 0)
        for count, token in enumerate(ANSWER[start : start + body["max_tokens"]]):
            if self.fault == "break" and count == 2:
                raise httpx.ReadError("connection reset")
            await asyncio.sleep(0)
            yield event({"token_ids": [token], "logprobs": {"token_logprobs": [-0.5]}, "text": "ignored"})
        for choice in self.extra:
            yield event(choice)
        yield b"data: [DONE]\n\n"


def event(choice: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "finish_reason": None, **choice}]}).encode() + b"\n\n"


Make = Callable[..., VllmPolicy]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """A policy over these servers, at http://a, http://b, ..."""
    made: list[VllmPolicy] = []

    def build(*fakes: Fake) -> VllmPolicy:
        table = {chr(ord("a") + n): fake for n, fake in enumerate(fakes)}
        client = httpx.AsyncClient(transport=httpx.MockTransport(lambda request: table[request.url.host].answer(request)))
        policy = VllmPolicy(
            list(table),
            model="small",
            tokenizer=Tokenizer(),
            context_length=512,
            client=client,
            rest_s=0.001,  # type: ignore[arg-type]
        )
        made.append(policy)
        return policy

    yield build
    for policy in made:
        await policy.aclose()


def prompt(text: str = "tell me") -> list[Segment]:
    return [Segment(Source.PROMPT, text, TOKENIZER.encode(text))]


async def test_the_ids_are_believed_and_the_server_s_text_is_not(make: Make) -> None:
    completion = await make(Fake()).sample(prompt(), GREEDY, max_tokens=50)
    assert (list(completion.token_ids), completion.finish) == (ANSWER, Finish.END)
    assert completion.text == "one two three<|im_end|>"
    assert completion.logprobs == (-0.5,) * len(ANSWER)


async def test_the_request_leaves_nothing_to_the_server_s_defaults(make: Make) -> None:
    fake = Fake()
    policy = make(fake)
    await policy.sample(prompt(), Sampling(temperature=0.7, top_p=0.9, top_k=5), max_tokens=3, stop=["x", ""], seed=11)
    body = fake.seen[0]
    assert {name: body[name] for name in ("temperature", "top_p", "top_k", "seed", "max_tokens", "stop")} == {
        "temperature": 0.7, "top_p": 0.9, "top_k": 5, "seed": 11, "max_tokens": 3, "stop": ["x"],
    }  # fmt: skip
    assert (body["repetition_penalty"], body["min_p"]) == (1.0, 0.0)
    assert body["prompt"] == list(prompt()[0].token_ids)
    assert body["include_stop_str_in_output"]
    assert not body["skip_special_tokens"]


async def test_calls_at_once_are_spread_over_the_servers(make: Make) -> None:
    fakes = [Fake(), Fake(), Fake()]
    policy = make(*fakes)
    await asyncio.gather(*(policy.sample(prompt(f"question {n}"), GREEDY, max_tokens=50) for n in range(9)))
    assert [len(fake.seen) for fake in fakes] == [3, 3, 3]
    assert [server.busy for server in policy.servers.all] == [0, 0, 0]


async def test_a_continuation_goes_where_its_prefix_is(make: Make) -> None:
    fakes = [Fake(), Fake()]
    policy = make(*fakes)
    long = [prompt(letter * 3 * BLOCK) for letter in "pqrs"]
    firsts = await asyncio.gather(*(policy.sample(segments, GREEDY, max_tokens=4) for segments in long))
    homes = [next(n for n, f in enumerate(fakes) for body in f.seen if body["prompt"] == list(s[0].token_ids)) for s in long]
    assert sorted(homes) == [0, 0, 1, 1]
    for fake in fakes:
        fake.seen.clear()
    for segments, first in zip(long, firsts, strict=True):
        await policy.sample([*segments, first.segment()], GREEDY, max_tokens=4)
    again = [
        next(n for n, f in enumerate(fakes) for body in f.seen if body["prompt"][:BLOCK] == list(s[0].token_ids)[:BLOCK])
        for s in long
    ]
    assert again == homes


@pytest.mark.parametrize("fault", ["refuse", "busy"])
async def test_a_dead_server_is_taken_out_and_comes_back(make: Make, fault: str) -> None:
    dead, alive = Fake(fault), Fake()
    policy = make(dead, alive)
    for _ in range(3):
        assert (await policy.sample(prompt(), GREEDY, max_tokens=50)).finish is Finish.END
    assert policy.servers.all[0].faults >= 1
    dead.fault = None
    alive.fault = "refuse"
    assert (await policy.sample(prompt(), GREEDY, max_tokens=50)).finish is Finish.END
    assert policy.servers.all[0].faults == 0
    assert dead.seen


async def test_a_call_whose_server_dies_goes_on_from_the_tokens_it_has(make: Make) -> None:
    breaking, alive = Fake("break"), Fake()
    policy = make(breaking, alive)
    pieces: list[str] = []
    completion = await policy.sample(prompt(), GREEDY, max_tokens=50, on_text=pieces.append)
    assert list(completion.token_ids) == ANSWER
    assert "".join(pieces) == completion.text
    assert alive.seen[0]["prompt"] == [*prompt()[0].token_ids, *ANSWER[:2]]
    assert alive.seen[0]["max_tokens"] == 48


async def test_when_all_are_dead_the_error_names_them(make: Make) -> None:
    with pytest.raises(PolicyError, match="http://a: ConnectError: connection refused; http://b"):
        await make(Fake("refuse"), Fake("refuse")).sample(prompt(), GREEDY, max_tokens=5)


async def test_what_a_server_refuses_is_not_tried_again(make: Make) -> None:
    fake = Fake()
    policy = make(fake)
    with pytest.raises(PolicyError, match=r"status 400\): out of vocabulary"):
        await policy.sample([Segment(Source.PROMPT, "x", (0,))], GREEDY, max_tokens=5)
    assert len(fake.seen) == 1
    assert policy.servers.all[0].faults == 0


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"text": "words"}, "returns no token ids"),
        ({"token_ids": [65], "logprobs": None}, "1 ids with 0 log-probabilities"),
        ({"token_ids": [], "finish_reason": "stop", "stop_reason": "zzz"}, "do not spell"),
    ],
)
async def test_an_answer_that_makes_no_sense_is_an_error(make: Make, choice: dict[str, Any], message: str) -> None:
    fake = Fake(extra=[choice])
    whole = [Segment(Source.PROMPT, "x", tuple(ANSWER))]  # nothing of the answer is left to say
    with pytest.raises(PolicyError, match=message):
        await make(fake).sample(whole, GREEDY, max_tokens=5)


async def test_an_end_token_that_only_the_server_knows_ends_the_turn(make: Make) -> None:
    fake = Fake(extra=[{"token_ids": [66], "logprobs": {"token_logprobs": [-1.0]}, "finish_reason": "stop", "stop_reason": 66}])
    whole = [Segment(Source.PROMPT, "x", tuple(ANSWER))]
    completion = await make(fake).sample(whole, GREEDY, max_tokens=5)
    assert (completion.token_ids, completion.text, completion.finish) == ((66,), "B", Finish.END)


async def test_connecting_to_nothing_names_the_url() -> None:
    with pytest.raises(PolicyError, match=r"http://127\.0\.0\.1:9: Connect"):
        await VllmPolicy.connect("127.0.0.1:9/v1")
    with pytest.raises(SettingsError, match="no server"):
        await VllmPolicy.connect([])


def test_a_home_that_is_too_busy_is_passed_over() -> None:
    servers = Servers(["a", "b"])
    ids = list(range(2 * BLOCK))
    home = servers.all[1]
    servers.worked(home, ids)
    assert servers.pick(ids) is home
    home.busy = SLACK + 1
    assert servers.pick(ids) is servers.all[0]


def test_a_short_common_prefix_is_no_home() -> None:
    servers = Servers(["a", "b"])
    servers.worked(servers.all[1], list(range(BLOCK)))
    servers.all[1].busy = 1
    assert servers.pick([*range(BLOCK), *range(500, 500 + 2 * BLOCK)]) is servers.all[0]


def test_rests_double_and_end() -> None:
    now = [0.0]
    servers = Servers(["a"], rest_s=1.0, clock=lambda: now[0])
    rests = []
    for _ in range(7):
        servers.failed(servers.all[0])
        rests.append(servers.wait_s())
    assert rests == [1, 2, 4, 8, 16, 30, 30]
    now[0] = 30.0
    assert servers.wait_s() == 0
