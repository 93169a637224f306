"""The tokenizer of a run, and the modifications under a tokenizer of the kind that models have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.curate.traces import row
from toolreason.curate import modify
from toolreason.curate.edits import Codec
from toolreason.curate.settings import CurateSettings
from toolreason.curate.steps import Fall
from toolreason.curate.tokenizer import ScriptedCodec, open_codec
from toolreason.errors import InputError, SettingsError
from toolreason.types import Segment, Source, StopReason, Trajectory
from toolreason.verify import extract

CORPUS = [
    "Wait, let me think. Wait, wait: it is \\boxed{42}.\n",
    "```python3\nprint(6 * 7)\n```\n",
    "```py\n",
    "So, so 日本 é 🧮\n\n",
]
END = "<|end|>"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE tokenizer trained on a few lines, saved as models have it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(CORPUS * 20, trainers.BpeTrainer(vocab_size=400, special_tokens=[END], initial_alphabet=alphabet))
    path = tmp_path_factory.mktemp("tokenizer")
    wrapped: Any = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=END)
    wrapped.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def codec(directory: Path) -> Codec:
    return open_codec("vllm:whatever", str(directory))


def test_the_policy_names_its_tokenizer_or_it_has_to_be_given(directory: Path) -> None:
    assert isinstance(open_codec("scripted"), ScriptedCodec)
    assert isinstance(open_codec("scripted:replies.json"), ScriptedCodec)
    assert open_codec(f"transformers:{directory}").decode(open_codec("x", str(directory)).encode("né 🧮")) == "né 🧮"
    for unknown in ("vllm:http://localhost:8000", "vllm:mine", "chat:openai:gpt", "transformers:"):
        with pytest.raises(InputError, match="--tokenizer"):
            open_codec(unknown)
    with pytest.raises(SettingsError, match="no model is named"):
        open_codec("transformers:nothing")


def trace(codec: Codec, parts: tuple[str, str], ended: bool) -> Trajectory:
    texts = [*parts, END] if ended else parts
    encoded = [codec.encode(text, special=text is END) for text in texts]
    ids = (encoded[0], encoded[1] + (encoded[2] if ended else ()))
    segments = [Segment(Source.PROMPT, "?", codec.encode("?"))]
    segments += [Segment(Source.MODEL, codec.decode(some), some, tuple(-0.5 for _ in some)) for some in ids]
    return Trajectory("t", "p", "plain", "vllm:whatever", tuple(segments), StopReason.ANSWERED)


PIECES = st.sampled_from(["Wait, ", "wait, ", "\n", " ", "```py\n", "```python3\n", "```\n", "\\boxed{42}", "é🧮", "x = 6", "."])
TEXTS = st.lists(PIECES, max_size=10).map("".join)


@given(st.tuples(TEXTS, TEXTS), st.booleans())
def test_modified_traces_are_exact(codec: Codec, parts: tuple[str, str], ended: bool) -> None:
    before = trace(codec, parts, ended)
    assert modify.exact(before, codec)
    done = modify.modified(row(before), codec, CurateSettings())
    if isinstance(done, Fall):
        return
    after = done.trajectory
    assert modify.exact(after, codec)
    assert after.text.endswith(END) == ended
    assert extract.answer(extract.own_text(after.segments)) == extract.answer(extract.own_text(before.segments))


def test_all_three_modifications_work_on_a_usual_answer(codec: Codec) -> None:
    said = "Wait, wait, I compute.\n```py\nprint(6 * 7)\n```\nSo \\boxed{42}.\nIt is \\boxed{42}.\nAnd then 日本"
    done = modify.modified(row(trace(codec, ("", said), True)), codec, CurateSettings())
    assert not isinstance(done, Fall)
    assert done.trajectory.text == "?Wait, I compute.\n```python\nprint(6 * 7)\n```\nSo \\boxed{42}.\nIt is \\boxed{42}." + END
    assert len(done.edits) == 3
