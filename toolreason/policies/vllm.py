"""vLLM servers: token ids in, token ids out, over `/v1/completions`.

The ids that the server reports are the truth; its text is not looked at. They are streamed, decoded here, and cut at the first
token that completes a stop string. A call whose server dies goes on at another, from the tokens that it has.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import httpx

from toolreason.errors import PolicyError, SettingsError
from toolreason.policies.base import Completion, Finish, Message, TextSink
from toolreason.policies.servers import Server, Servers
from toolreason.policies.text import TextStream, ids_of
from toolreason.policies.tokenizer import ChatTokenizer, load_tokenizer
from toolreason.types import Sampling, Segment

NEUTRAL = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "min_p": 0.0}
"""Set in each request: a server takes its defaults from the model's own generation settings."""


class _Down(Exception):
    """This server failed, in a way that another try may not."""


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
        self.servers = Servers([_base(url) for url in base_urls], rest_s=rest_s)
        self._model = model
        self._tokenizer = tokenizer
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
        urls = [_base(url) for url in ([base_urls] if isinstance(base_urls, str) else base_urls)]
        if not urls:
            raise SettingsError("no server is given: write vllm:http://HOST:PORT")
        client = _client(api_key, timeout_s)
        try:
            served = await _served(client, urls, model)
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
        ids = ids_of(segments)
        if not ids:
            raise PolicyError("there is nothing to continue: the segments hold no token ids")
        decode, ends = self._tokenizer.decode, self._tokenizer.end_ids
        stream = TextStream(decode, ids, end_ids=ends, stop=stop, max_tokens=max_tokens, context=self.context_length)
        failures: list[str] = []
        while stream.finish is None:
            server = self.servers.pick([*ids, *stream.ids])
            server.busy += 1
            try:
                await self._stream(server, self._body(ids, stream, sampling, stop, seed + len(failures)), stream, on_text)
                self.servers.worked(server, [*ids, *stream.ids])
            except _Down as error:
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
            "logprobs": 0,  # that of the drawn token alone
            "stream": True,
            **NEUTRAL,
        }
        return body if sampling.temperature == 0 else {**body, "seed": seed}

    async def _stream(self, server: Server, body: dict[str, Any], stream: TextStream, on_text: TextSink | None) -> None:
        """Feed `stream` from one request until it is finished. Raises _Down, PolicyError."""
        give = on_text or (lambda piece: None)
        async with aclosing(_choices(self._client, f"{server.url}/v1/completions", body)) as choices:  # closing disconnects
            async for choice in choices:
                for token, logprob in _tokens(server.url, choice):
                    if piece := stream.push(token, logprob):
                        give(piece)
                    if stream.finish is not None:
                        return
                if choice.get("finish_reason"):
                    _end(server.url, stream, choice)
                    if piece := stream.flush():
                        give(piece)
                    return
        raise _Down("the answer broke off")


def _tokens(url: str, choice: dict[str, Any]) -> Iterator[tuple[int, float]]:
    """The new ids of a piece of the answer, with their log-probabilities."""
    ids = choice.get("token_ids")
    if ids is None:
        if choice.get("text"):
            raise PolicyError(
                f"{url} returns no token ids: it is older than vLLM 0.10.2, or another kind of server; use chat: for it"
            )
        return
    logprobs = (choice.get("logprobs") or {}).get("token_logprobs") or []
    if len(ids) != len(logprobs) or None in logprobs:
        raise PolicyError(f"{url} returned {len(ids)} ids with {len(logprobs)} log-probabilities")
    for token, logprob in zip(ids, logprobs, strict=True):
        yield int(token), min(float(logprob), 0.0)


def _end(url: str, stream: TextStream, choice: dict[str, Any]) -> None:
    """The server ended a completion that we would not have ended."""
    reason, stop = choice["finish_reason"], choice.get("stop_reason")
    if reason == "length":
        stream.finish = Finish.CONTEXT
    elif reason == "stop" and not isinstance(stop, str):  # an end token that only the server knows
        stream.finish = Finish.END
    elif reason == "stop":
        raise PolicyError(f"{url} stopped at {stop!r}, which its token ids do not spell: {stream.text[-80:]!r}")
    else:
        raise _Down(f"the server ended the call: {reason}")


async def _choices(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
    """The `choices[0]` of each event of a streamed completion."""
    try:
        async with client.stream("POST", url, json=body) as response:
            if response.status_code != 200:
                await response.aread()
                raise _fault(url, response.status_code, response.text[:500])
            async for line in response.aiter_lines():
                if not line.startswith("data:"):
                    continue
                data = line[5:].strip()
                if data == "[DONE]":
                    return
                event = json.loads(data)
                if "error" in event:
                    raise _fault(url, int(event["error"].get("code") or 500), str(event["error"].get("message")))
                if event.get("choices"):
                    yield event["choices"][0]
    except (httpx.TransportError, httpx.StreamError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _Down(f"{type(error).__name__}: {error}") from error


def _fault(url: str, status: int, message: str) -> Exception:
    """What a status other than 200 means: the server's trouble (try again), or ours."""
    if status >= 500 or status in (408, 429):
        return _Down(f"status {status}: {message}")
    return PolicyError(f"{url} refused the request (status {status}): {message}")


def _client(api_key: str | None, timeout_s: float) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
        timeout=httpx.Timeout(timeout_s, connect=10.0, pool=None),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
    )


async def _served(client: httpx.AsyncClient, urls: Sequence[str], model: str | None) -> dict[str, Any]:
    """What the servers say of the model. Those that do not answer now may come back; one must."""
    answers = await asyncio.gather(*(_models(client, url) for url in urls))
    found: list[dict[str, Any]] = []
    for url, models in zip(urls, answers, strict=True):
        if isinstance(models, str):
            continue
        wanted = model or (found[0]["id"] if found else models[0]["id"] if models else None)
        entry = next((entry for entry in models if entry.get("id") == wanted), None)
        if entry is None:
            raise SettingsError(f"{url} does not serve {wanted}, but {', '.join(str(e.get('id')) for e in models) or 'nothing'}")
        if not entry.get("max_model_len"):
            raise SettingsError(f"{url} does not say its context length: it is no vLLM server; use chat: for it")
        found.append(entry)
    if not found:
        tried = "; ".join(f"{url}: {answer}" for url, answer in zip(urls, answers, strict=True))
        raise PolicyError(
            f"no server answers ({tried}). Start one, `vllm serve MODEL`, or mend the address in vllm:http://HOST:PORT"
        )
    return {**found[0], "max_model_len": min(int(entry["max_model_len"]) for entry in found)}


async def _models(client: httpx.AsyncClient, url: str) -> list[dict[str, Any]] | str:
    """The entries of a server's list of models, or why there are none."""
    try:
        response = await client.get(f"{url}/v1/models", timeout=10.0)
        response.raise_for_status()
        return list(response.json()["data"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"


def _base(url: str) -> str:
    """`HOST:PORT`, with or without a scheme and `/v1`, as the start of an address."""
    full = url.strip().rstrip("/").removesuffix("/v1")
    return full if "://" in full else f"http://{full}"
