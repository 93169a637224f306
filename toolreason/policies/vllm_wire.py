"""What a vLLM server says, read: its list of models, and the ids and log-probabilities in the events of `/v1/completions`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import httpx

from toolreason.errors import PolicyError, SettingsError
from toolreason.policies.base import Finish
from toolreason.policies.certainty import self_certainty


class Down(Exception):
    """This server failed, in a way that another try may not."""


def base_url(url: str) -> str:
    """`HOST:PORT`, with or without a scheme and `/v1`, as the start of an address."""
    full = url.strip().rstrip("/").removesuffix("/v1")
    return full if "://" in full else f"http://{full}"


async def served_model(client: httpx.AsyncClient, urls: Sequence[str], model: str | None) -> dict[str, Any]:
    """What the servers' lists say of the model: the entry, with the least `max_model_len`; without `model`, of the first listed.

    Those that do not answer now may come back; one must. Raises PolicyError, SettingsError.
    """
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


async def choices(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
    """POST `body` to `url`: the `choices[0]` of each event of a streamed completion. Raises Down, PolicyError."""
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
        raise Down(f"{type(error).__name__}: {error}") from error


def tokens(url: str, choice: dict[str, Any], vocabulary: int = 0) -> Iterator[tuple[int, float, float | None]]:
    """The new ids of a piece of the answer, each with its log-probability and, where `vocabulary` says how many tokens there are,
    its certainty. Raises PolicyError where one is without the other.
    """
    ids = choice.get("token_ids")
    if ids is None:
        if choice.get("text"):
            raise PolicyError(
                f"{url} returns no token ids: it is older than vLLM 0.10.2, or another kind of server; use chat: for it"
            )
        return
    told = choice.get("logprobs") or {}
    logprobs, tops = told.get("token_logprobs") or [], told.get("top_logprobs") or []
    if len(ids) != len(logprobs) or None in logprobs:
        raise PolicyError(f"{url} returned {len(ids)} ids with {len(logprobs)} log-probabilities")
    if vocabulary and (len(tops) != len(ids) or not all(tops)):
        raise PolicyError(f"{url} returned {len(ids)} ids with {len(tops)} rows of top log-probabilities")
    for at, (token, logprob) in enumerate(zip(ids, logprobs, strict=True)):
        certainty = self_certainty([float(value) for value in tops[at].values()], vocabulary) if vocabulary else None
        yield int(token), min(float(logprob), 0.0), certainty


def finish(url: str, choice: dict[str, Any], text: str) -> Finish:
    """Why the server ended a completion, of which `text` has come, that we would not have ended. Raises Down, PolicyError."""
    reason, stop = choice["finish_reason"], choice.get("stop_reason")
    if reason == "length":
        return Finish.CONTEXT
    if reason == "stop" and not isinstance(stop, str):  # an end token that only the server knows
        return Finish.END
    if reason == "stop":
        raise PolicyError(f"{url} stopped at {stop!r}, which its token ids do not spell: {text[-80:]!r}")
    raise Down(f"the server ended the call: {reason}")


def _fault(url: str, status: int, message: str) -> Exception:
    """What a status other than 200 means: the server's trouble (try again), or ours."""
    if status >= 500 or status in (408, 429):
        return Down(f"status {status}: {message}")
    return PolicyError(f"{url} refused the request (status {status}): {message}")
