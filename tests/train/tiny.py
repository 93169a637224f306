"""Models of a few thousand random weights, a tokenizer that reads real text, and training rows: what tests of training need."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.chat_templates.families import QWEN25, Family
from toolreason.runs import Manifest, RunWriter
from toolreason.types import Cell, CellResult, Judgement, Outcome, Sampling, Segment, Source, StopReason, Trajectory, Verdict

IGNORED = -100
FAMILY = QWEN25
LENGTH = 512  # the most tokens a tiny model takes
HINT = "\n\nWait, let me verify this with Python.\n```python\n"


def model(vocab_size: int, *, seed: int = 0, family: Family = FAMILY) -> Any:
    """A Qwen2ForCausalLM of 2 layers and 32 hidden, its weights drawn from `seed`, with the end token of the family."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    end = family.hugging_face().eos_token_id
    config = Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        initializer_range=0.2,  # so large that what is drawn depends on what stands before
        eos_token_id=end,
        bos_token_id=None,
        pad_token_id=end,
    )
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    made = Qwen2ForCausalLM(config)
    torch.set_rng_state(state)
    made.generation_config.eos_token_id, made.generation_config.pad_token_id = end, end
    return made


def save(directory: Path, *, seed: int = 0, family: Family = FAMILY) -> Path:
    """A model and its tokenizer with a chat template, as `AutoTokenizer` and `TransformersPolicy.load` read them."""
    tokenizer = family.hugging_face()
    model(len(tokenizer), seed=seed, family=family).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


class Speaker:
    """Writes segments as a rollout does, with the ids of a family's tokenizer."""

    def __init__(self, family: Family = FAMILY) -> None:
        self.tokenizer = family.tokenizer()
        self.end = int(family.hugging_face().eos_token_id)

    def prompt(self, question: str) -> Segment:
        return self.tokenizer.prompt([{"role": "user", "content": question}])

    def model(self, text: str, *, end: bool = False) -> Segment:
        ids = self.tokenizer.encode(text) + ((self.end,) if end else ())
        return Segment(Source.MODEL, self.tokenizer.decode(ids), ids, tuple(-0.1 * (1 + token % 7) for token in ids))

    def hint(self, text: str = HINT) -> Segment:
        return self._inserted(Source.HINT, text)

    def tool(self, code: str, output: str) -> Segment:
        cell = Cell("c", code, CellResult(Outcome.OK, output))
        return self._inserted(Source.TOOL, f"```output\n{output}```\n", cell)

    def _inserted(self, source: Source, text: str, cell: Cell | None = None) -> Segment:
        ids = self.tokenizer.encode(text)
        return Segment(source, self.tokenizer.decode(ids), ids, cell=cell)


def trajectory(number: int, *, end: bool = True, right: bool = True, speaker: Speaker | None = None) -> Trajectory:
    """A product of its own, with its verdict: thoughts, a hint, code, its output, the answer."""
    say = speaker or Speaker()
    left, other = 11 + number, 23 + 2 * number
    code, product = f"print({left} * {other})", left * other
    segments = (
        say.prompt(f"What is {left} * {other}?"),
        say.model("Let me think step by step."),
        say.hint(),
        say.model(f"{code}\n```\n"),
        say.tool(code, f"{product}\n"),
        say.model(f"So the answer is \\boxed{{{product}}}.", end=end),
    )
    verdict = Verdict(Judgement.CORRECT if right else Judgement.WRONG, str(product))
    return Trajectory(f"t{number}", f"p{number}", "hint_infer", "tiny", segments, StopReason.ANSWERED, verdict=verdict)


def run(directory: Path, trajectories: Iterable[Trajectory]) -> Path:
    """A run directory of these trajectories."""
    with RunWriter.open(directory, Manifest("hint_infer", {}, "tiny", Sampling(), "p.jsonl", "0" * 16)) as writer:
        for one in trajectories:
            writer.write(one)
    return directory


def rows(count: int, *, family: Family = FAMILY) -> list[dict[str, Any]]:
    """Rows as `toolreason export --for sft` makes them, of `trajectory`."""
    from toolreason import export

    say = Speaker(family)
    return list(export.rows(trajectory(number, speaker=say) for number in range(count)))


def random_rows(
    count: int, vocab_size: int, *, seed: int = 0, lengths: Sequence[int] = (5, 9, 14), sources: Sequence[str] = ("model", "tool")
) -> list[dict[str, Any]]:
    """Rows of random ids: a prompt of 3 tokens, then tokens of these sources in turn; only `tool` is not trained."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        length = lengths[number % len(lengths)]
        ids = [draw.randrange(vocab_size) for _ in range(3 + length)]
        written = ["prompt"] * 3 + [sources[(at // 2) % len(sources)] for at in range(length)]
        labels = [token if source not in ("prompt", "tool") else IGNORED for token, source in zip(ids, written, strict=True)]
        runs = [{"source": source, "count": 1} for source in written]
        made.append({"id": f"r{number}", "problem_id": f"p{number}", "input_ids": ids, "labels": labels, "sources": runs})
    return made


def jsonl(file: Path, made: Iterable[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return file
