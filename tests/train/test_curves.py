"""Curves from what was logged, and where the time went."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from toolreason.cli import app
from toolreason.errors import InputError
from toolreason.stats import wilson
from toolreason.train import curves

RL: list[dict[str, Any]] = [
    {"step": 0, "elapsed_s": 1.0, "eval_rollout/accuracy": 0.25, "eval_rollout/scored": 8.0, "eval_rollout/calls": 0.5},
    *(
        {
            "step": step,
            "elapsed_s": float(step),
            "reward": step / 20,
            "rewards/answer/mean": step / 30,
            "rewards/tool/mean": 0.5,
            "rollout/accuracy": step / 20,
            "rollout/calls": 1.0,
            "rollout/seconds": 6.0,
            "rollout/sample_s": 30.0,
            "rollout/tool_s": 10.0,
            "step_time": 8.0,
            "entropy": 0.4,
        }
        for step in range(1, 21)
    ),
    {"step": 20, "elapsed_s": 21.0, "eval_rollout/accuracy": 0.75, "eval_rollout/scored": 8.0, "eval_rollout/calls": 1.0},
]


def written(out: Path, lines: list[dict[str, Any]]) -> Path:
    out.mkdir()
    (out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return out


def test_what_was_logged_has_a_panel_and_nothing_else_has() -> None:
    shown = {panel.title: panel for panel in curves.panels({"": RL})}
    assert list(shown) == [
        "reward",
        "parts of the reward, without their weights",
        "right",
        "calls a rollout",
        "entropy, nats a token",
        "seconds a step",
    ]
    assert [curve.name for curve in shown["parts of the reward, without their weights"].curves] == ["answer", "tool"]
    training, held_out = shown["right"].curves
    assert (training.noisy, held_out.noisy) == (True, False)
    assert held_out.points == ((0.0, 0.25), (20.0, 0.75))
    assert held_out.band == (wilson(2, 8), wilson(6, 8))
    assert len(training.points) == 20


def test_several_trainings_are_told_apart() -> None:
    names = [curve.name for curve in curves.panels({"a": RL, "b": RL})[0].curves]
    assert names == ["a, training", "b, training"]


def test_where_the_time_of_a_step_went() -> None:
    assert curves.cost(RL) == pytest.approx({"step_s": 8.0, "rollouts": 0.75, "tools": 0.1875, "update": 0.25})
    assert curves.cost([{"step": 1, "loss": 0.5}]) == {}


def test_evaluations_come_with_their_intervals() -> None:
    before, after = curves.held_out(RL)
    assert (before["step"], before["accuracy"], before["scored"]) == (0, 0.25, 8)
    assert (after["low"], after["high"]) == wilson(6, 8)


def test_the_command_draws_the_same_bytes_twice(tmp_path: Path) -> None:
    one = written(tmp_path / "one", RL)
    two = written(tmp_path / "two", [{"step": 1, "elapsed_s": 1.0, "loss": 2.0}, {"step": 2, "elapsed_s": 2.0, "loss": 1.0}])
    for name in ("a.svg", "b.svg"):
        done = CliRunner().invoke(app, ["train", "curves", str(one), str(two), "--out", str(tmp_path / name), "--json"])
        assert done.exit_code == 0, done.output
    assert "loss" in json.loads(done.stdout)["panels"]
    svg = (tmp_path / "a.svg").read_bytes()
    assert svg.startswith(b"<?xml")
    assert svg == (tmp_path / "b.svg").read_bytes()


def test_a_directory_without_metrics_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no metrics\.jsonl"):
        curves.draw([tmp_path], tmp_path / "a.svg")
