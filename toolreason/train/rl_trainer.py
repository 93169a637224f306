"""TRL's trainer for `rl`, told everything that its defaults would decide otherwise. Imports torch and TRL: load it late."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl.trainer.grpo_config import GRPOConfig

from toolreason.errors import SettingsError
from toolreason.policies.base import Policy
from toolreason.policies.tokenizer import ChatTokenizer
from toolreason.train import sft_files, sft_model
from toolreason.train.grpo import LOSSES, AgenticTrainer
from toolreason.train.live import live_policy
from toolreason.train.rl_settings import Plan, RlSettings
from toolreason.train.rl_step import Crew
from toolreason.train.rl_vllm import server_policy
from toolreason.train.rollouts import PolicyOf, Rollouts, prompts, reward_functions, schedule
from toolreason.train.sft_callbacks import Keeper, Listener, Progress, Stopper
from toolreason.train.sft_files import Metrics
from toolreason.train.sft_model import Base
from toolreason.train.sft_trainer import adapter, hush, load, tensorboard
from toolreason.types import Problem

if TYPE_CHECKING:
    from toolreason.train.rl import Task


@dataclass(frozen=True)
class Parts:
    """What a trainer is made of."""

    out: Path
    base: Base
    task: Task
    known: Mapping[str, Problem]
    settings: RlSettings
    plan: Plan
    device: str
    precision: str
    metrics: Metrics
    stopper: Stopper
    listen: Listener


class RlKeeper(Keeper):
    """Tells the reward instead of the loss, which says nothing."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        super().on_step_end(args, state, control, **kwargs)
        reward = self._metrics.last("reward")
        more = "" if reward is None else f"reward {reward:.3f}"
        self._listen(Progress("training", state.global_step, state.max_steps, more))


def build(parts: Parts, crews: Mapping[str, Crew], policy_of: PolicyOf, *, resumed: bool) -> AgenticTrainer:
    """The trainer, ready to train. Raises SetupError where the model cannot be loaded, SettingsError for LoRA targets it lacks."""
    hush()
    settings, plan = parts.settings, parts.plan
    keeper = RlKeeper(parts.out, parts.metrics, parts.stopper, settings.keep, parts.listen)
    frozen = settings.lora and parts.precision == "bfloat16"
    evaluated = Dataset.from_list(prompts(parts.task.evaluated)) if parts.task.evaluated else None
    order = schedule(parts.task.problems, settings.problems, settings.steps, settings.seed)
    try:
        trainer = AgenticTrainer(
            model=load(parts.base.path, torch.bfloat16 if frozen else torch.float32),
            processing_class=parts.base.tokenizer,
            reward_funcs=reward_functions(plan.weights),
            args=_arguments(parts, resumed),
            train_dataset=Dataset.from_list(prompts(order)),
            eval_dataset=evaluated,
            peft_config=adapter(settings.shared) if settings.lora else None,
            callbacks=[*tensorboard(settings.shared, parts.out), keeper],
            rollouts=Rollouts(parts.known, policy_of, crews),
            correct=settings.corrected,
            gradient_preserving=settings.loss == "gppo",
            same_scale=settings.temperature == 1 or settings.vllm is not None,
        )
    except ValueError as error:
        if not settings.lora_targets:
            raise
        raise SettingsError(f"lora_targets: {error}") from error
    keeper.trainer = trainer
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(parts: Parts, resumed: bool) -> GRPOConfig:
    settings, plan, cpu = parts.settings, parts.plan, parts.device == "cpu"
    size = settings.batch_size or settings.group
    mine = settings.group * settings.problems // sft_model.processes()
    checkpointing = settings.gradient_checkpointing
    return GRPOConfig(
        output_dir=str(parts.out / sft_files.CHECKPOINTS),
        run_name=parts.out.name,
        project="toolreason",
        max_steps=settings.steps,
        shuffle_dataset=False,  # `schedule` has
        per_device_train_batch_size=size,
        gradient_accumulation_steps=mine // size,
        num_generations=settings.group,
        num_iterations=settings.iterations,
        reward_weights=list(plan.weights.values()),
        temperature=settings.temperature,
        max_completion_length=plan.way.settings.max_tokens,
        mask_truncated_completions=False,  # it takes a rollout that we stopped at its answer for a truncated one
        beta=settings.beta,
        epsilon=settings.clip,
        epsilon_high=settings.clip_high,
        learning_rate=settings.rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=settings.seed,
        data_seed=settings.seed,
        bf16=parts.precision == "bfloat16",
        use_cpu=cpu,
        gradient_checkpointing=not cpu if checkpointing is None else checkpointing,
        use_vllm=settings.vllm is not None,
        vllm_mode="server",
        vllm_server_base_url=settings.vllm,
        vllm_importance_sampling_correction=settings.corrected,
        vllm_importance_sampling_mode="token_truncate",
        vllm_importance_sampling_clip_max=settings.correction_limit,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_steps=settings.save_every,
        report_to=[] if settings.report_to in ("none", "tensorboard") else [settings.report_to],
        disable_tqdm=True,
        dataloader_pin_memory=not cpu,
        **LOSSES[settings.loss],
        **(_evaluation(parts, resumed) if parts.task.evaluated else {"eval_strategy": "no"}),
    )


def _evaluation(parts: Parts, resumed: bool) -> dict[str, Any]:
    """All rollouts of an evaluation in one batch, before the first step and every so many."""
    settings = parts.settings
    mine = -(-len(parts.task.evaluated) // sft_model.processes())
    return {
        "eval_strategy": "steps",
        "eval_steps": settings.eval_every or settings.steps,
        "eval_on_start": not resumed,
        "num_generations_eval": settings.eval_samples,
        "per_device_eval_batch_size": settings.eval_samples * mine,
    }


def sampler(settings: RlSettings, base: Base) -> PolicyOf:
    """Who samples: a vLLM server that has the weights, or the model in training itself."""
    words = ChatTokenizer(base.tokenizer, base.fit.ends, source=base.path)
    name = f"train:{base.name}"

    def of(trainer: Any) -> AbstractAsyncContextManager[Policy]:
        if settings.vllm is not None:
            return server_policy(settings.vllm, words, name=name)
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise SettingsError("a model that is divided between processes cannot sample: give a vLLM server (vllm=URL)")
        return live_policy(trainer.accelerator.unwrap_model(trainer.model), words, name=name, max_rows=settings.rows)

    return of
