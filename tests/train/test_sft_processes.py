"""Several processes train in step: as many rows an update as one process with batches as large, and the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.train import tiny
from toolreason.train import sft, sft_files
from toolreason.train.settings import SftSettings


def test_two_processes_train_as_one_does_and_the_first_writes(tmp_path: Path) -> None:
    model, data = tiny.save(tmp_path / "base"), tiny.jsonl(tmp_path / "rows.jsonl", tiny.rows(10))
    given = {"steps": 3, "accumulate": 1, "learning_rate": 1e-2, "held_out": 0.2, "save_every": 2}
    options = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "toolreason"]
    command = [*launch, "train", "sft", str(data), "-m", str(model), "-o", str(tmp_path / "two"), "--batch-size", "1", "--json"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run([*command, *options], capture_output=True, text=True, timeout=280, check=False, env=env)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)  # one of them speaks
    assert (report["processes"], report["steps"]) == (2, 3)

    alone = sft.train([data], str(model), tmp_path / "one", SftSettings(batch_size=2, **given))
    assert report["held_out_loss"]["after"]["all"] < alone["held_out_loss"]["before"]["all"]
    lines = [
        [(line["step"], round(line["loss"], 4)) for line in sft_files.read_metrics(tmp_path / name) if "loss" in line]
        for name in ("one", "two")
    ]
    assert lines[0] == lines[1]
    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two")]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=0, atol=1e-5)
