"""The adapter: what TRL's `GRPOTrainer` calls `rollout_func`, over any strategy of ours. All that we know of TRL's side is here.

TRL marks `rollout_func` as experimental. What is relied on, and tested against the installed version:

- it is called with the values of the prompt column, each repeated for its group, one after the other, in training and evaluation;
  other columns are not passed. So the prompt column holds problem ids, and the problems are looked up here;
- it returns one completion for each: `prompt_ids`, `completion_ids`, `logprobs`, `env_mask` (1: the model's own token). An empty
  completion is an error, so a rollout without one gets a single token that is masked;
- other lists become columns for the reward functions, other values are given to each row. A reward of None in every function leaves
  the row out of its group's baseline and gives it the advantage 0;
- beside `tools=` or `environment_factory=` the mask is not read, and everything would be trained: refused.

The ids, masks and log-probabilities are those of `toolreason.export` for RL. Nothing is encoded again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import takewhile
from typing import Any

from toolreason.adapters.background import background
from toolreason.errors import CapabilityError, SettingsError
from toolreason.export.base import LeftOut, Options, Purpose, Report
from toolreason.export.tokens import IGNORED, Maker
from toolreason.policies.base import Policy
from toolreason.train.groups import Member, Mute
from toolreason.train.rl_measures import measures
from toolreason.train.rl_step import Crew
from toolreason.types import Problem, Segment, Source

PolicyOf = Callable[[Any], AbstractAsyncContextManager[Policy]]
"""Opens a policy for a trainer's rollouts of one step, with its weights as they are."""

Row = dict[str, Any]
Run = Callable[[Coroutine[Any, Any, Any]], Any]

BESIDE_TOOLS = "leave tools= and environment_factory= out: beside them TRL reads no masks, and tool output is trained"
NO_TOKENS = (Mute.ABORTED, Mute.UNSCORED, Mute.SILENT)
_MAKER = Maker(Options(purpose=Purpose.RL))


class Rollouts:
    """`rollout_func` for `GRPOTrainer`.

    `crews` work in training ("train") and evaluation ("eval"). `run` runs a coroutine to its end in the event loop that sandbox,
    verifier and policy live in (default: one in a thread of its own, shared by this process).
    """

    def __init__(
        self,
        problems: Mapping[str, Problem],
        policy_of: PolicyOf,
        crews: Mapping[str, Crew],
        *,
        run: Run | None = None,
    ) -> None:
        self._problems, self._policy_of, self._crews = problems, policy_of, crews
        self._run = run or background().run

    def __call__(self, prompts: Sequence[str], trainer: Any) -> dict[str, Any]:
        """See the module. Raises SettingsError for a trainer that would not read the masks, or whose groups are torn apart."""
        refuse_tools(trainer)
        training = bool(trainer.model.training)
        size = trainer.num_generations if training else trainer.num_generations_eval
        asked = [self._problem(ids) for ids in _groups(prompts, size)]
        trainer.accelerator.wait_for_everyone()  # a server has the new weights when the process that sends them says so
        crew = self._crews["train" if training else "eval"]
        started = time.perf_counter()
        done = self._run(self._roll(crew, asked, size, trainer, training))
        members = [member for group in done for member in group]
        end = int(trainer.processing_class.eos_token_id)
        rows = [row(member, end) for member in members]
        columns: dict[str, Any] = {name: [one[name] for one in rows] for name in rows[0]}
        columns["reward_parts"] = [member.parts for member in members]
        columns["rollout_measures"] = measures(done, time.perf_counter() - started)
        return columns

    async def _roll(self, crew: Crew, problems: Sequence[Problem], size: int, trainer: Any, training: bool) -> Any:
        async with self._policy_of(trainer) as policy:
            return await crew.roll(problems, size, int(trainer.state.global_step), policy, training=training)

    def _problem(self, name: str) -> Problem:
        if name not in self._problems:
            raise SettingsError(f"the prompt column holds {name!r}, which is no problem's id: make the data set with `prompts`")
        return self._problems[name]


