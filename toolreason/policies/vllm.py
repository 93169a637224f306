"""vLLM servers: token ids in, token ids out, over `/v1/completions`.

The ids that the server reports are the truth; its text is not looked at. They are streamed (`vllm_wire` reads them), decoded here,
and cut at the first token that completes a stop string. A call whose server dies goes on at another, from the tokens that it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import httpx

from toolreason.errors import PolicyError, SettingsError
from toolreason.policies.base import Completion, Message, TextSink
from toolreason.policies.servers import Server, Servers
from toolreason.policies.text import TextStream, prompt_ids
from toolreason.policies.tokenizer import ChatTokenizer, load_tokenizer
from toolreason.policies.vllm_wire import Down, base_url, choices, finish, served_model, tokens
from toolreason.types import Sampling, Segment

NEUTRAL = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "min_p": 0.0}
"""Set in each request: a server takes its defaults from the model's own generation settings."""


class VllmPolicy:
    """Use `await VllmPolicy.connect(...)`. Nothing but the requests leaves this process."""

    exact = True

    def __init__(
        self,
        base_urls: Sequence[str],
        *,
        model: str,
        tokenizer: ChatTokenizer,
        context_length: int,
        client: httpx.AsyncClient,
        tries: int = 4,
        rest_s: float = 0.5,
    ) -> None:
        self.name = f"vllm:{model.rpartition('/')[2] if model.startswith('/') else model}"
        self.context_length = context_length
        self.servers = Servers([base_url(url) for url in base_urls], rest_s=rest_s)
        self._model = model
        self._tokenizer = tokenizer
        self.thinks = tokenizer.thinks
        self._client = client
        self._tries = max(tries, len(base_urls) + 1)

    @classmethod
    async def connect(
        cls,
        base_urls: Sequence[str] | str,
        *,
        model: str | None = None,
        tokenizer: str | ChatTokenizer | None = None,
        api_key: str | None = None,
        timeout_s: float = 600.0,
        tries: int = 4,
        trust_remote_code: bool = False,
    ) -> VllmPolicy:
        """Ask the servers what they serve, and load the tokenizer.

        `model` defaults to the first that is served, `tokenizer` to where the server says that it has the model from (a
        directory or a hub id). `timeout_s` bounds the wait for the next token. Raises PolicyError where no server answers,
        SettingsError where they do not serve the model, SetupError where the tokenizer cannot be loaded.
        """
        urls = [base_url(url) for url in ([base_urls] if isinstance(base_urls, str) else base_urls)]
        if not urls:
            raise SettingsError("no server is given: write vllm:http://HOST:PORT")
        client = _client(api_key, timeout_s)
        try:
            served = await served_model(client, urls, model)
            where = tokenizer or str(served.get("root") or served["id"])
            if isinstance(where, str):
                where = await asyncio.to_thread(load_tokenizer, where, trust_remote_code=trust_remote_code)
            length = int(served["max_model_len"])
        except BaseException:
            await client.aclose()
            raise
        return cls(urls, model=served["id"], tokenizer=where, context_length=length, client=client, tries=tries)

    def prompt(self, messages: Sequence[Message]) -> Segment:
        return self._tokenizer.prompt(messages)

    def encode(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        return self._tokenizer.encode(text, special=special)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(token_ids)

    async def sample(
        self,
        segments: Sequence[Segment],
        sampling: Sampling,
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        seed: int = 0,
        on_text: TextSink | None = None,
    ) -> Completion:
        """See `Policy.sample`. The pieces given to `on_text` join to the text, the end token's included.

        A call that goes on at another server after a failure draws from there on with another seed.
        """
        ids = prompt_ids(segments)
        decode, ends = self._tokenizer.decode, self._tokenizer.end_ids
        stream = TextStream(decode, ids, end_ids=ends, stop=stop, max_tokens=max_tokens, context=self.context_length)
        failures: list[str] = []
        while stream.finish is None:
            server = self.servers.pick([*ids, *stream.ids])
            server.busy += 1
            try:
                await self._stream(server, self._body(ids, stream, sampling, stop, seed + len(failures)), stream, on_text)
                self.servers.worked(server, [*ids, *stream.ids])
            except Down as error:
                self.servers.failed(server)
                failures.append(f"{server.url}: {error}")
            finally:
                server.busy -= 1
            if stream.finish is None:
                await self._rest(failures)
        return stream.completion()

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _rest(self, failures: Sequence[str]) -> None:
        if len(failures) >= self._tries:
            raise PolicyError(f"no server completed the call, after {len(failures)} tries: {'; '.join(dict.fromkeys(failures))}")
        await asyncio.sleep(self.servers.wait_s())

    def _body(self, ids: list[int], stream: TextStream, sampling: Sampling, stop: Sequence[str], seed: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": [*ids, *stream.ids],
            "max_tokens": stream.limit - len(stream.ids),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "stop": [string for string in stop if string],
            "stop_token_ids": sorted(self._tokenizer.end_ids),
            "include_stop_str_in_output": True,
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
            "return_token_ids": True,
            "logprobs": sampling.top_logprobs,  # 0: that of the drawn token alone
            "stream": True,
            **NEUTRAL,
        }
        return body if sampling.temperature == 0 else {**body, "seed": seed}

    async def _stream(self, server: Server, body: dict[str, Any], stream: TextStream, on_text: TextSink | None) -> None:
        """Feed `stream` from one request until it is finished. Raises Down, PolicyError."""
        give = on_text or (lambda piece: None)
        vocabulary = self._tokenizer.vocabulary if body["logprobs"] else 0
        async with aclosing(choices(self._client, f"{server.url}/v1/completions", body)) as answer:  # closing disconnects
            async for choice in answer:
                for token, logprob, certainty in tokens(server.url, choice, vocabulary):
                    if piece := stream.push(token, logprob, certainty):
                        give(piece)
                    if stream.finish is not None:
                        return
                if choice.get("finish_reason"):
                    stream.finish = finish(server.url, choice, stream.text)
                    if piece := stream.flush():
                        give(piece)
                    return
        raise Down("the answer broke off")


def _client(api_key: str | None, timeout_s: float) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
        timeout=httpx.Timeout(timeout_s, connect=10.0, pool=None),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
    )
