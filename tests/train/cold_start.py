"""A cold start for the smallest real model: a script speaks demonstrations in its tokens, and it is fine-tuned on them briefly.

By itself it never boxes an answer nor calls a tool. After this it boxes one, wrong for large numbers, and writes the program where
Python is on offer or a hint has begun a block: a model with which each stage of START finds something to do.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from toolreason.execution import SessionBook
from toolreason.execution.docker import DockerSandbox
from toolreason.policies.base import Message
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.policies.tokenizer import load_tokenizer
from toolreason.rollouts import rollout
from toolreason.runs import Manifest, RunWriter, problems_hash
from toolreason.strategies.artist import ArtistSettings
from toolreason.strategies.base import Settings, as_dict
from toolreason.strategies.plain import PlainSettings
from toolreason.types import Problem, Reference, ReferenceKind, Sampling, Segment
from toolreason.verify import Verifier

WAYS: dict[str, Settings] = {"plain": PlainSettings(), "artist": ArtistSettings(format="fenced", stateful=True)}
TRAINING = "steps=12 batch_size=8 accumulate=1 learning_rate=1e-4 precision=bfloat16 held_out=0"


def products(count: int, seed: int) -> list[Problem]:
    """Products that the model cannot work out in its head."""
    draw = random.Random(seed)
    pairs = [(draw.randrange(100, 1000), draw.randrange(100, 1000)) for _ in range(count)]
    return [
        Problem(f"product-{seed}-{number}", f"What is {one} * {other}?", Reference(ReferenceKind.MATH, str(one * other)))
        for number, (one, other) in enumerate(pairs)
    ]


class Teacher(ScriptedPolicy):
    """Answers a product: by a program where Python is on offer, from its head otherwise."""

    def __init__(self, model: Path) -> None:
        super().__init__(self._answer, name="teacher")
        self._words = load_tokenizer(str(model))
        end = self._words.encode("<|im_end|>", special=True)[-1]
        self.tokenizer = SimpleNamespace(encode=self._words.encode, decode=self._words.decode, end_id=end)  # type: ignore[assignment]

    def prompt(self, messages: Sequence[Message]) -> Segment:
        return self._words.prompt(messages)

    def _answer(self, prompt: str, index: int) -> str:
        asked, _, said = prompt.rpartition("<|im_start|>assistant\n")
        product = asked.rpartition("What is ")[2].partition("?")[0]
        if "Python" in asked and not said:
            return f"```python\nprint({product})\n```\n"
        one, other = product.split(" * ")
        return f"The answer is \\boxed{{{int(one) * int(other)}}}."


async def demonstrate(model: Path, out: Path, asked: Sequence[Problem]) -> None:
    """A run directory for each way of answering, in `out`."""
    policy = Teacher(model)
    async with DockerSandbox(density="shared") as sandbox, Verifier(sandbox=sandbox) as verifier:
        sessions = SessionBook(sandbox)
        for way, settings in WAYS.items():
            manifest = Manifest(way, as_dict(settings), policy.name, Sampling(), "products", problems_hash(list(asked)))
            with RunWriter.open(out / way, manifest) as writer:
                for problem in asked:
                    done = await rollout(problem, strategy=way, settings=settings, policy=policy, sessions=sessions)
                    await writer.append(done.with_verdict(await verifier(problem, done)))


def train(model: Path, data: Path, out: Path) -> Path:
    """The model after a few updates on the demonstrations in `data`."""
    runs = [str(data / way) for way in WAYS]
    settings = [word for pair in TRAINING.split() for word in ("--set", pair)]
    subprocess.run(
        [sys.executable, "-m", "toolreason", "train", "sft", *runs, "-m", str(model), "-o", str(out), *settings, "--json"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return out / "model"
