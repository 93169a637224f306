"""A policy over a model that is in training: it samples with the weights as they are now. Imports torch: load it late.

What the trainer finds afterwards is what it left: the training mode of every module, the attention implementation, and no tensor
that autograd may not save. Nothing may change the weights while the policy is open; what was computed from them is forgotten when
it closes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import torch

from toolreason.errors import CapabilityError
from toolreason.policies import attention
from toolreason.policies.engine import Engine
from toolreason.policies.tokenizer import ChatTokenizer, as_list, load_tokenizer
from toolreason.policies.transformers import TransformersPolicy

CACHE_TOKENS = 131_072  # keys and values kept for continuations: a turn of each of some hundred rollouts


class LiveEngine(Engine):
    """Samples without gradients, but not in torch's inference mode: a buffer that a forward pass makes there (rotary frequencies of
    some models) could not be used in a training step any more.
    """

    def _turn(self) -> None:
        with torch.inference_mode(False), torch.no_grad():
            super()._turn()


@asynccontextmanager
async def live_policy(
    model: Any,
    tokenizer: Any,
    *,
    name: str,
    context_length: int | None = None,
    max_rows: int = 32,
    cache_tokens: int = CACHE_TOKENS,
) -> AsyncIterator[TransformersPolicy]:
    """The policy over `model`, a causal language model or a PEFT model around one, unwrapped.

    `tokenizer` is a tokenizer of transformers', a `ChatTokenizer`, or the path of one. `name` is what trajectories record;
    `context_length` is at most the model's own. While it is open nobody else may use the model: it is in eval mode. Raises
    CapabilityError for models that the embedded engine cannot run.
    """
    base = _base(model)
    config = base.config.get_text_config()
    ends = as_list(base.generation_config.eos_token_id if base.generation_config else None) or as_list(config.eos_token_id)
    words = _tokenizer(tokenizer, ends)
    longest = int(config.max_position_embeddings)
    with evaluating(model, base):
        engine = LiveEngine(model, max_rows=max_rows, cache_tokens=cache_tokens, threads=torch.get_num_threads())
        try:
            yield TransformersPolicy(engine, words, name=name, context_length=min(context_length or longest, longest))
        finally:
            engine.close()  # not in another thread: the modes may be put back only when its last step is over


@contextmanager
def evaluating(model: Any, base: Any) -> Iterator[None]:
    """Eval mode and the engine's attention, for as long as this is open."""
    modes = [(module, module.training) for module in model.modules()]  # one by one: some may be frozen in eval mode
    before = base.config._attn_implementation
    try:
        model.eval()
        attention.use(base)
        yield
    finally:
        base.set_attn_implementation(before)
        for module, training in modes:
            module.training = training


def _base(model: Any) -> Any:
    """The language model inside. Raises CapabilityError where rows cannot join a batch of it."""
    adapters = getattr(model, "peft_config", None)
    if isinstance(adapters, dict) and any(config.is_prompt_learning for config in adapters.values()):
        raise CapabilityError("adapters that put virtual tokens before the prompt cannot be sampled from in training: use LoRA")
    base = model.get_base_model() if isinstance(adapters, dict) and hasattr(model, "get_base_model") else model
    kinds = set(getattr(base.config.get_text_config(), "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds:
        raise CapabilityError(
            f"the model has layers of kind {', '.join(sorted(kinds))}, which cannot be sampled from in this process: train it with "
            "a vLLM server"
        )
    return base


def _tokenizer(tokenizer: Any, ends: list[int]) -> ChatTokenizer:
    if isinstance(tokenizer, ChatTokenizer):
        return tokenizer
    if isinstance(tokenizer, (str, Path)):
        return load_tokenizer(str(tokenizer), ends=ends)
    return ChatTokenizer(tokenizer, ends, source="the tokenizer in training")
