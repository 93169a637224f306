"""The adapter and what TRL makes of what it is given: ids, masks and log-probabilities to the token, and who is in no baseline."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.train import agents, tiny
from tests.train.agents import PROBLEMS, TOKENIZER, Told
from toolreason import runs
from toolreason.errors import CapabilityError, InfrastructureError, PolicyError, SettingsError
from toolreason.runs import Manifest, RunWriter
from toolreason.train.groups import Mute
from toolreason.train.rl_settings import STRIDE
from toolreason.train.rollouts import Rollouts, row, schedule
from toolreason.types import Problem, Sampling, Segment, Source, StopReason, Trajectory

CALL, RIGHT, WRONG = "<python>print(1)</python>", "<answer>right</answer>", "<answer>2</answer>"
END = int(TOKENIZER.eos_token_id)


def acting(text: str, place: int) -> str | Exception:
    """Member 0 calls a tool and is right, 1 is wrong, 2 dies, 3 ends without a word that counts."""
    if place == 2:
        return PolicyError("the engine is gone")
    if place == 3:
        return "hm"
    return CALL if place == 0 and "<output>" not in text else RIGHT if place == 0 else WRONG


def manifest() -> Manifest:
    return Manifest("artist", {}, "told", Sampling(1.0), "tests", "0" * 16)


@pytest.fixture
def scored(tmp_path: Path) -> tuple[dict[str, Any], dict[int, Trajectory], Any]:
    """What TRL makes of a group of four, its trajectories by place, and the trainer."""
    plan = agents.plan(weights={"accuracy": 1.0, "tool_success": 0.5})
    with RunWriter.open(tmp_path / "rollouts", manifest()) as writer:
        crews = {"train": agents.crew(plan, writer=writer)}
        trainer = agents.trainer(tmp_path, Told(acting), plan, group=4, crews=crews)
        trainer.model.train()
        output = trainer._generate_and_score_completions([{"prompt": "p0"} for _ in range(4)])
    kept = {one.sample % STRIDE: one for one in runs.read(tmp_path / "rollouts")}
    return output, kept, trainer


def test_the_trainer_has_the_ids_masks_and_log_probabilities_of_the_trajectories(scored: Any) -> None:
    output, kept, _ = scored
    assert kept[0].tokens(Source.TOOL) > 3
    for place in (0, 1):
        given, (prompt, *rest) = output["completion_ids"][place], kept[place].segments
        ids = [token for segment in rest for token in segment.token_ids]
        sources = [segment.source for segment in rest for _ in segment.token_ids]
        drawn = [value for segment in rest for value in segment.logprobs or [0.0] * len(segment.token_ids)]
        assert given[: len(ids)].tolist() == ids
        assert output["prompt_ids"][place][output["prompt_mask"][place].bool()].tolist() == list(prompt.token_ids)
        assert output["completion_mask"][place].sum() == len(ids)
        assert output["tool_mask"][place][: len(ids)].tolist() == [int(source is Source.MODEL) for source in sources]
        assert output["sampling_per_token_logps"][place][: len(ids)].tolist() == pytest.approx(drawn)


def test_a_rollout_that_dies_has_no_token_no_reward_and_no_part_in_its_groups_baseline(scored: Any) -> None:
    output, kept, trainer = scored
    assert kept[2].stop is StopReason.ABORTED
    assert "the engine is gone" in (kept[2].error or "")
    trained = output["completion_mask"] * output["tool_mask"]
    assert trained[2].sum() == 0
    # rewards 1.5, 0, none, 0: mean 0.5, sample deviation 0.866
    assert output["advantages"].tolist() == pytest.approx([1.1546, -0.5773, 0, -0.5773], abs=1e-3)
    assert trainer._metrics["train"]["rewards/accuracy/mean"] == [pytest.approx(1 / 3)]
    assert trainer._metrics["train"]["rewards/tool_success/mean"] == [pytest.approx(1 / 3)]


def test_a_void_turn_is_not_trained_and_stays_in_the_baseline(scored: Any) -> None:
    output, kept, _ = scored
    assert kept[3].stop is StopReason.NO_ANSWER
    assert (output["completion_mask"] * output["tool_mask"])[3].sum() == 0
    assert output["completion_mask"][3].sum() == kept[3].tokens()  # its tokens are there, and masked
    assert output["num_items_in_batch"] == sum(kept[place].tokens(Source.MODEL) for place in (0, 1))


def test_every_rollout_is_kept_under_its_step_and_place_with_its_reward_parts(scored: Any) -> None:
    _, kept, trainer = scored
    assert sorted(kept) == [0, 1, 2, 3]
    assert kept[0].rewards == {"accuracy": 1.0, "tool_success": 1.0}
    assert kept[2].rewards == {}
    measured = trainer._metrics["train"]
    assert measured["rollout/calls"] == [pytest.approx(1 / 3)]
    assert measured["rollout/muted/aborted"] == measured["rollout/muted/void"] == [1.0]
    assert measured["rollout/equal_groups"] == [0.0]


def test_trl_refuses_an_empty_completion_which_is_why_a_masked_token_stands_for_one(tmp_path: Path) -> None:
    trainer = agents.trainer(tmp_path, Told(acting), agents.plan())
    trainer.rollout_func = lambda prompts, trainer: {
        "prompt_ids": [[1], [1]],
        "completion_ids": [[], [1]],
        "logprobs": [[], [0.0]],
        "env_mask": [[], [1]],
        "reward_parts": [{"accuracy": 0.0}] * 2,
        "rollout_measures": {},
    }
    trainer.model.train()
    with pytest.raises(IndexError):
        trainer._generate_and_score_completions([{"prompt": "p0"} for _ in range(2)])


def test_an_evaluation_rolls_out_too_mutes_nobody_for_equal_rewards_and_leaves_training_as_it_is(tmp_path: Path) -> None:
    plan = agents.plan()
    policy = Told(lambda text, place: RIGHT if "p1" in text else WRONG)
    trainer = agents.trainer(tmp_path, policy, plan, evaluated=PROBLEMS[1:4], per_device_eval_batch_size=2, num_generations_eval=1)
    found = trainer.evaluate()
    assert found["eval_rollout/accuracy"] == pytest.approx(1 / 4)  # the mean over its batches: of two, and of one
    assert found["eval_rewards/accuracy/mean"] == found["eval_rollout/accuracy"]
    assert found["eval_rollout/muted/equal"] == 0


@pytest.mark.parametrize(
    ("mute", "tokens"),
    [(Mute.ABORTED, 1), (Mute.SILENT, 1), (Mute.UNSCORED, 1), (Mute.VOID, 7), (Mute.EQUAL, 7), (Mute.OVER_LENGTH, 7)],
)
def test_whoever_is_muted_has_a_mask_of_zeros(mute: Mute, tokens: int) -> None:
    say = tiny.Speaker()
    text = say.model("So it is seven tokens")
    assert len(text.token_ids) >= 7
    cut = Segment(Source.MODEL, say.tokenizer.decode(text.token_ids[:7]), text.token_ids[:7], (text.logprobs or ())[:7])
    done = Trajectory("t", "p", "artist", "x", (say.prompt("Q"), cut), StopReason.LENGTH, verdict=tiny.trajectory(0).verdict)
    made = row(agents.member(done, mute=mute), END)
    assert made["env_mask"] == [0] * tokens
    assert len(made["completion_ids"]) == len(made["logprobs"]) == tokens
    assert made["prompt_ids"] == list(done.segments[0].token_ids)


def test_a_rollout_that_died_before_its_prompt_still_fills_its_place() -> None:
    done = Trajectory("t", "p", "artist", "x", (), StopReason.ABORTED)
    made = row(agents.member(done, None, mute=Mute.ABORTED), END)
    assert made == {"prompt_ids": [END], "completion_ids": [END], "logprobs": [0.0], "env_mask": [0]}


def test_a_policy_without_log_probabilities_cannot_be_trained_with() -> None:
    say = tiny.Speaker()
    silent = Segment(Source.MODEL, "x", say.tokenizer.encode("x"))
    done = Trajectory("t", "p", "a", "mute", (say.prompt("Q"), silent), StopReason.ANSWERED, verdict=tiny.trajectory(0).verdict)
    with pytest.raises(CapabilityError, match="mute cannot be trained with: no log-probabilities"):
        row(agents.member(done), END)


def test_tools_beside_it_are_refused_because_trl_would_then_train_on_their_output(tmp_path: Path) -> None:
    def tool(x: int) -> int:
        """Gives it back.

        Args:
            x: a number
        """
        return x

    trainer = agents.trainer(tmp_path, Told(acting), agents.plan())
    trainer.tools = [tool]
    with pytest.raises(SettingsError, match="leave tools= and environment_factory= out"):
        trainer.rollout_func(["p0", "p0"], trainer)


@pytest.mark.parametrize(
    ("prompts", "message"), [(["p0", "p0", "p0", "p1"], "divided between processes"), (["x", "x"], "'x', which is no problem's id")]
)
def test_torn_groups_and_unknown_problems_are_refused(tmp_path: Path, prompts: list[str], message: str) -> None:
    trainer = agents.trainer(tmp_path, Told(acting), agents.plan())
    with pytest.raises(SettingsError, match=message):
        trainer.rollout_func(prompts, trainer)


class At:
    """As much of a trainer as the adapter looks at."""

    class model:
        training = True

    class accelerator:
        @staticmethod
        def wait_for_everyone() -> None: ...

    class state:
        global_step = 7

    num_generations = 2
    processing_class = TOKENIZER


def rolled(policy: Any, plan: Any, problems: list[Problem], **crew: Any) -> dict[str, Any]:
    adapter = Rollouts({one.id: one for one in problems}, agents.always(policy), {"train": agents.crew(plan, **crew)})
    return adapter([one.id for one in problems for _ in range(2)], At())


def test_tools_of_all_groups_run_at_once() -> None:
    running = most = 0

    class Slow:
        async def run(self, key: str, call_id: str, code: str, **_: Any) -> Any:
            nonlocal running, most
            running, most = running + 1, max(most, running + 1)
            await asyncio.sleep(0.05)
            running -= 1
            from toolreason.types import CellResult, Outcome

            return CellResult(Outcome.OK, "1")

        async def release(self, key: str) -> None: ...

    problems = [Problem(f"p{n}", f"p{n}", PROBLEMS[0].reference) for n in range(6)]
    plan = agents.plan()
    crew = agents.crew(plan)
    crew.sessions = Slow()  # type: ignore[assignment]
    script = Told(lambda text, place: RIGHT if "<output>" in text else CALL)
    adapter = Rollouts({one.id: one for one in problems}, agents.always(script), {"train": crew})
    adapter([one.id for one in problems for _ in range(2)], At())
    assert most == 12


def test_where_every_rollout_dies_the_step_fails_and_names_the_last_reason() -> None:
    with pytest.raises(InfrastructureError, match="all 2 rollouts of step 7 failed, the last with: PolicyError: gone"):
        rolled(Told(lambda text, place: PolicyError("gone")), agents.plan(), PROBLEMS[:1])


def test_of_failed_groups_a_share_is_rolled_out_again_with_hints_which_are_masked(tmp_path: Path) -> None:
    hints = agents.plan("hint_infer", "hint=start").way
    plan = agents.plan(hints=hints, hinted=0.5)

    def script(text: str, place: int) -> str:
        if "```output" in text:
            return "so it is \\boxed{1}, right"
        return "print(1)\n```\n" if "```python" in text else (RIGHT if "p1" in text else WRONG)

    with RunWriter.open(tmp_path, manifest()) as writer:
        made = rolled(Told(script), plan, PROBLEMS[:2], writer=writer)
    kept = {(one.problem_id, one.sample): one for one in runs.read(tmp_path)}
    assert sorted(kept) == [("p0", 7000), ("p0", 7001), ("p0", 7002), ("p1", 7000), ("p1", 7001)]  # p1 had not failed
    assert [parts["accuracy"] for parts in made["reward_parts"]] == [0.0, 1.0, 1.0, 1.0]
    explored = kept["p0", 7002]
    assert explored.strategy == "hint_infer"
    assert made["completion_ids"][1] == list(explored.token_ids[len(explored.segments[0].token_ids) :])
    sources = [segment.source for segment in explored.segments[1:] for _ in segment.token_ids]
    assert {Source.HINT, Source.TOOL, Source.MODEL} == set(sources)
    assert made["env_mask"][1] == [int(source is Source.MODEL) for source in sources]
    assert made["env_mask"][2] == [0] * len(made["env_mask"][2])  # the other group is equal
    assert made["rollout_measures"]["rollout/hinted"] == 1
    assert made["rollout_measures"]["rollout/equal_groups"] == 1


def test_of_twice_the_rollouts_half_are_trained_on_and_all_are_kept(tmp_path: Path) -> None:
    plan = agents.plan(resample=True)
    with RunWriter.open(tmp_path, manifest()) as writer:
        made = rolled(Told(lambda text, place: RIGHT if place == 3 else WRONG), plan, PROBLEMS[:1], writer=writer)
    assert len(list(runs.read(tmp_path))) == 4
    assert len(made["completion_ids"]) == 2
    assert sorted(parts["accuracy"] for parts in made["reward_parts"]) == [0.0, 1.0]


def test_a_step_that_is_done_again_after_a_kill_overwrites_what_it_had_done(tmp_path: Path) -> None:
    for answer in (WRONG, RIGHT):
        with RunWriter.open(tmp_path, manifest()) as writer:
            rolled(Told(lambda text, place, answer=answer: answer), agents.plan(), PROBLEMS[:1], writer=writer)
    assert [one.rewards["accuracy"] for one in runs.read(tmp_path)] == [1.0, 1.0]


def test_rollouts_that_cannot_be_judged_are_in_no_baseline_and_not_trained() -> None:
    made = rolled(Told(lambda text, place: "<answer>unsure</answer>" if place else RIGHT), agents.plan(), PROBLEMS[:1])
    assert [parts["accuracy"] for parts in made["reward_parts"]] == [1.0, None]
    assert sum(made["env_mask"][1]) == 0


def test_a_schedule_has_each_problem_once_a_pass_in_an_order_of_its_own_and_is_the_same_for_more_steps() -> None:
    problems = [Problem(f"q{n}", "?") for n in range(7)]
    order = schedule(problems, 3, 6, seed=1)
    passes = [order[at : at + 6] for at in range(0, 18, 6)]  # the seventh is left out of each pass
    assert len(order) == 18
    assert all(len({one.id for one in part}) == 6 for part in passes)
    assert passes[0] != passes[1]
    assert schedule(problems, 3, 9, seed=1)[:18] == order
    assert schedule(problems, 3, 6, seed=2) != order
