"""Run the conditions of a comparison, one after the other, each as a resumable run of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from toolreason.collect import collect
from toolreason.compare import plan as plans
from toolreason.compare.conditions import Ready, writes_hints
from toolreason.compare.plan import Plan
from toolreason.errors import CapabilityError
from toolreason.execution.base import Sessions
from toolreason.policies.base import Policy
from toolreason.runs import Manifest, RunWriter
from toolreason.stats import Tally
from toolreason.strategies.base import as_dict
from toolreason.tools.workshop import Workshops
from toolreason.types import Problem

Progress = Callable[[str, int, Tally], None]  # the condition, how many conditions went before, its tally


@contextlib.contextmanager
def opened(
    path: Path, plan: Plan, conditions: Sequence[Ready], baseline: str | None = None
) -> Iterator[tuple[Plan, list[RunWriter]]]:
    """The run of each condition, all begun or gone on with before anything is sampled, and the plan as it is kept.

    `baseline`, where given, replaces that of the plan. Raises SettingsError where one of the runs was collected in another way, or
    is being written by another process.
    """
    kept = plans.settle(path, plan, baseline)
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(RunWriter.open(path / condition.name, manifest(plan, condition))) for condition in conditions
        ]
        plans.write(path, kept)
        yield kept, writers


def manifest(plan: Plan, condition: Ready) -> Manifest:
    """How one condition is collected."""
    return Manifest(
        condition.strategy,
        as_dict(condition.settings),
        plan.policy,
        plan.sampling,
        plan.problems,
        plan.problems_hash,
        plan.samples_of(condition.name),
        plan.version,
    )


async def run(
    plan: Plan,
    problems: Sequence[Problem],
    conditions: Sequence[Ready],
    writers: Sequence[RunWriter],
    *,
    policy: Policy,
    sessions: Sessions | None,
    verifier: Any,
    workshops: Workshops | None = None,
    concurrency: int = 8,
    on_progress: Progress = lambda name, before, tally: None,
) -> None:
    """Roll `problems` out under each condition: the same seeds, `plan.samples` each, or the condition's own number.

    Cancelling keeps what is finished; a second call over the same directory goes on. Raises CapabilityError before anything is
    sampled where a condition writes hints and the policy takes none; else what `collect` raises.
    """
    if not policy.exact and (hinted := [one.name for one in conditions if writes_hints(one.settings)]):
        raise CapabilityError(
            f"{policy.name} is no exact policy, and {', '.join(hinted)} write hints into the model's own text: "
            "use vllm:URL or transformers:NAME, or --conditions plain,offered,artist"
        )
    for number, (condition, writer) in enumerate(zip(conditions, writers, strict=True)):

        def progress(tally: Tally, name: str = condition.name, before: int = number) -> None:
            on_progress(name, before, tally)

        await collect(
            problems,
            strategy=condition.strategy,
            policy=policy,
            sessions=sessions,
            verifier=verifier,
            writer=writer,
            sampling=plan.sampling,
            settings=condition.settings,
            workshops=workshops,
            samples=plan.samples_of(condition.name),
            concurrency=concurrency,
            on_progress=progress,
        )
