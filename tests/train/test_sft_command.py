"""`toolreason train sft` as it is typed: from a run directory to a report, and what it says when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.train import tiny
from toolreason import problems
from toolreason.cli import app
from toolreason.train import sft, sft_files
from toolreason.train.settings import SftSettings
from toolreason.types import Problem, Reference, ReferenceKind


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def typed(line: str) -> Result:
    return CliRunner().invoke(app, ["train", "sft", *line.split()])


def test_from_a_run_directory_to_a_report_and_again(tmp_path: Path) -> None:
    tiny.save(tmp_path / "base")
    made = [tiny.trajectory(number, end=False) for number in range(6)]
    tiny.run(tmp_path / "run", [*made, tiny.trajectory(9, right=False)])
    (tmp_path / "sft.toml").write_text("learning_rate = 1e-2\nsteps = 9\naccumulate = 1\nheld_out = 0.2\n")
    line = "run --model base --out out --config sft.toml --steps 2 --set batch_size=2"
    done = typed(f"{line} --report-to tensorboard --json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["settings"]["learning_rate"] == 1e-2
    assert (report["steps"], report["data"]["rows"], report["data"]["held_out"]) == (2, 5, 1)
    assert report["data"]["dropped"] == {"wrong": 1}
    trained = report["data"]["trained"]
    assert trained == sum(report["data"]["tokens"][name] for name in ("model", "hint", "end"))
    assert report["data"]["tokens"]["end"] == 5
    assert list((tmp_path / "out" / "tensorboard").glob("events.*"))
    again = typed(line)
    assert again.exit_code == 0
    for told in ("5 trained on, 1 held out, of 7", "1 wrong", f"{trained} of them trained", "2 in", "float32 on cpu", "before"):
        assert told in again.stdout
    other = typed(f"{line} --seed 3")
    assert other.exit_code == 2
    assert "seed: 0 there, 3 now" in other.stderr


def test_stopping_says_what_is_kept_and_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(data: Any, model: str, out: Path, settings: SftSettings, **more: Any) -> dict[str, Any]:
        checkpoint = out / "checkpoints" / "checkpoint-7"
        checkpoint.mkdir(parents=True)
        sft_files.complete(checkpoint, keep=1)
        raise KeyboardInterrupt

    monkeypatch.setattr(sft, "train", stopped)
    done = typed("rows.jsonl --model m --out out")
    assert done.exit_code == 130
    assert "step 7 is kept in out. To go on, give the same command again" in done.stderr


def test_options_reach_the_settings_under_their_own_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(sft, "train", lambda data, model, out, settings, **more: seen.extend([settings, more["evaluation"]]) or {})
    problems.dump([Problem(id_, f"What is {id_}?", Reference(ReferenceKind.MATH, id_)) for id_ in ("1", "2")], "p.jsonl")
    done = typed(
        "rows.jsonl -m m -o out --epochs 2 --learning-rate 3e-5 --batch-size 4 --accumulate 2 --max-length 99 --long truncate "
        "--packing --held-out 0 --lora 8 --merge --seed 5 --save-every 9 --eval p.jsonl --eval-every 3 --eval-limit 1 "
        "--eval-set format=tagged --sandbox local --set lora_targets=q_proj,v_proj"
    )
    assert done.exit_code == 0, done.output
    settings, plan = seen
    assert settings == SftSettings(
        epochs=2, learning_rate=3e-5, batch_size=4, accumulate=2, max_length=99, long="truncate", packing=True, held_out=0, lora=8,
        merge=True, seed=5, save_every=9, eval="p.jsonl", eval_every=3, eval_limit=1, eval_set=("format=tagged",), sandbox="local",
        lora_targets=("q_proj", "v_proj"),
    )  # fmt: skip
    assert [problem.id for problem in plan.problems] == ["1"]
    assert (plan.strategy, plan.settings.format, plan.sandbox is None) == ("artist", "tagged", False)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ("--set learning_rat=1", "no setting 'learning_rat'"),
        ("--lora 8 --set lora_targets=lm_head", "lm_head"),
        ("--eval none.jsonl", "none.jsonl"),
        ("--config none.toml", "none.toml"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_read(args: str, told: str) -> None:
    done = typed(f"rows.jsonl --model m --out out {args}")
    assert done.exit_code == 2
    assert told in done.stderr
    assert not Path("out").exists()
