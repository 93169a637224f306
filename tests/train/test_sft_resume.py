"""A training that is killed, stopped, or finished already: what is on the disk then, and that the weights come out the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.train import tiny
from toolreason.errors import InfrastructureError, SettingsError
from toolreason.options import parse
from toolreason.train import sft, sft_files
from toolreason.train.settings import SftSettings
from toolreason.train.sft_callbacks import Progress

STEPS = 7
GIVEN = {"batch_size": 2, "accumulate": 2, "learning_rate": 3e-3, "held_out": 0.2, "save_every": 2, "eval_every": 3}
SETTINGS = parse(SftSettings, {"steps": STEPS, **GIVEN})
KILLED = """
import json, os, signal, sys
from toolreason.options import parse
from toolreason.train import sft
from toolreason.train.settings import SftSettings

def listen(progress):
    if progress.what == "training" and progress.done == 5:
        os.kill(os.getpid(), signal.SIGKILL)

data, model, out, given = sys.argv[1:]
sft.train([data], model, out, parse(SftSettings, json.loads(given)), listen=listen)
"""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def whole(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from beginning to end."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    sft.train([data], str(model), out, SETTINGS)
    return out


def weights(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


def figures(out: Path) -> list[dict[str, Any]]:
    """The metrics, without the clock."""
    return [{key: value for key, value in line.items() if key != "elapsed_s"} for line in sft_files.read_metrics(out)]


def test_a_run_learns_and_leaves_its_result_and_nothing_half_made(whole: Path, model: Path) -> None:
    report = json.loads((whole / "report.json").read_text())
    assert report["steps"] == STEPS
    assert report["loss"]["last"] < report["loss"]["first"]
    before, after = report["held_out_loss"]["before"], report["held_out_loss"]["after"]
    assert (before["step"], after["step"]) == (0, STEPS)
    assert set(before) == {"step", "all", "model", "hint"}
    assert after["all"] < before["all"]
    assert weights(whole) != (model / "model.safetensors").read_bytes()
    assert {path.name for path in whole.iterdir()} == {
        "train.json", "metrics.jsonl", "report.json", "run.lock", "checkpoints", "model", "curves.svg"
    }  # fmt: skip
    assert [path.name for path in sft_files.checkpoints(whole)] == [f"checkpoint-{STEPS}"]
    lines = figures(whole)
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, STEPS + 1))
    assert [line["step"] for line in lines if "eval_loss" in line] == [0, 3, 6, 7]


def test_the_result_is_the_base_model_in_all_but_its_weights(whole: Path, model: Path) -> None:
    assert {file.name for file in (whole / "model").iterdir()} == {file.name for file in model.iterdir()}
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (whole / "model" / name).read_text() == (model / name).read_text(), name


def test_a_run_that_is_killed_ends_with_the_weights_it_would_have_had(whole: Path, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    options = json.dumps({"steps": STEPS, **GIVEN})
    command = [sys.executable, "-c", KILLED, str(data), str(model), str(out), options]
    child = subprocess.run(command, timeout=240, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert child.returncode == -signal.SIGKILL
    assert not (out / "report.json").exists()
    assert [path.name for path in sft_files.checkpoints(out)] == ["checkpoint-4"]
    torn = shutil.copytree(out / "checkpoints" / "checkpoint-4", out / "checkpoints" / "checkpoint-6")
    (torn / "complete").unlink()
    (torn / "model.safetensors").write_bytes(b"half of it")
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')

    sft.train([data], str(model), out, SETTINGS)
    assert weights(out) == weights(whole)
    assert figures(out) == figures(whole)


def test_ctrl_c_leaves_a_checkpoint_of_the_step_and_the_same_call_goes_on(
    whole: Path, model: Path, data: Path, tmp_path: Path
) -> None:
    handler = signal.getsignal(signal.SIGINT)

    def stop(progress: Progress) -> None:
        if progress.what == "training" and progress.done == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        sft.train([data], str(model), tmp_path / "out", SETTINGS, listen=stop)
    assert signal.getsignal(signal.SIGINT) is handler
    assert [path.name for path in sft_files.checkpoints(tmp_path / "out")] == ["checkpoint-3"]
    steps = []
    sft.train([data], str(model), tmp_path / "out", SETTINGS, listen=lambda progress: steps.append(progress))
    assert [one.done for one in steps if one.what == "training"] == [4, 5, 6, 7]
    assert weights(tmp_path / "out") == weights(whole)
    assert figures(tmp_path / "out") == figures(whole)


def test_a_run_killed_before_its_result_was_written_trains_no_further_step(
    whole: Path, model: Path, data: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    shutil.rmtree(out / "model")
    (out / "report.json").unlink()
    (out / ".model.new").mkdir()
    (out / ".model.new" / "model.safetensors").write_bytes(b"half of it")
    steps: list[Progress] = []
    sft.train([data], str(model), out, SETTINGS, listen=steps.append)
    assert not [one for one in steps if one.what == "training"]
    assert weights(out) == weights(whole)
    assert figures(out) == figures(whole)


def test_a_finished_run_gives_its_report_again(whole: Path, model: Path, data: Path) -> None:
    kept = json.loads((whole / "report.json").read_text())
    assert sft.train([data], str(model), whole, replace(SETTINGS, save_every=1)) == kept


@pytest.mark.parametrize(
    ("change", "told"),
    [({"seed": 1}, "seed: 0 there, 1 now"), ({"learning_rate": 1e-3}, "learning_rate: 0.003 there, 0.001 now")],
)
def test_other_settings_over_the_same_directory_are_refused(
    whole: Path, model: Path, data: Path, change: dict[str, Any], told: str
) -> None:
    with pytest.raises(SettingsError, match=told):
        sft.train([data], str(model), whole, replace(SETTINGS, **change))


def test_other_rows_or_another_model_over_the_same_directory_are_refused(
    whole: Path, model: Path, data: Path, tmp_path: Path
) -> None:
    fewer = tiny.jsonl(tmp_path / "fewer.jsonl", tiny.rows(9))
    with pytest.raises(SettingsError, match="data: other rows"):
        sft.train([fewer], str(model), whole, SETTINGS)
    other = tiny.save(tmp_path / "other", seed=1)
    with pytest.raises(SettingsError, match="model: its files"):
        sft.train([data], str(other), whole, SETTINGS)
    moved = shutil.copy(data, tmp_path / "moved.jsonl")
    assert sft.train([moved], str(shutil.copytree(model, tmp_path / "moved")), whole, SETTINGS)["steps"] == STEPS


def test_weights_that_are_lost_end_the_run_and_not_its_last_checkpoint(model: Path, data: Path, tmp_path: Path) -> None:
    wild = replace(SETTINGS, learning_rate=1e30, max_grad_norm=0.0, save_every=1, schedule="constant", warmup=0.0)
    with pytest.raises(InfrastructureError, match="lower learning rate"):
        sft.train([data], str(model), tmp_path / "out", wild)
    assert sft_files.latest(tmp_path / "out") is not None
    assert all(isinstance(line.get("loss", 0.0), float) or line["loss"] is None for line in figures(tmp_path / "out"))