def prompts(problems: Sequence[Problem]) -> list[dict[str, str]]:
    """The rows of a data set for the trainer."""
    return [{"prompt": problem.id} for problem in problems]


def schedule(problems: Sequence[Problem], size: int, steps: int, seed: int) -> list[Problem]:
    """The problems of all steps, `size` each, in the order in which they come: each pass over them is shuffled anew, and what does
    not fill a step is left out of that pass. TRL's own order is another one after a resume than without it: turn that off.
    """
    order: list[Problem] = []
    while len(order) < steps * size:
        one = random.Random(f"{seed}:{len(order)}").sample(problems, len(problems))
        order += one[: len(one) // size * size]
    return order[: steps * size]


def refuse_tools(trainer: Any) -> None:
    """Raise SettingsError where TRL would train on every token, whatever the mask says."""
    if getattr(trainer, "tools", None) or getattr(trainer, "environment_factories", None):
        raise SettingsError(BESIDE_TOOLS)


def _groups(prompts: Sequence[str], size: int) -> list[str]:
    """The problem of each group. Raises SettingsError where this process has only a part of one."""
    ids = [prompts[at] for at in range(0, len(prompts), size)]
    if [name for name in ids for _ in range(size)] != list(prompts):
        raise SettingsError(
            f"a group of {size} rollouts is divided between processes: let each have whole groups "
            "(per_device_train_batch_size * steps_per_generation a multiple of num_generations)"
        )
    return ids


def row(member: Member, end: int) -> Row:
    """What the trainer gets of a rollout. One that has nothing to train gets the completion `end`, masked, in no baseline or with
    its reward, as `member` says. Raises CapabilityError for policies without ids or log-probabilities.
    """
    segments = member.trajectory.segments
    if member.mute in NO_TOKENS:
        return _nothing(segments, end)
    try:
        made = _MAKER(member.trajectory, Report())
    except LeftOut as reason:
        raise CapabilityError(f"{member.trajectory.policy} cannot be trained with: {reason}") from reason
    start = sum(len(segment.token_ids) for segment in _prompt(segments))
    labels = made["labels"][start:]
    return {
        "prompt_ids": made["input_ids"][:start],
        "completion_ids": made["input_ids"][start:],
        "logprobs": made["logprobs"][start:],
        "env_mask": [0] * len(labels) if member.mute else [int(label != IGNORED) for label in labels],
    }


def _prompt(segments: Sequence[Segment]) -> list[Segment]:
    return list(takewhile(lambda segment: segment.source is Source.PROMPT, segments))


def _nothing(segments: Sequence[Segment], end: int) -> Row:
    ids = [token for segment in _prompt(segments) for token in segment.token_ids]
    return {"prompt_ids": ids or [end], "completion_ids": [end], "logprobs": [0.0], "env_mask": [0]}


def reward_functions(weights: Mapping[str, float]) -> list[Callable[..., list[float | None]]]:
    """One for each part, so that TRL logs each alone; the first also logs the measures. The weights go into `reward_weights`."""
    functions = [_reward(name) for name in weights]
    functions[0] = _measured(functions[0])
    return functions


def _reward(name: str) -> Callable[..., list[float | None]]:
    def reward(*, reward_parts: Sequence[Mapping[str, float | None]], **_: object) -> list[float | None]:
        return [parts[name] for parts in reward_parts]

    reward.__name__ = name
    return reward


def _measured(function: Callable[..., list[float | None]]) -> Callable[..., list[float | None]]:
    def reward(
        *, rollout_measures: Sequence[Mapping[str, float]], log_metric: Callable[[str, float], None], **rest: Any
    ) -> list[float | None]:
        for name, value in rollout_measures[0].items():
            log_metric(name, value)
        return function(**rest)

    reward.__name__ = function.__name__
    return reward
