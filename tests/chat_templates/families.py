"""Small tokenizers of the families that people train: each with its own pre-tokenizer, added tokens and chat template.

Their vocabularies are trained here on a few lines. The names of the added tokens, which of them are special, and what the templates
write are those of the real models; the templates are written anew, without tool calls and other branches that no test needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from toolreason.policies.tokenizer import ChatTokenizer

TEXT = [
    "Let me think step by step: there are 17 rows of 23 eggs, so the answer is 17 * 23 = 391.",
    "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.",
    "```python\nprint(17 * 23)\n```\n```output\n391\n```\nWait, let me verify this with Python.\n",
    "def f(x):\n    return x + 1\n\nfor i in range(10):\n    print(f(i))\n",
]
QWEN_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA_WORDS = QWEN_WORDS.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


@dataclass(frozen=True)
class Family:
    """`special` and `added` are its added tokens, those that count as special and those that do not. `words` is its
    pre-tokenizer's pattern, None where it is the plain byte-level one with single digits. `starts`: whether the tokenizer itself
    puts a first token before what it encodes.
    """

    name: str
    special: tuple[str, ...]
    added: tuple[str, ...]
    end: str
    first: str | None = None
    words: str | None = QWEN_WORDS
    starts: bool = False
    nfc: bool = False

    def __str__(self) -> str:
        return self.name

    def hugging_face(self) -> Any:
        """The tokenizer as `transformers` loads it."""
        return _hugging_face(self)

    def tokenizer(self) -> ChatTokenizer:
        return ChatTokenizer(self.hugging_face(), source=self.name)


QWEN25 = Family("qwen2.5", ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), ("<tool_call>", "</tool_call>"), "<|im_end|>", nfc=True)
QWEN3 = Family("qwen3", QWEN25.special, (*QWEN25.added, "<think>", "</think>"), "<|im_end|>", nfc=True)
LLAMA3 = Family(
    "llama-3",
    ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    (),
    "<|eot_id|>",
    "<|begin_of_text|>",
    LLAMA_WORDS,
    starts=True,
)
R1_DISTILL = Family(
    "deepseek-r1-distill",
    ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),  # noqa: RUF001 (DeepSeek's bar)
    ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),  # noqa: RUF001
    "<｜end▁of▁sentence｜>",  # noqa: RUF001
    "<｜begin▁of▁sentence｜>",  # noqa: RUF001
    starts=True,
)
SMOLLM2 = Family("smollm2", ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), (), "<|im_end|>", "<|im_start|>", None)
FAMILIES = (QWEN25, QWEN3, LLAMA3, R1_DISTILL, SMOLLM2)


@cache
def _hugging_face(family: Family) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=family.words is None)
    before = (
        pre_tokenizers.Digits(individual_digits=True)
        if family.words is None
        else pre_tokenizers.Split(Regex(family.words), "isolated")
    )
    inner.pre_tokenizer = pre_tokenizers.Sequence([before, byte_level])
    inner.decoder = decoders.ByteLevel()
    if family.nfc:
        inner.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False))
    inner.add_special_tokens([AddedToken(token, special=True) for token in family.special])
    inner.add_tokens([AddedToken(token, special=False, normalized=False) for token in family.added])
    if family.starts:
        assert family.first is not None
        first = (family.first, inner.token_to_id(family.first))
        inner.post_processor = processors.Sequence(
            [processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(f"{family.first} $A", special_tokens=[first])]
        )
    template = (Path(__file__).parent / f"{family.name}.jinja").read_text(encoding="utf-8")
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=family.end, bos_token=family.first, chat_template=template.removesuffix("\n")
    )
