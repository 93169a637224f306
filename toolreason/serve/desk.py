"""Who answers: so many rollouts at a time, so many more that wait, and none for a client that has gone."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from toolreason.errors import InfrastructureError
from toolreason.execution.base import Sessions
from toolreason.graphs.events import Event
from toolreason.policies.base import Policy
from toolreason.rollouts import failure, rollout
from toolreason.runs import RunWriter
from toolreason.serve.measures import Measures
from toolreason.strategies.base import Settings, Strategy
from toolreason.tools.workshop import Workshops
from toolreason.types import Problem, Sampling, StopReason, Trajectory

T = TypeVar("T")
REMEMBERED = 256  # trajectories that can still be asked for by their id


class Busy(InfrastructureError):
    """As many requests wait as may. `retry_after_s`: when one of them is likely to have gone on."""

    def __init__(self, waiting: int, retry_after_s: int) -> None:
        super().__init__(f"{waiting} requests wait already: ask again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class Draining(InfrastructureError):
    """The service is ending: it finishes what it has begun, and begins nothing."""


class TooLong(InfrastructureError):
    """A request took longer than requests may."""


@dataclass(frozen=True)
class Served:
    """A way to answer under the name that clients know it by. `writer`: where its trajectories are kept."""

    name: str
    strategy: Strategy[Any]
    settings: Settings
    writer: RunWriter | None = None


class Desk:
    """Runs rollouts for clients. Its parts are the caller's; all of it is used in one event loop."""

    def __init__(
        self,
        served: Mapping[str, Served],
        policy: Policy,
        sessions: Sessions | None,
        workshops: Workshops | None = None,
        *,
        running: int = 32,
        waiting: int = 64,
        timeout_s: float = 600.0,
    ) -> None:
        self.served, self.policy, self.timeout_s = served, policy, timeout_s
        self.measures = Measures()
        self._sessions, self._workshops = sessions, workshops
        self._running, self._waiting = running, waiting
        self._places = asyncio.Semaphore(running)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._in_line = 0
        self._usual_s = 1.0  # how long a rollout takes, lately
        self._done: OrderedDict[str, Trajectory] = OrderedDict()
        self.draining = False

    def trajectory(self, identity: str) -> Trajectory | None:
        """One of the last, by its id."""
        return self._done.get(identity)

    async def answer(
        self,
        model: Served,
        problem: Problem,
        settings: Settings,
        sampling: Sampling,
        on_event: Callable[[Event], None] | None = None,
    ) -> Trajectory:
        """One rollout, whose trajectory has the problem's id. Cancelling it ends its call of the policy and its session.

        Raises Busy where too many wait, Draining, TooLong, PolicyError and SandboxError.
        """
        heard = self._timed(on_event)

        async def work() -> Trajectory:
            done = await self._roll(model, problem, settings, sampling, heard)
            if done.stop is StopReason.ABORTED:
                raise failure(done)
            return done

        return await self.do(model.name, work, lambda done: done.stop.value)

    async def do(self, model: str, work: Callable[[], Awaitable[T]], ended: Callable[[T], str]) -> T:
        """Work in a place of its own, timed and counted; `ended` says how it did. Raises as `answer` does."""
        began, end = time.monotonic(), "failed"
        try:
            async with self._place():
                self.measures.queued.observe(time.monotonic() - began)
                try:
                    async with asyncio.timeout(self.timeout_s):
                        done = await work()
                except TimeoutError:
                    end = "timeout"
                    raise TooLong(f"the request took longer than {self.timeout_s:g} s, which is as long as one may") from None
            self._usual_s += 0.1 * (time.monotonic() - began - self._usual_s)
            end = ended(done)
            return done
        except asyncio.CancelledError:
            end = "cancelled"
            raise
        except (Busy, Draining):
            end = "refused"
            raise
        finally:
            self.measures.requests.labels(model, end).inc()
            self.measures.seconds.labels(model).observe(time.monotonic() - began)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """A place among those that run, after waiting in line for it if there is room in the line."""
        if self.draining:
            raise Draining("the service is ending: ask another one")
        if self._places.locked() and self._in_line >= self._waiting:
            raise Busy(self._in_line, max(1, round(self._usual_s * self._in_line / self._running)))
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        self._in_line += 1
        self.measures.waiting.set(self._in_line)
        try:
            try:
                await self._places.acquire()
            finally:
                self._in_line -= 1
                self.measures.waiting.set(self._in_line)
            self.measures.running.inc()
            try:
                yield
            finally:
                self.measures.running.dec()
                self._places.release()
        finally:
            self._under_way.discard(task)

    def _timed(self, on_event: Callable[[Event], None] | None) -> Callable[[Event], None]:
        """Measures the time to the first text, from now."""
        began, waiting = time.monotonic(), True

        def heard(event: Event) -> None:
            nonlocal waiting
            if waiting and event["kind"] == "text":
                waiting = False
                self.measures.first.observe(time.monotonic() - began)
            if on_event is not None:
                on_event(event)

        return heard

    async def _roll(
        self, model: Served, problem: Problem, settings: Settings, sampling: Sampling, on_event: Callable[[Event], None]
    ) -> Trajectory:
        done = await rollout(
            problem,
            strategy=model.strategy,
            settings=settings,
            policy=self.policy,
            sessions=self._sessions,
            sampling=sampling,
            workshop=await self._workshops.of(settings) if self._workshops else None,
            on_event=on_event,
            key=problem.id,
        )
        self.measures.count(done)
        self._done[done.id] = done
        while len(self._done) > REMEMBERED:
            self._done.popitem(last=False)
        if model.writer is not None:
            await model.writer.append(done)
        return done

    async def drain(self, patience_s: float) -> None:
        """Begin nothing more; wait for what is under way, so long, then end it."""
        self.draining = True
        if self._under_way:
            await asyncio.wait(list(self._under_way), timeout=patience_s)
        for task in list(self._under_way):
            task.cancel()
