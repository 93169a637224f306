"""The tokenizer of the policy that a run was sampled with."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from toolreason.curate.edits import Codec
from toolreason.errors import InputError
from toolreason.policies.scripted import ScriptedTokenizer

SCRIPTED = "scripted"


class ScriptedCodec:
    """The scripted policy's tokenizer, which knows its end token."""

    def __init__(self) -> None:
        self._tokenizer = ScriptedTokenizer()

    @property
    def end_ids(self) -> Collection[int]:
        return {self._tokenizer.end_id}

    def encode(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        return self._tokenizer.encode(text, special=special)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(token_ids)


def open_codec(policy: str, name: str | None = None, *, local: bool = False) -> Codec:
    """The tokenizer `name` (a name of `toolreason models`, a directory, a .gguf file or a hub id), else that of the policy's spec.
    `local`: nothing is fetched.

    Raises InputError for a policy whose tokenizer is not told by its name, SetupError where it cannot be loaded.
    """
    from toolreason.models import catalogue

    kind, _, model = policy.partition(":")
    if (name or kind) == SCRIPTED:
        return ScriptedCodec()
    told = kind == "transformers" or (kind == "vllm" and ("/" in model or model in catalogue()) and "://" not in model)
    if name is None and not (told and model):
        raise InputError(f"the name of the policy {policy!r} does not tell its tokenizer: give it with --tokenizer NAME_OR_DIR")
    from toolreason.policies.tokenizer import load_tokenizer

    path, gguf = _locate(name or model)
    return load_tokenizer(path, gguf_file=gguf, local=local)


def _locate(name: str) -> tuple[str, str | None]:
    from toolreason import models

    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        return str(path.parent), path.name
    if path.is_dir():
        ggufs = [] if (path / "tokenizer_config.json").exists() else sorted(path.glob("*.gguf"))
        return str(path), ggufs[0].name if ggufs else None
    return (name if "/" in name else str(models.path(name))), None
