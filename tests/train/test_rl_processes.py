"""Several processes roll out and train in step: the same rollouts as one process, each written once, and the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.train import tiny
from toolreason import runs
from toolreason.types import Source, Trajectory

OWN = f"{__name__}:spoken=1"
OPTIONS = {
    "strategy": "plain",
    "rewards": "outcome",
    "reward": OWN,
    "group": 3,
    "per-step": 2,
    "steps": 3,
    "learning-rate": 1e-2,
    "save-every": 2,
    "max-tokens": 16,
}


def spoken(trajectory: Trajectory) -> float:
    """A reward that differs between random texts."""
    return sum(token % 7 for segment in trajectory.segments if segment.source is Source.MODEL for token in segment.token_ids) / 100


def test_two_processes_roll_out_and_train_as_one_does(tmp_path: Path) -> None:
    model = tiny.save(tmp_path / "base")
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps({"id": f"p{n}", "question": f"{n}?", "answer": str(n)}) + "\n" for n in range(4)))
    options = [text for name, value in OPTIONS.items() for text in (f"--{name}", str(value))]
    settings = ["--set", "system=", "--option", "void_turns=false", "--option", "device=cpu", "--json"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    launches = {"one": [], "two": ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]}
    reports = {}
    for name, launch in launches.items():
        out = ["-m", str(model), "-o", str(tmp_path / name)]
        command = [sys.executable, "-m", *launch, "toolreason", "train", "rl", str(problems), *out, *options, *settings]
        run = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, env=env)
        assert run.returncode == 0, run.stderr
        reports[name] = json.loads(run.stdout)  # one of them speaks

    rolled = {name: [one for path in sorted(tmp_path.glob(f"{name}/rollouts*")) for one in runs.read(path)] for name in launches}
    kept = {name: Counter((one.problem_id, one.sample, one.token_ids) for one in found) for name, found in rolled.items()}
    assert len(list(tmp_path.glob("two/rollouts*"))) == 2
    assert kept["one"] == kept["two"]
    assert len(kept["one"]) == 3 * 2 * 3
    assert reports["two"]["last"]["reward"] == reports["one"]["last"]["reward"]
    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in launches]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=0, atol=1e-4)
