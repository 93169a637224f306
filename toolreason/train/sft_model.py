"""The model to train, before it is loaded: where it lies, what fits it, and a name for its content."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from toolreason import models
from toolreason.errors import InputError, SettingsError, SetupError
from toolreason.policies.tokenizer import ChatTokenizer, end_tokens, quiet
from toolreason.policies.transformers import locate
from toolreason.train.settings import SftSettings
from toolreason.train.sft_data import Model

LIBRARIES = ("torch", "transformers", "trl", "datasets", "accelerate", "peft")
REPORTERS = {"tensorboard": "tensorboard", "trackio": "trackio", "wandb": "wandb"}  # what is imported for each


@dataclass(frozen=True, slots=True)
class Base:
    """`path` is a directory or hub id; `fit` what rows have to fit; `digest` names the content of its files."""

    name: str
    path: str
    tokenizer: Any
    fit: Model
    digest: str


def require(settings: SftSettings) -> None:
    """Raise SetupError, with the command that mends it, where a library is missing."""
    quiet()  # before any of them is imported
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise SetupError(f"training needs {' and '.join(missing)}: pip install 'toolreason[train]'")
    needed = REPORTERS.get(settings.report_to)
    if needed is not None and find_spec(needed) is None:
        raise SetupError(f"--report-to {settings.report_to} needs a package that is not here: pip install {needed}")


def find(name: str) -> Base:
    """The model of this name: one of `toolreason models`, a directory, or a hub id (blocking).

    Raises SetupError where it cannot be read, InputError for a GGUF file: its weights are rounded.
    """
    from transformers import AutoConfig, AutoTokenizer

    path, gguf = locate(name)
    if gguf is not None:
        raise InputError(f"{name} is a GGUF file, whose weights are rounded: train from a directory of safetensors")
    if Path(path).is_dir():
        path = str(Path(path).resolve())  # an adapter remembers it
    try:
        config, tokenizer = AutoConfig.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, ImportError) as error:
        raise SetupError(f"no model could be read from {path}: {error}") from error
    text = config.get_text_config()
    words = ChatTokenizer(tokenizer, end_tokens(path), source=path)
    first = [tokenizer.eos_token_id] if tokenizer.eos_token_id in words.end_ids else []
    ends = (*first, *sorted(words.end_ids - set(first)))
    fit = Model(int(text.vocab_size), int(text.max_position_embeddings), ends, words.decode)
    return Base(name, path, tokenizer, fit, _digest(path, config))


def _digest(path: str, config: Any) -> str:
    """A hub model by its commit, a directory by its files; those of `toolreason models` were hashed when they were pulled."""
    if not Path(path).is_dir():
        return f"hub:{path}@{getattr(config, '_commit_hash', None)}"
    listed = Path(path) / models.MANIFEST
    if listed.is_file() and models.home() in listed.parents:
        hashes = json.loads(listed.read_text(encoding="utf-8"))["files"]
    else:
        kinds = {".safetensors", ".json", ".jinja", ".model", ".txt"}
        hashes = {file.name: models.sha256(file) for file in sorted(Path(path).iterdir()) if file.suffix in kinds}
    return sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()[:16]


def device(settings: SftSettings) -> str:
    """What it is trained on. Raises SettingsError for a GPU that is not there, or for several in one process."""
    import torch

    if settings.device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("there is no GPU that torch can use: --set device=cpu")
    if settings.device == "cpu" or not torch.cuda.is_available():
        return "cpu"
    if torch.cuda.device_count() > 1 and processes() == 1:
        raise SettingsError(
            f"{torch.cuda.device_count()} GPUs are visible, and one process trains on one: set CUDA_VISIBLE_DEVICES=0, or start a "
            "process for each with `accelerate launch -m toolreason train sft ...`"
        )
    return "cuda"


def precision(settings: SftSettings, where: str) -> str:
    import torch

    if settings.precision != "auto":
        return settings.precision
    return "bfloat16" if where == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def processes() -> int:
    """How many processes train together, as their launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("toolreason", *LIBRARIES)}
