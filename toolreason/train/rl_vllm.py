"""Sampling from a vLLM server that TRL sends the weights to: whole rollouts, token ids in and out.

TRL 1.16 talks to a plain `vllm serve` with its development endpoints. Before the rollouts of a step it sends the new weights and
has the server forget its prefix cache; the rollouts then find a policy here, `VllmPolicy` over the same server's completions. None
of them goes through TRL's own client, which waits for all calls of a batch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from toolreason.errors import PolicyError, SettingsError, SetupError
from toolreason.policies.tokenizer import ChatTokenizer
from toolreason.policies.vllm import VllmPolicy
from toolreason.policies.vllm_wire import base_url

START = (
    'VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config \'{"backend": "nccl"}\' --logprobs-mode processed_logprobs '
    "--max-logprobs -1"
)


@asynccontextmanager
async def server_policy(url: str, tokenizer: ChatTokenizer, *, name: str) -> AsyncIterator[VllmPolicy]:
    """The policy over the server at `url`. `name` is what trajectories record. Raises PolicyError where it does not answer."""
    policy = await VllmPolicy.connect(url, tokenizer=tokenizer)
    policy.name = name
    try:
        yield policy
    finally:
        await policy.aclose()


def check_trainer(device: str) -> None:
    """Whether this process can send weights. Raises SetupError where it has no vLLM, whose transport TRL uses, or no GPU."""
    if importlib.util.find_spec("vllm") is None:
        raise SetupError("weights are sent by vLLM's own transport, so it is needed here too: pip install 'toolreason[vllm]'")
    if device != "cuda":
        raise SetupError(
            f"weights are sent from a GPU, and this trains on {device}. Leave `vllm` out: the model in training then samples itself"
        )


def check_server(url: str, temperature: float) -> dict[str, Any]:
    """The server's configuration, as it tells it (blocking), before anything is loaded. Raises SetupError, with the command to
    start it by, for one that cannot be trained with, SettingsError where its log-probabilities are at another temperature,
    PolicyError for none.
    """
    address = base_url(url)
    try:
        answer = httpx.get(f"{address}/server_info", params={"config_format": "json"}, timeout=30)
        info = answer.json().get("vllm_config", {}) if answer.status_code == 200 else {}
    except (httpx.HTTPError, ValueError, AttributeError) as error:
        raise PolicyError(f"no vLLM server answers at {address} ({error}). Start one: {START}") from error
    if answer.status_code == 404:
        raise SetupError(f"the server at {address} has no development endpoints, which weights are sent by. Start it so: {START}")
    if answer.status_code != 200:
        raise PolicyError(f"{address}/server_info answers with status {answer.status_code}: {answer.text[:200]}")
    if not info.get("weight_transfer_config"):
        raise SetupError(f"the server at {address} cannot be sent weights. Start it so: {START}")
    mode = (info.get("model_config") or {}).get("logprobs_mode")
    if mode != "processed_logprobs" and temperature != 1:
        raise SettingsError(
            f"the server at {address} gives {mode}, which are not those of temperature {temperature}: start it with "
            "--logprobs-mode processed_logprobs, or train at temperature 1"
        )
    return dict(info)
