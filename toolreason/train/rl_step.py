"""The rollouts of one step: every group at once, tools concurrent, each rollout judged, rewarded and kept.

1. Each problem is rolled out as often as its group has members, twice as often with `resample`.
2. Where all members of a group failed, a share of it is rolled out again with hints, in the place of the last ones.
3. Of too many members some are kept; then each is told whether it is trained on (`groups`).

A rollout is kept in a run directory under its problem and the number `step * STRIDE + place`: a step that is done again after a
kill overwrites what it had done, and `toolreason show` reads it. In the trajectory's rewards stand its parts.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from toolreason import scaling
from toolreason.collect import Verifier
from toolreason.errors import InfrastructureError
from toolreason.execution.base import Sessions
from toolreason.policies.base import Policy
from toolreason.rollouts import rollout
from toolreason.runs import RunWriter
from toolreason.tools.workshop import Workshops
from toolreason.train import groups, rewards
from toolreason.train.groups import Member
from toolreason.train.rl_settings import STRIDE, Plan, Way
from toolreason.types import Judgement, Problem, StopReason, Trajectory, Verdict

T = TypeVar("T")
GRACE_S = 60.0  # before cancelled rollouts are left behind

Group = list[Member]


@dataclass
class Crew:
    """Who works on a step, and where it is kept. All of it is used in one event loop."""

    plan: Plan
    verifier: Verifier
    sessions: Sessions | None = None
    workshops: Workshops | None = None
    writer: RunWriter | None = None
    _places: Counter[tuple[int, str]] = field(default_factory=Counter)
    _slots: asyncio.Semaphore | None = None

    async def roll(self, problems: Sequence[Problem], size: int, step: int, policy: Policy, *, training: bool) -> list[Group]:
        """A group of `size` for each problem. For an evaluation (`training` False) all members are rolled out alike, and kept.

        Raises InfrastructureError where every rollout was aborted, InputError for what no rollout can mend.
        """
        self._slots = self._slots or asyncio.Semaphore(self.plan.concurrency)
        done = await together(self._group(problem, size, step, policy, training) for problem in problems)
        members = [member for group in done for member in group]
        if all(member.trajectory.stop is StopReason.ABORTED for member in members):
            raise InfrastructureError(
                f"all {len(members)} rollouts of step {step} failed, the last with: {members[-1].trajectory.error}. "
                "Run `toolreason doctor`, then the same command again to go on"
            )
        return done

    async def _group(self, problem: Problem, size: int, step: int, policy: Policy, training: bool) -> Group:
        plan = self.plan
        if not training:
            members = await self._members(problem, size, step, policy, plan.way)
            groups.mute(members, void_turns=False, same=False)
            return members
        members = await self._members(problem, 2 * size if plan.resample else size, step, policy, plan.way)
        if plan.hints is not None and groups.failed(members):  # 2
            count = max(round(plan.hinted * size), 1)
            hinted = await self._members(problem, count, step, policy, plan.hints)
            members = [*members[:-count], *(replace(member, hinted=True) for member in hinted)]
        if plan.resample:  # 3
            members = groups.resample(members, size, random.Random(f"{plan.sampling.seed}:{step}:{problem.id}"))
        groups.mute(members, void_turns=plan.void_turns, too_long=plan.over_length, same=plan.equal_groups)
        return members

    async def _members(self, problem: Problem, count: int, step: int, policy: Policy, way: Way) -> Group:
        first = self._places[step, problem.id]
        self._places[step, problem.id] += count
        numbers = range(step * STRIDE + first, step * STRIDE + first + count)
        return await together(self._one(problem, number, policy, way) for number in numbers)

    async def _one(self, problem: Problem, number: int, policy: Policy, way: Way) -> Member:
        plan = self.plan
        assert self._slots is not None
        async with self._slots:
            done = await rollout(
                problem,
                strategy=way.strategy,
                settings=way.settings,
                policy=policy,
                sessions=self.sessions,
                sampling=replace(plan.sampling, seed=plan.sampling.seed + number),
                sample=number,
                workshop=await self.workshops.of(way.settings) if self.workshops else None,
            )
            done = await self._judged(problem, done)
        parts = rewards.score(done, plan.weights)
        done = replace(done, rewards={name: value for name, value in parts.items() if value is not None})
        if self.writer is not None:
            await self.writer.append(done)
        return Member(done, parts, rewards.total(parts, plan.weights))

    async def _judged(self, problem: Problem, done: Trajectory) -> Trajectory:
        if done.stop is StopReason.ABORTED:
            return done
        try:
            return await scaling.judge(problem, done, self.verifier)
        except InfrastructureError as error:
            return done.with_verdict(Verdict(Judgement.UNSCORED, reason=f"the verifier failed: {error}"))


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results, in order. At the first failure, or when cancelled, the others are cancelled too."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        if pending := [task for task in tasks if not task.done()]:
            for task in pending:
                task.cancel()
            await asyncio.wait(pending, timeout=GRACE_S)
