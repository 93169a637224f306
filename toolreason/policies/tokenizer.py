"""A Hugging Face tokenizer as the exact policies need it: nothing added, nothing cleaned up, nothing skipped."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import Any

from toolreason.errors import CapabilityError, SetupError
from toolreason.policies.base import Message
from toolreason.types import Segment, Source

MARK = "x7x"  # stands for an assistant's words when the template is asked how it ends a turn


class ChatTokenizer:
    """Renders prompts, encodes and decodes. Safe to call from several threads: the Rust tokenizer under it alone is not.

    `end_ids` are the tokens with which the model ends its turn: those of the model's generation settings (`ends`), and the one
    that the chat template writes after an assistant's words. `thinks`: whether the template knows `<think>`;
    `vocabulary`: how many tokens there are.
    """

    def __init__(self, tokenizer: Any, ends: Sequence[int] = (), source: str = "this model") -> None:
        self._tokenizer = tokenizer
        self._source = source
        self._lock = threading.Lock()
        self._added = _inside(
            [token.content for token in tokenizer.added_tokens_decoder.values() if not token.special and token.content.strip()]
        )
        self.vocabulary = len(tokenizer)
        self.thinks = "<think>" in str(tokenizer.chat_template or "")
        known = [*ends] or ([tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else [])
        self.end_ids = frozenset(int(token) for token in [*known, *self._turn_end()])

    def prompt(self, messages: Sequence[Message]) -> Segment:
        """The prompt segment up to where the model speaks. Raises CapabilityError where there is no chat template."""
        if not self._tokenizer.chat_template:
            raise CapabilityError(
                f"{self._source} has no chat template, so messages cannot be turned into its prompt: "
                "choose an instruction-tuned model, or put a chat_template.jinja beside its tokenizer"
            )
        with self._lock:
            text = self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
            ids = self._tokenizer.encode(text, add_special_tokens=False)
        return Segment(Source.PROMPT, self.decode(ids), tuple(ids))

    def encode(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        """The ids of `text`. Added tokens that it spells stay plain text unless `special`: tool output must not end a turn.

        Some that open a turn do not count as special (DeepSeek-R1's `<｜User｜>`), so text is encoded apart on either side of
        their first character.
        """  # noqa: RUF002 (DeepSeek's bar)
        parts = [text] if special or self._added is None else self._added.split(text)
        with self._lock:
            encoded = (
                self._tokenizer.encode(part, add_special_tokens=False, split_special_tokens=not special) for part in parts if part
            )
            return tuple(token for ids in encoded for token in ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        with self._lock:
            text: str = self._tokenizer.decode(
                list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False, spaces_between_special_tokens=False
            )
        return text

    def _turn_end(self) -> list[int]:
        """The special token that the template writes after an assistant's words, if any."""
        turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": MARK}]
        try:
            text = self._tokenizer.apply_chat_template(turns, tokenize=False)
        except Exception:  # no template, or one that refuses these turns
            return []
        ids = self._tokenizer.encode(text.rpartition(MARK)[2], add_special_tokens=False)
        added = self._tokenizer.added_tokens_decoder  # `all_special_ids` lacks those without a role of their own
        return [ids[0]] if ids and ids[0] in added and added[ids[0]].special else []


def _inside(names: Sequence[str]) -> re.Pattern[str] | None:
    """Matches the empty place after the first character of each of these, None where there are none."""
    places = [f"(?<={re.escape(name[0])})(?={re.escape(name[1:])})" for name in names if len(name) > 1]
    return re.compile("|".join(places)) if places else None


def load_tokenizer(
    path: str,
    *,
    ends: Sequence[int] = (),
    trust_remote_code: bool = False,
    gguf_file: str | None = None,
    local: bool = False,
) -> ChatTokenizer:
    """The tokenizer of a local directory or hub id (blocking). Raises SetupError where it cannot be loaded.

    `ends` are end tokens that the caller knows of; where there are none, the model's generation settings are read. `local`: nothing
    is fetched; of a hub's models those are found that lie in its cache here.
    """
    quiet()
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise SetupError(f"tokenizers need transformers ({error}): pip install 'toolreason[transformers]'") from error
    options = {"gguf_file": gguf_file} if gguf_file else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code, local_files_only=local, **options)
    except (OSError, ValueError, ImportError) as error:
        raise SetupError(f"no tokenizer could be loaded from {path}: {error}") from error
    return ChatTokenizer(tokenizer, ends or end_tokens(path, local=local), source=path)


def end_tokens(path: str, *, local: bool = False) -> list[int]:
    """The end tokens that a model's generation settings (else its config) name; none where it has neither."""
    from transformers import AutoConfig, GenerationConfig

    for kind in (GenerationConfig, AutoConfig):
        try:
            ids = as_list(getattr(kind.from_pretrained(path, local_files_only=local), "eos_token_id", None))
        except (OSError, ValueError):
            continue
        if ids:
            return ids
    return []


def as_list(ids: int | list[int] | None) -> list[int]:
    """The end tokens of a config field that is one id, several or none."""
    return [] if ids is None else list(ids) if isinstance(ids, (list, tuple)) else [ids]


def quiet() -> None:
    """Settings that libraries read when they are imported: no telemetry leaves this process, and its threads wait asleep."""
    import os

    for name in ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "VLLM_NO_USAGE_STATS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # ours are short texts, and forks follow
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning at barriers costs a factor of 5 where cells share the cores
