"""`rl.train` from problems to weights: what it keeps and logs, and that a killed run ends where an undisturbed one does."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.train import agents, tiny
from tests.train.agents import PROBLEMS, Told
from toolreason import runs
from toolreason.errors import SettingsError
from toolreason.options import parse
from toolreason.train import rl
from toolreason.train.rl_settings import STRIDE, Plan, RlSettings
from toolreason.train.sft_files import read_metrics
from toolreason.types import Source, Trajectory


def spoken(trajectory: Trajectory) -> float:
    """A reward that differs between random texts."""
    return sum(token % 7 for segment in trajectory.segments if segment.source is Source.MODEL for token in segment.token_ids) / 100


TASK = rl.Task(PROBLEMS, "problems.jsonl", PROBLEMS[:2], "held-out.jsonl")
OWN = f"{__name__}:spoken"
SMALL = RlSettings(
    strategy="plain",
    set=("max_tokens=16", "system="),
    rewards="outcome",
    reward=(f"{OWN}=1",),
    group=3,
    problems=2,
    steps=4,
    learning_rate=1e-2,
    void_turns=False,
    save_every=2,
    eval_every=2,
    device="cpu",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def trained(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run of four steps, the model in training sampling itself."""
    out = tmp_path_factory.mktemp("trained") / "run"
    return out, rl.train(TASK, str(model), out, SMALL)


def weights(directory: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(str(directory / "model.safetensors")))


