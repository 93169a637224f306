"""The result on disk, from the last checkpoint: weights, tokenizer and chat template as every engine loads them. Imports torch."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from toolreason.train.settings import SftSettings
from toolreason.train.sft_files import ADAPTER, MODEL
from toolreason.train.sft_trainer import load, savable, told

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
)


def save(out: Path, checkpoint: Path, base: str, settings: SftSettings) -> dict[str, str]:
    """Write what is not there yet; the directories, by what they hold. Weights have the precision of the base model's on disk."""
    if not settings.lora:
        return {MODEL: _whole(out / MODEL, lambda made: _weights(load(str(checkpoint), _dtype(base), **_like(base)), base, made))}
    made = {ADAPTER: _whole(out / ADAPTER, lambda made: _adapter(checkpoint, base, made))}
    if settings.merge:
        made[MODEL] = _whole(out / MODEL, lambda made: _weights(merged(base, out / ADAPTER), base, made))
    return made


def merged(base: str, adapter: Path) -> Any:
    """The base model with the adapter in its weights, added in float32."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(load(base, torch.float32), str(adapter)).merge_and_unload()
    return model.to(_dtype(base))


def _whole(directory: Path, write: Callable[[Path], None]) -> str:
    if not directory.exists():
        beside = directory.with_name(f".{directory.name}.new")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        with told(directory):
            write(beside)
            beside.rename(directory)
    return str(directory)


def _weights(model: Any, base: str, directory: Path) -> None:
    """What training changed of the settings (its padding token, its end tokens) is the base model's again."""
    with contextlib.suppress(OSError):  # it has none
        model.generation_config = GenerationConfig.from_pretrained(base)
        savable(model.generation_config)
    model.save_pretrained(directory)
    _tokenizer(base, directory)


def _adapter(checkpoint: Path, base: str, directory: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copyfile(checkpoint / name, directory / name)
    _tokenizer(base, directory)


def _tokenizer(base: str, directory: Path) -> None:
    """The files as they are, where they lie here: nothing was trained that could change them."""
    there = [Path(base) / name for name in TOKENIZER if (Path(base) / name).is_file()]
    if not there:
        AutoTokenizer.from_pretrained(base).save_pretrained(directory)
    for file in there:
        shutil.copyfile(file, directory / file.name)


def _like(base: str) -> dict[str, Any]:
    return {"config": AutoConfig.from_pretrained(base)}


def _dtype(base: str) -> Any:
    return AutoConfig.from_pretrained(base).get_text_config().dtype or torch.float32
