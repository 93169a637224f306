"""The losses: which tokens have a gradient, to the token, and what corrections and clips make of it."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests.train import agents, tiny
from tests.train.agents import TOKENIZER, Told
from toolreason.errors import SettingsError
from toolreason.train.grpo import GAP, LOSSES, AgenticTrainer, mask_of, preserving
from toolreason.train.live import live_policy
from toolreason.types import Source

# hint, code, its output, the answer: model, hint and tool tokens in one rollout; member 1 is wrong
SAID = ("print(1)\n```\n", "so it is \\boxed{1}, right", "so it is \\boxed{2}")


def hinted(text: str, place: int) -> str:
    return SAID[1 + place % 2] if "```output" in text else SAID[0]


class Watched(AgenticTrainer):
    """Keeps the log-probabilities of the last forward pass with their graph: their gradient is that of each token."""

    def _get_per_token_logps_and_entropies(self, *args: Any, **options: Any) -> Any:
        result = super()._get_per_token_logps_and_entropies(*args, **options)
        self.scored = result[0]
        if self.scored.requires_grad:
            self.scored.retain_grad()
        return result


def watched(tmp_path: Path, loss: str = "dapo", *, correct: bool = False, lora: bool = False, **options: Any) -> Any:
    model = tiny.model(len(TOKENIZER))
    if lora:
        model = get_peft_model(model, LoraConfig(r=4, init_lora_weights=False, task_type="CAUSAL_LM"))
    own = {"correct": correct, "gradient_preserving": loss == "gppo"}
    made = agents.trainer(
        tmp_path,
        Told(hinted),
        agents.plan("hint_infer", "hint=start", "wording=0"),
        model=model,
        kind=Watched,
        options=own,
        vllm_importance_sampling_correction=correct,
        **LOSSES[loss],
        **options,
    )
    made.model.train()
    made.current_gradient_accumulation_steps = 1  # as the training loop sets it
    return made


def batch(trainer: Any) -> dict[str, Any]:
    return trainer._generate_and_score_completions([{"prompt": "p0"} for _ in range(2)])


def token_gradients(trainer: Any, inputs: dict[str, Any]) -> torch.Tensor:
    trainer.model.zero_grad()
    trainer._compute_loss(trainer.model, inputs).backward()
    gradient: torch.Tensor = trainer.scored.grad
    return gradient


PATHS = [(loss, correct, 0.0) for loss in LOSSES for correct in (False, True)] + [("artist", False, 0.1), ("gppo", True, 0.1)]


@pytest.mark.parametrize(("loss", "correct", "beta"), PATHS)
def test_the_gradient_is_zero_on_tool_and_hint_tokens_and_on_no_model_token(
    tmp_path: Path, loss: str, correct: bool, beta: float
) -> None:
    trainer = watched(tmp_path, loss, correct=correct, beta=beta, lora=beta > 0)
    inputs = batch(trainer)
    mask = mask_of(inputs).bool()
    foreign = inputs["completion_mask"].bool() & ~mask
    assert foreign.sum() > 20  # hints and output are there
    assert mask.sum() > 20
    gradient = token_gradients(trainer, inputs)
    assert torch.all(gradient[foreign] == 0)
    assert torch.all(gradient[mask] != 0)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_no_other_path_than_through_model_tokens_leads_to_the_weights(tmp_path: Path, loss: str) -> None:
    trainer = watched(tmp_path, loss)
    inputs = batch(trainer)
    gradient = token_gradients(trainer, inputs)
    weights = {name: value.grad.clone() for name, value in trainer.model.named_parameters() if value.grad is not None}
    trainer.model.zero_grad()
    trainer._compute_loss(trainer.model, inputs)
    (trainer.scored * (gradient * mask_of(inputs))).sum().backward()
    for name, value in trainer.model.named_parameters():
        if value.grad is not None:
            assert torch.allclose(value.grad, weights[name], atol=1e-7)


def test_truncated_importance_sampling_weighs_each_token_by_trainer_over_sampler_and_no_more_than_the_limit(tmp_path: Path) -> None:
    plain, corrected = watched(tmp_path), watched(tmp_path, correct=True)
    inputs = batch(corrected)
    mask = mask_of(inputs).bool()
    sampled = corrected.scored.detach() + torch.tensor([-1.5, 1.0]).repeat(inputs["completion_ids"].shape[1])[: len(mask[0])]
    trainer_over_sampler = torch.exp(corrected.scored.detach() - sampled)
    assert (trainer_over_sampler[mask] > 2).any()
    assert (trainer_over_sampler[mask] < 1).any()
    corrected.rollout_func = _resampled(corrected.rollout_func, sampled)
    inputs = batch(corrected)
    ratio = inputs["importance_sampling_ratio"]
    assert torch.allclose(ratio[mask], trainer_over_sampler.clamp(max=2.0)[mask], rtol=1e-4)
    expected = token_gradients(plain, batch(plain)) * ratio
    assert torch.allclose(token_gradients(corrected, inputs)[mask], expected[mask], rtol=1e-3)
    gaps = (corrected.scored.detach() - sampled).abs()[mask]
    assert corrected._metrics["train"][f"{GAP}/max"][-1] == pytest.approx(gaps.max().item(), rel=1e-3)
    assert corrected.use_vllm is False


def _resampled(rollout_func: Any, sampled: torch.Tensor) -> Any:
    def changed(prompts: Any, trainer: Any) -> Any:
        made = rollout_func(prompts, trainer)
        made["logprobs"] = [values[: len(ids)].tolist() for values, ids in zip(sampled, made["completion_ids"], strict=True)]
        return made

    return changed


def test_the_gradient_preserving_clip_has_the_value_of_ppos_and_the_gradient_of_its_bound() -> None:
    ratios = torch.tensor([[0.5, 0.9, 1.0, 1.1, 2.0]]).repeat(2, 1)
    logs = ratios.log().requires_grad_()
    advantages = torch.tensor([[1.5], [-1.5]])
    objective, clipped = preserving(logs.exp(), advantages, 0.2, 0.3)
    ppo = torch.min(ratios * advantages, ratios.clamp(0.8, 1.3) * advantages)
    assert torch.allclose(objective, ppo)
    objective.sum().backward()
    assert logs.grad is not None
    bounded = torch.tensor([[0.5, 0.9, 1.0, 1.1, 1.3], [0.8, 0.9, 1.0, 1.1, 2.0]])
    assert torch.allclose(logs.grad, bounded * advantages)
    assert clipped.tolist() == [[False, False, False, False, True], [True, False, False, False, False]]


def test_where_nothing_is_clipped_it_is_trls_own_loss_to_the_token(tmp_path: Path) -> None:
    dapo, gppo = watched(tmp_path), watched(tmp_path, "gppo")
    inputs = batch(dapo)
    mine, theirs = gppo._compute_loss(gppo.model, inputs), dapo._compute_loss(dapo.model, inputs)
    assert mine.item() == pytest.approx(theirs.item(), abs=1e-6)
    assert torch.allclose(token_gradients(gppo, inputs), token_gradients(dapo, inputs), atol=1e-7)
    for name in ("entropy", "clip_ratio/region_mean"):
        assert gppo._metrics["train"][name] == pytest.approx(dapo._metrics["train"][name])


def test_where_ratios_are_clipped_ppo_loses_gradients_that_it_keeps_at_the_same_value(tmp_path: Path) -> None:
    dapo, gppo = watched(tmp_path), watched(tmp_path, "gppo")
    inputs = batch(dapo)
    dapo._compute_loss(dapo.model, inputs)
    mask = mask_of(inputs).bool()
    inputs["old_per_token_logps"] = dapo.scored.detach() + 0.7 * torch.where(inputs["advantages"] > 0, -1, 1)[:, None]
    assert gppo._compute_loss(gppo.model, inputs).item() == pytest.approx(dapo._compute_loss(dapo.model, inputs).item(), rel=1e-5)
    assert torch.all(token_gradients(dapo, inputs)[mask] == 0)
    assert torch.all(token_gradients(gppo, inputs)[mask] != 0)


@pytest.mark.parametrize("lora", [False, True])
def test_the_samplers_log_probabilities_are_the_trainers(tmp_path: Path, lora: bool) -> None:
    """A live policy, a whole training step in float32: the gap that is logged is rounding."""

    def live(trainer: Any) -> Any:
        model = trainer.accelerator.unwrap_model(trainer.model)
        return live_policy(model, TOKENIZER, name="live", max_rows=4)

    model = tiny.model(len(TOKENIZER))
    if lora:
        model = get_peft_model(model, LoraConfig(r=4, init_lora_weights=False, task_type="CAUSAL_LM"))
    plan = agents.plan("plain", "max_tokens=24", "system=", weights={"tests.train.test_grpo:spoken": 1.0}, void_turns=False)
    trainer = agents.trainer(tmp_path, None, plan, group=4, policy_of=live, max_steps=2, model=model)
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters() if value.requires_grad}
    trainer.train()
    gaps = [line[f"{GAP}/max"] for line in trainer.state.log_history if f"{GAP}/max" in line]
    assert len(gaps) == 2  # the second step samples with the weights that the first has made
    assert 0 < max(gaps) < 1e-4
    assert any(not torch.equal(before[name], value) for name, value in trainer.model.named_parameters() if value.requires_grad)
    assert trainer.state.log_history[0]["completions/mean_length"] > 5


def spoken(trajectory: Any) -> float:
    """A reward that differs between random texts."""
    return sum(token % 7 for segment in trajectory.segments if segment.source is Source.MODEL for token in segment.token_ids) / 100


def test_what_would_train_on_every_token_is_refused(tmp_path: Path) -> None:
    def tool(x: int) -> int:
        """Gives it back.

        Args:
            x: a number
        """
        return x

    with pytest.raises(SettingsError, match="leave tools="):
        agents.trainer(tmp_path, Told(hinted), agents.plan(), options={"tools": [tool]})


def test_the_other_clip_is_for_the_token_mean_alone(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="loss_type='dapo'"):
        agents.trainer(tmp_path, Told(hinted), agents.plan(), options={"gradient_preserving": True}, loss_type="grpo")