def test_a_run_leaves_weights_a_report_and_every_rollout_with_its_rewards(trained: Any, model: Path) -> None:
    import torch

    out, report = trained
    assert report["steps"] == 4
    assert report["out"] == {"model": str(out / "model")}
    before, after = weights(model), weights(out / "model")
    assert any(not torch.equal(before[name], after[name]) for name in before)
    kept = list(runs.read(out / "rollouts"))
    assert len(kept) == 4 * 2 * 3
    assert {one.sample // STRIDE for one in kept} == {0, 1, 2, 3}
    assert {one.sample % STRIDE for one in kept} == {0, 1, 2}
    assert all(set(one.rewards) == {"accuracy", OWN} for one in kept)
    evaluated = list(runs.read(out / "evals"))
    assert {(one.problem_id, one.sample // STRIDE) for one in evaluated} == {(p, s) for p in ("p0", "p1") for s in (0, 2, 4)}


def test_what_is_logged_of_each_step_tells_each_reward_and_the_samplers_gap(trained: Any) -> None:
    out, _ = trained
    lines = read_metrics(out)
    steps = [line for line in lines if "reward" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    for line in steps:
        assert line["rewards/accuracy/mean"] == 0.0
        assert line[f"rewards/{OWN}/mean"] == pytest.approx(line["reward"])
        assert 0 < line["sampling/sampling_logp_difference/max"] < 1e-4
        for name in ("entropy", "rollout/calls", "rollout/tokens/model", "rollout/equal_groups", "rollout/void", "rollout/tool_s"):
            assert name in line
    assert [line["step"] for line in lines if "eval_rollout/accuracy" in line] == [0, 2, 4]
    assert not any("eval_loss" in line for line in lines)


def test_the_same_call_again_gives_the_report_again(trained: Any, model: Path) -> None:
    out, report = trained
    written = (out / "metrics.jsonl").read_bytes()
    assert rl.train(TASK, str(model), out, SMALL) == report
    assert (out / "metrics.jsonl").read_bytes() == written


class Killed(Exception):
    """Stands for kill -9: nothing catches it."""


def test_a_run_that_is_killed_ends_where_an_undisturbed_one_does(trained: Any, model: Path, tmp_path: Path) -> None:
    import torch

    from toolreason.train.rl_trainer import sampler
    from toolreason.train.sft_model import find

    undisturbed, report = trained
    live = sampler(SMALL, find(str(model)))

    def dying(trainer: Any) -> Any:
        if trainer.state.global_step == 3:
            raise Killed
        return live(trainer)

    out = tmp_path / "run"
    with pytest.raises(Killed):
        rl.train(TASK, str(model), out, SMALL, policy_of=dying)
    assert not (out / "report.json").exists()
    again = rl.train(TASK, str(model), out, SMALL)
    ours, theirs = weights(out / "model"), weights(undisturbed / "model")
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in theirs)
    names = ("step", "reward", "entropy", "rollout/tokens/model")
    told = [[{name: line[name] for name in names} for line in read_metrics(at) if "reward" in line] for at in (out, undisturbed)]
    assert told[0] == [pytest.approx(line, abs=1e-5) for line in told[1]]
    assert again["last"]["reward"] == pytest.approx(report["last"]["reward"], abs=1e-5)
    assert {(one.problem_id, one.sample): one.token_ids for one in runs.read(out / "rollouts")} == {
        (one.problem_id, one.sample): one.token_ids for one in runs.read(undisturbed / "rollouts")
    }


def test_with_tools_a_right_rollout_becomes_more_likely(model: Path, tmp_path: Path) -> None:
    """ARTIST's strategy and rewards, LoRA, GPPO, importance sampling."""
    from toolreason.execution.scripted import ScriptedSandbox

    def script(text: str, place: int) -> str:
        if place % 2:
            return "<think>no</think><answer>2</answer>"
        return "<answer>1</answer>" if "<output>" in text else "<think>hm</think><python>print(1)</python>"

    @asynccontextmanager
    async def sandbox(sessions: int) -> Any:
        yield ScriptedSandbox({"print(1)": "1"})

    chosen = RlSettings(
        set=("max_tokens=120",),
        group=4,
        problems=1,
        steps=6,
        learning_rate=3e-2,
        loss="gppo",
        correction="on",
        lora=4,
        device="cpu",
    )
    out = tmp_path / "run"
    report = rl.train(rl.Task(PROBLEMS[:1], "one"), str(model), out, chosen, sandbox=sandbox, policy_of=agents.always(Told(script)))
    assert report["out"] == {"adapter": str(out / "adapter")}
    kept = next(one for one in runs.read(out / "rollouts") if one.sample == 0)
    assert kept.rewards == {"answer": 2.0, "format_relaxed": 0.5, "format_strict": 0.5, "tool_success": 1.0}
    assert kept.verdict is not None
    assert kept.verdict.answer == "1"
    right, wrong = (_likely(out, model, place) for place in (0, 1))
    assert right[1] > right[0] + 5
    assert right[1] - wrong[1] > right[0] - wrong[0]


def _likely(out: Path, model: Path, place: int) -> tuple[float, float]:
    """The summed log-probability of a rollout's own tokens before and after."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    done = next(one for one in runs.read(out / "rollouts") if one.sample == place)
    ids = torch.tensor([done.token_ids])
    own = torch.tensor([segment.source is Source.MODEL for segment in done.segments for _ in segment.token_ids])[1:]
    trained = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), str(out / "adapter")).eval()

    def likely() -> float:
        with torch.no_grad():
            logprobs = torch.log_softmax(trained(input_ids=ids).logits[0, :-1], -1)
        return float(logprobs.gather(1, ids[0, 1:, None])[own].sum())

    with trained.disable_adapter():
        before = likely()
    return before, likely()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"group": 1}, "group is 1, it has to be at least 2"),
        ({"group": 4, "problems": 2, "batch_size": 3}, r"batch_size 3 does not divide group \* problems = 8"),
        ({"temperature": 0}, "greedy"),
        ({"temperature": 0.7, "correction": "on"}, "at temperature 1"),
        ({"hinted": 1.5}, "outside 0 to 1"),
        ({"loss": "ppo"}, "loss: Input should be 'artist', 'dapo'"),
        ({"reward": "speed=1"}, "no reward 'speed'"),
        ({"rewards": "best"}, "no rewards 'best'"),
        ({"lora": 8, "lora_targets": "lm_head"}, "no adapter can be trained on lm_head"),
        ({"clip": 0}, "clip is between 0 and 1"),
        ({"group": 400}, "too large"),
        ({"speed": 3}, "no setting 'speed'"),
    ],
)
def test_settings_that_cannot_be_meant_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse(RlSettings, values)


def test_settings_of_a_strategy_that_it_does_not_have_are_named_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'speed=3' is no key=value of ArtistSettings"):
        rl.train(TASK, "no-model", tmp_path, RlSettings(set=("speed=3",)))


def test_a_step_needs_as_many_problems_as_it_has(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="a step has 8 problems, and there are 4"):
        rl.train(TASK, "no-model", tmp_path, RlSettings(problems=8))


def test_one_id_for_two_problems_is_refused(tmp_path: Path) -> None:
    other = PROBLEMS[0].__class__("p0", "another question")
    with pytest.raises(SettingsError, match="two problems have the id 'p0'"):
        rl.train(rl.Task(PROBLEMS, "a", [other], "b"), "no-model", tmp_path, SMALL)


def test_a_run_cannot_be_gone_on_with_by_other_rewards(trained: Any, model: Path) -> None:
    from dataclasses import replace

    out, _ = trained
    with pytest.raises(SettingsError, match="is trained with other settings:\n  reward"):
        rl.train(TASK, str(model), out, replace(SMALL, reward=()))


def test_defaults_are_those_of_the_paper_and_the_filters_that_later_work_adds() -> None:
    plan = Plan.of(RlSettings())
    assert plan.way.strategy.name == "artist"
    assert plan.weights == {"answer": 1.0, "format_relaxed": 1.0, "format_strict": 1.0, "tool_success": 1.0}
    assert plan.sampling.temperature == 1.0
    assert (plan.void_turns, plan.equal_groups, plan.over_length, plan.resample, plan.hints) == (True, True, False, False, None)
    assert RlSettings().corrected is False
    assert RlSettings(vllm="http://localhost:8000").corrected is True


def test_the_command_goes_from_a_problem_file_to_a_report(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from toolreason import problems
    from toolreason.cli import app

    monkeypatch.setenv("COLUMNS", "200")
    problems.dump(PROBLEMS, tmp_path / "problems.jsonl")
    (tmp_path / "rl.toml").write_text('steps = 9\nvoid_turns = false\ndevice = "cpu"\nset = ["system="]\n')
    line = (
        f"train rl {tmp_path}/problems.jsonl --model {model} --out {tmp_path}/out --config {tmp_path}/rl.toml --strategy plain "
        f"--rewards outcome --reward {OWN}=1 --group 2 --per-step 1 --steps 1 --max-tokens 8 --learning-rate 1e-3 "
        f"--eval {tmp_path}/problems.jsonl --eval-limit 1 --option iterations=2"
    )
    done = CliRunner().invoke(app, [*line.split(), "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["steps"] == 1
    assert report == json.loads((tmp_path / "out/report.json").read_text())
    shown = CliRunner().invoke(app, line.split())
    assert "reward" in shown.stdout
    assert f"toolreason show {tmp_path}/out/rollouts" in shown.stderr
    wrong = CliRunner().invoke(app, [*line.split(), "--option", "speed=1"])
    assert wrong.exit_code == 2
    assert "no setting 'speed'" in wrong.stderr


def test_a_strategy_that_runs_code_needs_a_sandbox(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from toolreason import problems
    from toolreason.cli import app

    problems.dump(PROBLEMS, tmp_path / "problems.jsonl")
    line = f"train rl {tmp_path}/problems.jsonl --model m --out {tmp_path}/out --sandbox none"
    done = CliRunner().invoke(app, line.split())
    assert done.exit_code == 2
    assert "this strategy runs code" in done.stderr
