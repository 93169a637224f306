"""Roll out every problem, verify, keep: a bounded number at a time, resumable, stoppable at any instant.

Stopping is by cancelling the call (Ctrl-C does): no new work starts, running rollouts are cancelled and give their sessions back,
what is finished is kept. The same call over the same run directory goes on where it ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from toolreason import runs, scaling
from toolreason.errors import InfrastructureError, InputError, ProblemError
from toolreason.execution.base import Sessions
from toolreason.policies.base import Policy
from toolreason.policies.gauge import Gauge
from toolreason.runs import Key, RunWriter
from toolreason.stats import Summary, Tally
from toolreason.tools.workshop import Workshops
from toolreason.types import Judgement, Problem, Sampling, StopReason, Trajectory, Verdict

ABORTS = 8  # so many more than fit into flight, one after the other and nothing else between, and the run stops
PATIENCE_S = 5.0  # before a cancelled rollout is cancelled again: its cancellation may have been lost
GRACE_S = 60.0  # before cancelled rollouts are left behind

Rollout = Callable[..., Awaitable[Trajectory]]
Progress = Callable[[Tally], None]


class Verifier(Protocol):
    """Judges a trajectory; a verdict `unscored` where it cannot decide."""

    async def __call__(self, problem: Problem, trajectory: Trajectory) -> Verdict: ...


@dataclass(slots=True)
class _Collection:
    """What the workers share."""

    work: Iterator[tuple[Problem, int]]
    one: Callable[[Problem, int], Awaitable[Trajectory]]
    verifier: Verifier
    writer: RunWriter
    tally: Tally
    on_progress: Progress | None
    abort_limit: int
    aborts: int = field(default=0)

    async def worker(self) -> None:
        """Take work until there is none. Also ends when it was cancelled and something inside lost the cancellation."""
        for problem, sample in self.work:
            try:
                trajectory = await self.one(problem, sample)
            except asyncio.CancelledError:
                if _cancelled():
                    raise
                raise InfrastructureError(f"the rollout of problem {problem.id!r} was cancelled by something inside it") from None
            await self._finish(problem, trajectory)
            if _cancelled():
                raise asyncio.CancelledError

    async def _finish(self, problem: Problem, trajectory: Trajectory) -> None:
        if trajectory.stop is not StopReason.ABORTED:
            trajectory = await self._judge(problem, trajectory)
        await self.writer.append(trajectory)
        self.tally.add(trajectory)
        if self.on_progress:
            self.on_progress(self.tally)
        self._watch(trajectory)

    async def _judge(self, problem: Problem, trajectory: Trajectory) -> Trajectory:
        try:
            return await scaling.judge(problem, trajectory, self.verifier)
        except InfrastructureError as error:
            return trajectory.with_verdict(Verdict(Judgement.UNSCORED, reason=f"the verifier failed: {error}"))

    def _watch(self, trajectory: Trajectory) -> None:
        """Stop a run whose policy or sandbox is gone, rather than abort every problem there is."""
        self.aborts = self.aborts + 1 if trajectory.stop is StopReason.ABORTED else 0
        if self.aborts >= self.abort_limit:
            raise InfrastructureError(
                f"{self.aborts} rollouts in a row failed, the last with: {trajectory.error}. What is finished is kept. "
                "Run `toolreason doctor`, then the same command again to go on."
            )


def _cancelled() -> bool:
    """Whether the task that runs here was asked to end, even if what it awaited swallowed that."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def collect(
    problems: Sequence[Problem],
    *,
    strategy: Any,
    policy: Policy,
    sessions: Sessions | None,
    verifier: Verifier,
    writer: RunWriter,
    sampling: Sampling | None = None,
    settings: Any = None,
    samples: int = 1,
    concurrency: int = 8,
    on_progress: Progress | None = None,
    rollout: Rollout | None = None,
    workshops: Workshops | None = None,
    abort_limit: int | None = None,
) -> Summary:
    """Roll out each problem `samples` times, `concurrency` at a time; sample i has the seed `sampling.seed + i`.

    Strategies that keep tools find their library in `workshops`. Rollouts that run at the same time see what the others have made
    only when they begin: for a stream, in which each problem may use what the ones before it left, `concurrency` is 1.

    What `writer` has as done is not done again, but counts in the summary. `on_progress` is called with the tally so far.
    Raises InfrastructureError after `abort_limit` aborted rollouts in a row (default: concurrency + 8), InputError for what no
    rollout can mend. Whatever it raises, what is finished is in the run directory.
    """
    if samples < 1 or concurrency < 1:
        raise InputError(f"samples {samples} and concurrency {concurrency} must be at least 1")
    base, do = sampling or Sampling(), rollout or _rollout()
    jobs = _keys(problems, samples)
    tally = await asyncio.to_thread(_resume, writer, jobs)
    gauge = Gauge(policy)
    workshop = await workshops.of(settings) if workshops is not None else None
    tools = {} if workshop is None else {"workshop": workshop}

    async def one(problem: Problem, sample: int) -> Trajectory:
        return await do(
            problem,
            strategy=strategy,
            policy=gauge,
            sessions=sessions,
            sampling=replace(base, seed=base.seed + sample),
            settings=settings,
            sample=sample,
            **tools,
        )

    work = ((p, i) for p in problems for i in range(samples) if Key(p.id, i) not in writer.done)
    limit = concurrency + ABORTS if abort_limit is None else abort_limit
    shared = _Collection(work, one, verifier, writer, tally, on_progress, limit)
    if on_progress:
        on_progress(tally)
    started = time.monotonic()
    await _run([shared.worker] * min(concurrency, len(jobs) - tally.finished))
    return tally.summary(wall_s=time.monotonic() - started, idle_share=gauge.idle_share if gauge.requests else None)


def _rollout() -> Rollout:
    from toolreason.rollouts import rollout  # brings in langgraph

    return rollout


async def _run(workers: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """All workers to their end; at the first failure, or when cancelled, none of them.

    Not a TaskGroup: that waits for a child for ever whose cancellation was lost.
    """
    tasks = [asyncio.ensure_future(worker()) for worker in workers]
    if not tasks:
        return
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        await _cancel(tasks)
    for task in done:
        task.result()


async def _cancel(tasks: Sequence[asyncio.Future[None]]) -> None:
    """Cancel these and wait until they have ended; again after a while those that have not."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + GRACE_S
    pending = {task for task in tasks if not task.done()}
    while pending and loop.time() < deadline:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=PATIENCE_S)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # looked at: the first failure is what is reported


def _keys(problems: Sequence[Problem], samples: int) -> set[Key]:
    keys: set[Key] = set()
    for problem in problems:
        if Key(problem.id, 0) in keys:
            raise ProblemError(f"two problems have the id {problem.id!r}: give each its own")
        keys |= {Key(problem.id, sample) for sample in range(samples)}
    return keys


def _resume(writer: RunWriter, jobs: set[Key]) -> Tally:
    """The tally of what is done already."""
    tally = Tally(len(jobs))
    if writer.done & jobs:
        for trajectory in runs.read(writer.path):
            if Key(trajectory.problem_id, trajectory.sample) in writer.done & jobs:
                tally.add(trajectory, resumed=True)
    return tally
