"""Trainers over tiny models, and a policy that says what it is told in the words of their tokenizer: what tests of RL need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.train import tiny
from toolreason.execution.book import SessionBook
from toolreason.execution.scripted import ScriptedSandbox
from toolreason.policies.base import Completion, Message
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.policies.text import ids_of
from toolreason.train.groups import Member
from toolreason.train.rl_settings import STRIDE, Plan, Way
from toolreason.train.rl_step import Crew
from toolreason.types import (
    Judgement,
    Problem,
    Reference,
    ReferenceKind,
    Sampling,
    Segment,
    StopReason,
    Trajectory,
    Verdict,
)

TOKENIZER = tiny.FAMILY.hugging_face()
PROBLEMS = [Problem(name, f"What is {name}?", Reference(ReferenceKind.MATH, "1")) for name in ("p0", "p1", "p2", "p3")]

Script = Callable[[str, int], str | Exception]
"""The text so far and the place in the group: what the model says next."""


class Words:
    """The family's tokenizer, as `ScriptedPolicy` uses one."""

    def __init__(self) -> None:
        inner = tiny.FAMILY.tokenizer()
        self.encode, self.decode, self.end_id = inner.encode, inner.decode, int(TOKENIZER.eos_token_id)


class Told(ScriptedPolicy):
    """Says what the script says, whatever else is in flight."""

    def __init__(self, script: Script, **options: Any) -> None:
        super().__init__((), **options)
        self.tokenizer = Words()  # type: ignore[assignment]
        self._script = script

    def prompt(self, messages: Sequence[Message]) -> Segment:
        return tiny.FAMILY.tokenizer().prompt(messages[-1:])  # without the system prompt: tiny models have short contexts

    async def sample(self, segments: Sequence[Segment], sampling: Sampling, **options: Any) -> Completion:
        alone = ScriptedPolicy([self._script(self.decode(ids_of(segments)), sampling.seed % STRIDE)])
        alone.tokenizer = self.tokenizer
        return await alone.sample(segments, sampling, **options)


async def judge(problem: Problem, trajectory: Trajectory) -> Verdict:
    """Right is who says so; who says "unsure" cannot be judged."""
    if trajectory.stop is StopReason.ABORTED or "unsure" in trajectory.response:
        return Verdict(Judgement.UNSCORED)
    return Verdict(Judgement.CORRECT if "right" in trajectory.response else Judgement.WRONG)


def plan(strategy: str = "artist", *pairs: str, weights: dict[str, float] | None = None, **options: Any) -> Plan:
    return Plan(Way.of(strategy, ("max_tokens=200", *pairs)), weights or {"accuracy": 1.0}, Sampling(1.0), **options)


def crew(chosen: Plan, *, writer: Any = None, verifier: Any = judge) -> Crew:
    """With a sandbox in which every call prints 1, except those that ask for trouble."""
    sandbox = ScriptedSandbox(lambda code: _printed(code))
    return Crew(chosen, verifier, SessionBook(sandbox), writer=writer)


async def _printed(code: str) -> Any:
    from toolreason.types import CellResult, Outcome

    await asyncio.sleep(0)
    return CellResult(Outcome.ERROR, error="trouble") if "trouble" in code else "1"


def always(policy: Any) -> Any:
    @asynccontextmanager
    async def of(trainer: Any) -> AsyncIterator[Any]:
        yield policy

    return of


def arguments(directory: Path, *, group: int = 2, problems: int = 1, **options: Any) -> Any:
    """The least that a trainer needs on a CPU."""
    from trl import GRPOConfig

    chosen: dict[str, Any] = {
        "output_dir": str(directory),
        "per_device_train_batch_size": group * problems,
        "num_generations": group,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": [],
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "max_steps": 1,
        "learning_rate": 1e-3,
        "loss_type": "dapo",
        "vllm_importance_sampling_mode": "token_truncate",
        "vllm_importance_sampling_clip_max": 2.0,
    }
    return GRPOConfig(**(chosen | options))


def trainer(
    directory: Path,
    policy: Any,
    chosen: Plan,
    *,
    group: int = 2,
    problems: Sequence[Problem] = PROBLEMS[:1],
    model: Any = None,
    evaluated: Sequence[Problem] = (),
    kind: Any = None,
    crews: dict[str, Crew] | None = None,
    policy_of: Any = None,
    options: dict[str, Any] | None = None,
    **arguments_: Any,
) -> Any:
    """An `AgenticTrainer` whose rollouts are those of `policy`."""
    from datasets import Dataset

    from toolreason.train.grpo import AgenticTrainer
    from toolreason.train.rollouts import Rollouts, prompts, reward_functions

    known = {problem.id: problem for problem in (*problems, *evaluated)}
    at_work = crews or {"train": crew(chosen), "eval": crew(chosen)}
    return (kind or AgenticTrainer)(
        model=model if model is not None else tiny.model(len(TOKENIZER)),
        processing_class=TOKENIZER,
        reward_funcs=reward_functions(chosen.weights),
        args=arguments(directory, group=group, problems=len(problems), reward_weights=list(chosen.weights.values()), **arguments_),
        train_dataset=Dataset.from_list(prompts(problems)),
        eval_dataset=Dataset.from_list(prompts(evaluated)) if evaluated else None,
        rollouts=Rollouts(known, policy_of or always(policy), at_work),
        **(options or {}),
    )


def member(trajectory: Trajectory, reward: float | None = 0.0, **options: Any) -> Member:
    return Member(trajectory, {"accuracy": reward}, reward, **options)
