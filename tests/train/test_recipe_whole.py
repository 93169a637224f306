"""`toolreason train start` as its user runs it, from a file of problems to START: a real model, a real sandbox, real training."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.train import cold_start
from toolreason import problems, runs
from toolreason.types import Source, Trajectory

pytestmark = [pytest.mark.model, pytest.mark.docker]

CONFIG = """
model = "{model}"
problems = "{problems}"
fresh = "{fresh}"
sandbox = "shared"
concurrency = 16
plain = {{set = ["max_tokens=48"]}}
hinted = {{samples = 2, temperature = 0.7, set = ["max_tokens=72"]}}
sampled = {{samples = 2, temperature = 0.6, top_p = 0.95, set = {way}}}
evaluate = {{set = {way}}}
curate = {{per_problem = 1}}
sft = {{epochs = 4, batch_size = 4, accumulate = 1, learning_rate = 1e-4, precision = "bfloat16", held_out = 0}}
"""
WAY = ["format=fenced", "stateful=true", "offered=false", "max_tokens=72"]
STAGES = "plain hinted fresh-base curate-start-0 train-start-0 sampled fresh-start-0 curate-start train-start fresh-start"


@pytest.fixture(scope="module")
def recipe(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config file, for the model after its cold start."""
    place = tmp_path_factory.mktemp("recipe")
    asyncio.run(cold_start.demonstrate(small_model, place / "shown", cold_start.products(32, seed=1)))
    model = cold_start.train(small_model, place / "shown", place / "cold")
    learn, fresh = place / "learn.jsonl", place / "fresh.jsonl"
    problems.dump(cold_start.products(12, seed=2), learn)
    problems.dump(cold_start.products(6, seed=3), fresh)
    config = place / "recipe.toml"
    config.write_text(CONFIG.format(model=model, problems=learn, fresh=fresh, way=json.dumps(WAY)))
    return config


@pytest.mark.timeout(900)
def test_the_whole_of_it_killed_in_the_middle_and_gone_on_with(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "start"
    command = [sys.executable, "-m", "toolreason", "train", "start", str(recipe), "--out", str(out), "--json"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while not (out / "stages" / "plain.json").exists():
            assert process.poll() is None
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 130
    first = (out / "stages" / "plain.json").read_bytes()
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)

    assert {file.stem for file in (out / "stages").iterdir()} == set(STAGES.split())
    assert (out / "stages" / "plain.json").read_bytes() == first
    hinted, sampled = (list(runs.read(out / "sets" / name)) for name in ("start-0", "start"))
    assert hinted
    assert all(Source.HINT in sources(one) and one.cells for one in hinted)
    assert sampled
    assert all(Source.HINT not in sources(one) and one.policy.endswith("models/start-0/model") for one in sampled)
    assert all((out / "models" / name / "model" / "model.safetensors").exists() for name in ("start-0", "start"))
    base, start_0, start = report["fresh"]
    assert (base["model"], start_0["model"], start["model"]) == ("base", "start-0", "start")
    assert base["calls"] < min(start_0["calls"], start["calls"])  # the habit is learnt
    assert base["right"]["correct"] < start["right"]["correct"]


def sources(done: Trajectory) -> set[Source]:
    return {segment.source for segment in done.segments}
