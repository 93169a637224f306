"""Does it solve held-out problems, and does it reach for tools by itself? The model as it is in training, rolled out and judged.

Every evaluation is a run directory, as `toolreason collect` makes one: `toolreason show` reads it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import toolreason
from toolreason import runs
from toolreason.collect import Progress, collect
from toolreason.policies.base import Policy
from toolreason.runs import Manifest, RunWriter
from toolreason.stats import Summary, wilson
from toolreason.strategies.base import Settings, as_dict
from toolreason.types import Problem, Sampling

PolicyOf = Callable[[str], AbstractAsyncContextManager[Policy]]
"""Opens a policy over the model in training, under this name."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What is rolled out, greedily. `sandbox` opens one for as many sessions (None: the strategy runs no code)."""

    problems: Sequence[Problem]
    source: str
    strategy: str
    settings: Settings
    sandbox: Callable[[int], AbstractAsyncContextManager[Any]] | None = None
    concurrency: int = 8

    def manifest(self, policy: str) -> Manifest:
        hashed = runs.problems_hash(self.problems)
        return Manifest(
            self.strategy, as_dict(self.settings), policy, Sampling(), self.source, hashed, version=toolreason.__version__
        )

    def describe(self, trained_on: set[str]) -> dict[str, Any]:
        """What is rolled out, as the report says it. `known` problems are trained on too, by their ids: they prove nothing."""
        known = sum(problem.id in trained_on for problem in self.problems)
        told = {"problems": len(self.problems), "known": known, "source": self.source, "strategy": self.strategy}
        return {**told, "settings": as_dict(self.settings)}


async def evaluate(
    plan: Evaluation, open_policy: PolicyOf, name: str, out: Path, *, on_progress: Progress | None = None
) -> Summary:
    """Roll out every problem with the policy `name` and keep the run in `out`. Cancelling keeps what is finished.

    Raises what `collect` does: InfrastructureError where rollout after rollout fails.
    """
    from toolreason.execution import SessionBook
    from toolreason.tools.workshop import Workshops
    from toolreason.verify import Verifier

    async with AsyncExitStack() as stack:
        box = None if plan.sandbox is None else await stack.enter_async_context(plan.sandbox(plan.concurrency + 2))
        verifier = await stack.enter_async_context(Verifier(sandbox=box))
        workshops = await stack.enter_async_context(Workshops(box))
        policy = await stack.enter_async_context(open_policy(name))
        writer = stack.enter_context(await asyncio.to_thread(RunWriter.open, out, plan.manifest(name)))
        return await collect(
            plan.problems,
            strategy=plan.strategy,
            policy=policy,
            sessions=None if box is None else SessionBook(box),
            verifier=verifier,
            workshops=workshops,
            writer=writer,
            settings=plan.settings,
            concurrency=plan.concurrency,
            on_progress=on_progress,
        )


def measures(summary: Summary) -> dict[str, Any]:
    """What is logged of an evaluation. `tool_use` is the share of rollouts with a call that nobody hinted at; both shares come
    with Wilson's 95 % interval. `tokens` are the model's, a rollout; `failing` is the share of calls that did not end well.
    """
    low, high = wilson(summary.with_calls, summary.finished)
    return {
        "accuracy": summary.accuracy,
        "accuracy_low": summary.low,
        "accuracy_high": summary.high,
        "scored": summary.scored,
        "tool_use": summary.with_calls / summary.finished if summary.finished else None,
        "tool_use_low": low,
        "tool_use_high": high,
        "calls": summary.calls,
        "failing": sum(summary.failing_cells.values()),
        "tokens": summary.tokens["model"] / summary.finished if summary.finished else None,
        "rollouts": summary.finished,
        "aborted": summary.aborted,
        "seconds": summary.wall_s,
    }
