"""Sampling from a model in training: the log-probabilities are the trainer's, and the trainer finds everything as it left it."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

import asyncio
from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import Qwen2Config, Qwen2ForCausalLM

from tests.chat_templates.families import QWEN25
from toolreason.errors import CapabilityError, PolicyError
from toolreason.policies.base import Completion, Finish
from toolreason.train.live import live_policy
from toolreason.types import Sampling, Segment, Source

TOKENIZER = QWEN25.hugging_face()
KINDS = ["plain", "lora", "checkpointed"]


def tiny(kind: str = "plain", attention: str = "sdpa", dropout: float = 0.0) -> Any:
    """A Qwen2 of two layers with grouped queries, in training mode; with adapters that do something."""
    torch.manual_seed(7)
    config = Qwen2Config(
        vocab_size=len(TOKENIZER),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        attention_dropout=dropout,
        eos_token_id=TOKENIZER.eos_token_id,
    )
    model: Any = Qwen2ForCausalLM._from_config(config, attn_implementation=attention)
    if kind != "plain":
        model = get_peft_model(model, LoraConfig(r=4, init_lora_weights=False, task_type="CAUSAL_LM"))
    if kind == "checkpointed":
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    return model.train()


async def drawn(model: Any, words: str = "How many eggs?", **options: Any) -> tuple[Segment, Completion]:
    async with live_policy(model, TOKENIZER, name="live", **options) as policy:
        prompt = policy.prompt([{"role": "user", "content": words}])
        return prompt, await policy.sample([prompt], Sampling(1.0), max_tokens=20, seed=3)


def logprobs(model: Any, prompt: Segment, done: Completion) -> torch.Tensor:
    """Those of the drawn tokens in the forward pass of a training step, with its graph."""
    ids = torch.tensor([[*prompt.token_ids, *done.token_ids]])
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, len(prompt.token_ids) - 1 : -1]
    return torch.log_softmax(logits, -1).gather(1, torch.tensor(done.token_ids)[:, None])[:, 0]


def gradients(model: Any, prompt: Segment, done: Completion) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)  # dropout
    model.zero_grad()
    (-logprobs(model, prompt, done).mean()).backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
async def test_its_log_probabilities_are_those_of_the_training_forward_pass(kind: str) -> None:
    model = tiny(kind)
    prompt, done = await drawn(model)
    assert len(done.token_ids) > 5
    assert done.logprobs == pytest.approx(logprobs(model, prompt, done).tolist(), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
async def test_training_gradients_after_it_are_what_they_were_without_it(kind: str, attention: str) -> None:
    model = tiny(kind, attention, dropout=0.2)
    prompt, done = await drawn(tiny(kind, attention))
    before = gradients(model, prompt, done)
    await drawn(model)
    after = gradients(model, prompt, done)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(value.abs().max() > 0 for value in after.values())


async def test_modes_and_attention_are_put_back_one_by_one_even_after_a_failure() -> None:
    model = tiny(attention="eager")
    model.model.layers[0].eval()  # frozen by its owner
    modes = [module.training for module in model.modules()]
    with pytest.raises(RuntimeError, match="in between"):
        await _failing(model)
    assert [module.training for module in model.modules()] == modes
    assert model.config._attn_implementation == "eager"


async def _failing(model: Any) -> None:
    async with live_policy(model, TOKENIZER, name="live"):
        assert not any(module.training for module in model.modules())
        raise RuntimeError("in between")


async def test_it_samples_with_the_weights_as_they_are_now() -> None:
    model = tiny()
    prompt, before = await drawn(model)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.05 * torch.randn_like(value))
    _, after = await drawn(model)
    assert after.logprobs == pytest.approx(logprobs(model, prompt, after).tolist(), abs=1e-5)
    assert after.logprobs != before.logprobs


async def test_calls_in_one_batch_and_continuations_draw_what_they_would_alone() -> None:
    model = tiny()
    alone = [await drawn(model, words) for words in ("How many eggs?", "And rows?")]
    async with live_policy(model, TOKENIZER, name="live") as policy:
        calls = [policy.sample([prompt], Sampling(1.0), max_tokens=20, seed=3) for prompt, _ in alone]
        together = await asyncio.gather(*calls)
        first = together[0].segment()
        rest = await policy.sample([alone[0][0], first, Segment(Source.HINT, "x", policy.encode("x"))], Sampling(1.0), max_tokens=5)
    assert [done.token_ids for done in together] == [done.token_ids for _, done in alone]
    assert rest.finish in (Finish.LENGTH, Finish.END)
    assert policy.stats.prefix_hits >= 1


async def test_what_is_in_flight_when_it_closes_fails_and_modes_are_put_back() -> None:
    model = tiny()
    async with live_policy(model, TOKENIZER, name="live") as policy:
        prompt = policy.prompt([{"role": "user", "content": "x"}])
        call = asyncio.ensure_future(policy.sample([prompt], Sampling(1.0), max_tokens=200))
        await asyncio.sleep(0)
    with pytest.raises(PolicyError):
        await call
    assert model.training


async def test_virtual_tokens_are_refused() -> None:
    model = get_peft_model(tiny(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    with pytest.raises(CapabilityError, match="use LoRA"):
        async with live_policy(model, TOKENIZER, name="live"):
            pass


async def test_the_context_is_never_longer_than_the_models_own() -> None:
    async with live_policy(tiny(), TOKENIZER, name="live", context_length=9999) as policy:
        assert policy.context_length == 256
        assert policy.name == "live"
