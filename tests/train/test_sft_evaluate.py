"""Rolling out the model in training: when, what is measured, what is kept, and that training does not notice."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from toolreason import runs
from toolreason.errors import PolicyError
from toolreason.execution import ScriptedSandbox
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.strategies.base import load, parse_settings
from toolreason.train import evaluate, sft, sft_files
from toolreason.train.evaluate import Evaluation
from toolreason.train.settings import HINTED, SftSettings
from toolreason.train.sft_callbacks import Progress
from toolreason.types import Problem, Reference, ReferenceKind, Source

SETTINGS = SftSettings(steps=4, batch_size=2, accumulate=1, learning_rate=3e-3, held_out=0.2, save_every=2, eval_every=2)
DROPPING = replace(SETTINGS, lora=4, lora_dropout=0.3)  # random numbers matter
PROBLEMS = [Problem(id_, f"What is {id_}?", Reference(ReferenceKind.MATH, "42")) for id_ in ("6 * 7", "40 + 2", "41")]
CALL, ANSWER = "Let me see.\n```python\nprint(6*7)\n```\n", "So \\boxed{42}."


def plan(**more: Any) -> Evaluation:
    settings = parse_settings(load("artist").settings, HINTED)
    sandbox = lambda sessions: ScriptedSandbox({"print(6*7)": "42\n"})  # noqa: E731
    return Evaluation(PROBLEMS, "fresh.jsonl", "artist", settings, sandbox, 2, **more)


def says(prompt: str, index: int) -> str:
    """One problem with a call, one without, one wrong."""
    if "41" in prompt:
        return "It is \\boxed{41}."
    return CALL if "6 * 7" in prompt and "```output" not in prompt else ANSWER


@asynccontextmanager
async def scripted(model: Any, tokenizer: Any, *, name: str) -> AsyncIterator[ScriptedPolicy]:
    policy = ScriptedPolicy(says)
    policy.name = name
    yield policy


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def alone(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An adapter trained with nothing beside it."""
    out = tmp_path_factory.mktemp("runs") / "alone"
    sft.train([data], str(model), out, replace(DROPPING, eval_every=0))
    return adapter(out)


def adapter(out: Path) -> bytes:
    return (out / "adapter" / "adapter_model.safetensors").read_bytes()


async def test_accuracy_tool_use_calls_and_tokens_are_those_of_the_rollouts(tmp_path: Path) -> None:
    summary = await evaluate.evaluate(plan(), lambda name: scripted(None, "", name=name), "sft@0", tmp_path / "run")
    found = evaluate.measures(summary)
    assert (found["accuracy"], found["scored"], found["rollouts"], found["aborted"]) == (2 / 3, 3, 3, 0)
    assert (found["tool_use"], found["calls"], found["failing"]) == (1 / 3, 1 / 3, 0)
    assert found["accuracy_low"] < 2 / 3 < found["accuracy_high"]
    assert found["tool_use_low"] < 1 / 3 < found["tool_use_high"]
    kept = list(runs.read(tmp_path / "run"))
    assert found["tokens"] == sum(one.tokens(Source.MODEL) for one in kept) / 3
    assert runs.manifest(tmp_path / "run").policy == "sft@0"
    assert {one.sampling.temperature for one in kept} == {0.0}


def test_rollouts_are_made_before_during_and_after_and_kept_as_runs(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = sft.train([data], str(model), out, SETTINGS, evaluation=plan(), open_policy=scripted)
    assert [one["step"] for one in report["evaluations"]] == [0, 2, 4]
    assert {one["accuracy"] for one in report["evaluations"]} == {2 / 3}
    assert not [name for one in report["evaluations"] for name in one if name.startswith("loss")]
    assert [path.name for path in sorted((out / "evaluations").iterdir())] == ["step-000000", "step-000002", "step-000004"]
    assert len(list(runs.read(out / "evaluations" / "step-000004"))) == len(PROBLEMS)
    assert [line["step"] for line in sft_files.read_metrics(out) if "eval_accuracy" in line] == [0, 2, 4]
    assert [line["step"] for line in sft_files.read_metrics(out) if "loss" in line] == [1, 2, 3, 4]


def test_the_model_in_training_is_what_samples_and_what_is_trained_does_not_change(
    model: Path, data: Path, alone: bytes, tmp_path: Path
) -> None:
    short = replace(plan(), settings=replace(plan().settings, max_tokens=6))
    out = tmp_path / "watched"
    report = sft.train([data], str(model), out, DROPPING, evaluation=short)
    assert adapter(out) == alone
    assert [one["rollouts"] for one in report["evaluations"]] == [3, 3, 3]
    first, last = (
        [one.token_ids for one in sorted(runs.read(out / "evaluations" / step), key=lambda one: one.problem_id)]
        for step in ("step-000000", "step-000004")
    )
    assert first != last


def test_problems_that_are_trained_on_too_are_told(model: Path, data: Path, tmp_path: Path) -> None:
    known = replace(plan(), problems=[Problem("p1", "6 * 7?", PROBLEMS[0].reference), *PROBLEMS])
    told: list[Progress] = []
    once = replace(SETTINGS, steps=1, held_out=0.0)
    report = sft.train([data], str(model), tmp_path / "out", once, evaluation=known, open_policy=scripted, listen=told.append)
    assert (report["rolled_out"]["known"], report["rolled_out"]["problems"]) == (1, 4)
    assert ["1 of the 4 problems" in one.what for one in told if one.lasting] == [True]


def test_ctrl_c_during_rollouts_ends_them_and_training_goes_on_as_if_nothing_had_been(
    model: Path, data: Path, alone: bytes, tmp_path: Path
) -> None:
    interrupted = []

    @asynccontextmanager
    async def hanging(model: Any, tokenizer: Any, *, name: str) -> AsyncIterator[ScriptedPolicy]:
        import asyncio

        if name.endswith("@2"):
            interrupted.append(name)
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)
        async with scripted(model, tokenizer, name=name) as policy:
            yield policy

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        sft.train([data], str(model), out, DROPPING, evaluation=plan(), open_policy=hanging)
    assert interrupted == ["out@2"]
    assert [path.name for path in sft_files.checkpoints(out)] == ["checkpoint-2"]
    report = sft.train([data], str(model), out, DROPPING, evaluation=plan(), open_policy=scripted)
    assert [one["step"] for one in report["evaluations"]] == [0, 4]
    assert adapter(out) == alone


def test_rollouts_that_fail_end_a_run_only_before_its_first_step(model: Path, data: Path, tmp_path: Path) -> None:
    failing = "@2"

    @asynccontextmanager
    async def broken(model: Any, tokenizer: Any, *, name: str) -> AsyncIterator[ScriptedPolicy]:
        if name.endswith(failing):
            raise PolicyError("no memory")
        yield ScriptedPolicy(says)

    told: list[Progress] = []
    report = sft.train([data], str(model), tmp_path / "a", SETTINGS, evaluation=plan(), open_policy=broken, listen=told.append)
    assert [(one["step"], "failed" in one) for one in report["evaluations"]] == [(0, False), (2, True), (4, False)]
    assert [one.what for one in told if one.lasting] == ["the rollouts at step 2 failed: no memory"]
    failing = "@0"
    with pytest.raises(PolicyError, match="no memory"):
        sft.train([data], str(model), tmp_path / "b", SETTINGS, evaluation=plan(), open_policy=broken)
