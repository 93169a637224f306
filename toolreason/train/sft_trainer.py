"""TRL's SFTTrainer, told everything that its defaults would decide otherwise. Imports torch and TRL: load it late.

Rows go in as `input_ids` and `labels` and nothing else: beside a mask column, TRL's choice of what is trained depends on further
settings. Nothing is cut here: `max_length` (1024 by default) is None, or with packing the length that every row fits into.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PrinterCallback, Trainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from toolreason.errors import InfrastructureError, SettingsError, SetupError
from toolreason.train.rows import Rows
from toolreason.train.settings import SftSettings
from toolreason.train.sft_files import CHECKPOINTS


class RowTrainer(SFTTrainer):
    """SFTTrainer without model cards of its own, and with a way to log what was measured beside the loss."""

    def create_model_card(self, *args: Any, **options: Any) -> None:
        """The report says more."""

    @property
    def tokens_seen(self) -> int:
        """The tokens of all steps so far. TRL counts those of this sitting: where it goes on, they are set."""
        return int(self._total_train_tokens)

    @tokens_seen.setter
    def tokens_seen(self, count: int) -> None:
        self._total_train_tokens = count

    def note(self, values: dict[str, float]) -> None:
        """Log these alone: what `log` would add of the steps since it was called last stays for the next line."""
        was = self.control.should_log
        Trainer.log(self, values)
        self.control.should_log = was


def build(
    model: str, tokenizer: Any, rows: Rows, settings: SftSettings, out: Path, *, device: str, precision: str, callbacks: list[Any]
) -> RowTrainer:
    """The trainer of these rows, ready to train. Raises SetupError where the model cannot be loaded, SettingsError for LoRA targets
    that it lacks.
    """
    hush()
    longest = settings.max_length or rows.report.longest
    args = SFTConfig(
        output_dir=str(out / CHECKPOINTS),
        run_name=out.name,
        project="toolreason",
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        num_train_epochs=settings.epochs,
        max_steps=settings.steps or -1,
        learning_rate=settings.rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=settings.seed,
        data_seed=settings.seed,
        bf16=precision == "bfloat16",
        use_cpu=device == "cpu",
        gradient_checkpointing=device != "cpu" if settings.gradient_checkpointing is None else settings.gradient_checkpointing,
        packing=settings.packing,
        max_length=longest if settings.packing else None,
        logging_steps=settings.log_every,
        logging_nan_inf_filter=False,
        save_steps=settings.save_every,
        eval_strategy="no",
        report_to=[] if settings.report_to in ("none", "tensorboard") else [settings.report_to],
        ddp_find_unused_parameters=False,  # all are used
        disable_tqdm=True,
        dataloader_pin_memory=device != "cpu",
    )
    loaded = load(model, torch.bfloat16 if settings.lora and precision == "bfloat16" else torch.float32, settings.attention)
    try:
        trainer = RowTrainer(
            model=loaded,
            args=args,
            train_dataset=datasets.Dataset(rows.train.select(["input_ids", "labels"])),
            processing_class=tokenizer,
            peft_config=adapter(settings) if settings.lora else None,
            callbacks=[*tensorboard(settings, out), *callbacks],
        )
    except ValueError as error:
        if not settings.lora_targets:
            raise
        raise SettingsError(f"lora_targets: {error}") from error
    trainer.remove_callback(PrinterCallback)
    return trainer


def load(model: str, dtype: Any, attention: str = "sdpa", **options: Any) -> Any:
    """A model from a directory or the hub; only safetensors, and no code of its own. Raises SetupError."""
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            model, dtype=dtype, use_safetensors=True, attn_implementation=attention, **options
        )
    except (OSError, ValueError, ImportError) as error:
        raise SetupError(f"no model could be loaded from {model}: {error}") from error
    savable(loaded.generation_config)
    return loaded


def savable(config: Any) -> None:
    """Some models come with a temperature and without sampling, which transformers reads and does not write."""
    try:
        config.validate(strict=True)
    except ValueError:
        config.do_sample = True


@contextmanager
def told(out: Path) -> Iterator[None]:
    """What ends a training through no fault of the data's, as an error that says what to do. Raises InfrastructureError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise InfrastructureError(
            "out of memory: fewer rows at a time (--batch-size 1), shorter ones (--max-length), an adapter (--lora 16), or "
            f"--set gradient_checkpointing=true. {str(error).splitlines()[0]}"
        ) from error
    except (OSError, SafetensorError) as error:
        raise InfrastructureError(f"{out}: {error}. The last checkpoint is kept, and the same command goes on") from error


def hush() -> None:
    """No bars and no advice of the libraries' among our own lines."""
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    for name in ("trl", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)


def adapter(settings: SftSettings) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=settings.lora,
        lora_alpha=settings.lora_alpha or 2 * settings.lora,
        lora_dropout=settings.lora_dropout,
        target_modules=list(settings.lora_targets) or "all-linear",
        task_type="CAUSAL_LM",
    )


def tensorboard(settings: SftSettings, out: Path) -> list[Any]:
    """Its files go beside the checkpoints, not among them."""
    if settings.report_to != "tensorboard":
        return []
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations.integration_utils import TensorBoardCallback

    writer = SummaryWriter(str(out / "tensorboard"))
    return [TensorBoardCallback(writer)]  # type: ignore[no-untyped-call]
