"""TRL's `GRPOTrainer` with what it leaves out for samplers other than vLLM, and with GPPO's clip. Imports torch and TRL.

- *Truncated importance sampling*: TRL weighs each token by the trainer's over the sampler's probability, cut off at a limit, with
  `use_vllm` only. Here the same code runs for any sampler.
- *The gap* between the sampler's and the trainer's log-probabilities is logged always, under TRL's names.
- *GPPO* (Klear-Reasoner, arXiv 2508.07629): the value of PPO's clipped objective, but a clipped token keeps a gradient, that of the
  bound, instead of none.

The masks of `env_mask` hold in all of it: a masked token is in no sum.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from trl.trainer.grpo_trainer import GRPOTrainer

from toolreason.errors import SettingsError
from toolreason.train.rollouts import BESIDE_TOOLS, Rollouts

GAP = "sampling/sampling_logp_difference"

LOSSES: dict[str, dict[str, Any]] = {
    "artist": {"loss_type": "grpo"},
    "dapo": {"loss_type": "dapo"},
    "dr_grpo": {"loss_type": "dr_grpo", "scale_rewards": "none"},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    "gppo": {"loss_type": "dapo"},  # and `gradient_preserving`
}
"""The aggregations by our names, as TRL's arguments."""


class AgenticTrainer(GRPOTrainer):
    """`correct`: weigh tokens by importance, with the mode and limit of the arguments' `vllm_importance_sampling_*`.

    `gradient_preserving`: GPPO's clip, aggregated as `loss_type="dapo"` does. `same_scale`: whether the sampler's log-probabilities
    are at the trainer's temperature, so that the gap means something. Raises SettingsError beside `tools=`.
    """

    args: Any
    model: Any

    def __init__(
        self,
        *,
        rollouts: Rollouts,
        correct: bool = False,
        gradient_preserving: bool = False,
        same_scale: bool = True,
        **options: Any,
    ) -> None:
        if options.get("tools") or options.get("environment_factory"):
            raise SettingsError(BESIDE_TOOLS)
        self.gradient_preserving, self.same_scale = gradient_preserving, same_scale
        self._logps: Tensor | None = None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You are using 'rollout_func'", UserWarning)
            super().__init__(rollout_func=rollouts, **options)
        self.correct = correct or (self.use_vllm and self.vllm_importance_sampling_correction)
        if gradient_preserving and (self.loss_type != "dapo" or self.importance_sampling_level != "token"):
            raise SettingsError("the gradient-preserving clip is for loss_type='dapo' and the ratio of each token")

    @contextmanager
    def _with(self, **values: Any) -> Iterator[None]:
        """These attributes, for as long as this is open."""
        before = {name: getattr(self, name) for name in values}
        try:
            for name, value in values.items():
                setattr(self, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL asks `use_vllm` whether to correct. For an evaluation nothing is computed beside the rewards: its batch is large."""
        training = {"use_vllm": self.correct}
        with self._with(**training if self.model.training else {"use_vllm": False, "num_iterations": 1, "beta": 0.0}):
            output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        return output

    def _generate(self, prompts: list[Any]) -> Any:
        with self._with(use_vllm=self.args.use_vllm):  # here it asks whether there is a server to send weights to
            return super()._generate(prompts)

    def prediction_step(self, model: Any, inputs: Any, *_: Any, **__: Any) -> tuple[None, None, None]:
        """Roll out and score. The loss of an evaluation says nothing."""
        self._prepare_inputs(inputs)
        return None, None, None

    def _get_per_token_logps_and_entropies(self, *args: Any, **options: Any) -> Any:
        result = super()._get_per_token_logps_and_entropies(*args, **options)
        self._logps = result[0].detach()
        return result

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        losses = self._preserving_loss if self.gradient_preserving else super()._compute_loss
        with self._with(use_vllm=self.correct):
            loss: Tensor = losses(model, inputs)
        if self.same_scale and not self.correct:  # else TRL has logged it
            self._log_gap(inputs)
        return loss

    def create_model_card(self, *args: Any, **options: Any) -> None:
        """The report says more."""

    @property
    def tokens_seen(self) -> int:
        return int(self.state.num_input_tokens_seen)

    def _log_gap(self, inputs: dict[str, Any]) -> None:
        sampled = inputs.get("sampling_per_token_logps")
        if sampled is None or self._logps is None:
            return
        gaps = (self._logps - sampled).abs()[mask_of(inputs).bool()]
        if gaps.numel():
            mode = "train" if self.model.training else "eval"
            self._metrics[mode][f"{GAP}/mean"].append(gaps.mean().item())
            self._metrics[mode][f"{GAP}/max"].append(gaps.max().item())

    def _preserving_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """As TRL's `dapo`, with the other clip."""
        mask = mask_of(inputs)
        logps, entropies = self._scored(model, inputs)
        old = inputs.get("old_per_token_logps")
        ratio = torch.exp(logps - (logps.detach() if old is None else old))
        advantages = inputs["advantages"].unsqueeze(1) if inputs["advantages"].dim() == 1 else inputs["advantages"]
        objective, clipped = preserving(ratio, advantages, self.epsilon_low, self.epsilon_high)
        losses = -objective
        if "importance_sampling_ratio" in inputs:
            losses = losses * inputs["importance_sampling_ratio"]
        if self.beta:
            apart = inputs["ref_per_token_logps"] - logps
            losses = losses + self.beta * (torch.exp(apart) - apart - 1)
        self._log_means({"entropy": entropies, "clip_ratio/region_mean": clipped.float()}, mask)
        return (losses * mask).sum() / self._tokens(inputs)

    def _scored(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The model's log-probabilities of the completions' tokens and the entropies there: (rows, tokens) each."""
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        attended = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        keep = inputs["completion_ids"].size(1)
        logps, entropies, _ = self._get_per_token_logps_and_entropies(model, ids, attended, keep, compute_entropy=True)
        return logps, entropies

    def _tokens(self, inputs: dict[str, Any]) -> Tensor:
        """How many trained tokens an update has, its share of this process."""
        count: Tensor = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
        if self.model.training:
            count = count * self.current_gradient_accumulation_steps / self.args.steps_per_generation
        return count

    def _log_means(self, values: Mapping[str, Tensor], mask: Tensor) -> None:
        mode = "train" if self.model.training else "eval"
        for name, value in values.items():
            sums = self.accelerator.reduce(torch.stack([(value * mask).sum(), mask.sum().float()]), reduction="sum")
            self._metrics[mode][name].append((sums[0] / sums[1].clamp(min=1.0)).item())


def mask_of(inputs: Mapping[str, Tensor]) -> Tensor:
    """(rows, tokens): 1 where a token is trained."""
    return inputs["completion_mask"] * inputs["tool_mask"] if "tool_mask" in inputs else inputs["completion_mask"]


def preserving(ratio: Tensor, advantages: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """PPO's clipped objective, (rows, tokens), in value; its gradient is that of the log-probability, times the bounded ratio and
    the advantage. And where it was bounded. `ratio` (rows, tokens), `advantages` (rows, 1 or tokens).
    """
    gains = advantages > 0
    bounded = torch.where(gains, ratio.clamp(max=1 + high), ratio.clamp(min=1 - low)).detach()
    clipped = torch.where(gains, ratio > 1 + high, (ratio < 1 - low) & (advantages < 0))
    return bounded * (ratio / ratio.detach()) * advantages, clipped
