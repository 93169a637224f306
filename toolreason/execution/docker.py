"""The sandbox that is a boundary: sessions in containers, each leased once and never handed to a second user.

A container has no network, a read-only root, bounded memory, processes and CPU, and small folders in memory to write to; a
session's cells run under a user id of their own without capabilities. Containers are created, attached and warmed up ahead of
time, so that sessions are handed out in milliseconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

from toolreason.errors import SandboxError, SettingsError, ToolreasonError
from toolreason.execution import image as images
from toolreason.execution import reaper
from toolreason.execution.base import Limits
from toolreason.execution.container import Container, Density, Plan
from toolreason.execution.engine import Engine, asking, attach
from toolreason.execution.session import ANSWER_S, RunnerSession
from toolreason.execution.wire import Runner

T = TypeVar("T")
log = logging.getLogger(__name__)
CONTROL_THREADS = 4  # control calls at a time: more starts at once only make each slower
SLOTS = 64
BACKOFF_S = (1, 2, 4, 8, 15, 30)  # between tries to fill the pool while the engine fails


class DockerSandbox:
    """Leases sessions. Use as `async with DockerSandbox() as sandbox`, within one event loop.

    `density` says what a container holds: `container` one session (and its forks), the strongest boundary; `shared` up to `slots`
    sessions, each under a user id of its own in a folder of its own, which share the kernel's and the container's boundary and
    little else: a few MB a session instead of a container. `pool` sessions are kept warm; at most `max_sessions` are leased, and
    further callers wait. A session that is idle for `idle_s` is ended. `image` is a tag (default: the one that `toolreason sandbox
    build` makes), `runtime` another OCI runtime of the engine, such as `runsc`. A runner that does not answer within a cell's time
    and `grace_s` is killed with its container. `memory_mb` bounds a shared container as a whole. Entering raises SetupError when
    engine or image are missing.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        density: Density = "container",
        slots: int = SLOTS,
        pool: int = 2,
        max_sessions: int | None = None,
        idle_s: float | None = 3600.0,
        image: str | None = None,
        runtime: str | None = None,
        grace_s: float = 75.0,
        memory_mb: int | None = None,
    ) -> None:
        if density not in ("container", "shared"):
            raise SettingsError(f"there is no density {density!r}: use 'container' or 'shared'")
        self.limits, self.density, self.image, self.runtime = limits or Limits(), density, image, runtime
        self._slots = slots if density == "shared" else 1 + self.limits.forks
        self._pool, self._grace_s, self._idle_s, self._memory_mb = pool, grace_s, idle_s, memory_mb
        self._places = asyncio.Semaphore(max_sessions or (32 if density == "container" else 256))
        self._warm: deque[RunnerSession] = deque()
        self._leased: set[RunnerSession] = set()
        self._containers: dict[str, Container] = {}
        self._starting = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._filling: asyncio.Task[None] | None = None
        self._closed = False
        self.id = uuid.uuid4().hex[:12]

    async def __aenter__(self) -> Self:
        self._threads = ThreadPoolExecutor(CONTROL_THREADS, "toolreason-docker")
        self._client: Any = None
        try:
            self._engine = Engine.find()
            self._client = await self._control(self._engine.client)
            with asking("the engine does not answer"):
                facts = await self._control(self._client.info)
            if not (facts.get("MemoryLimit", True) and facts.get("PidsLimit", True)):
                log.warning("this engine sets no limits on memory or processes of containers: only the runner's own hold")
            if self.image is None:
                self.image = await self._control(images.find, self._client)
            with asking("the engine could not clear up what earlier processes left"):
                await self._control(reaper.reap, self._client)
        except BaseException:
            self._let_go()
            raise
        self._plan = Plan(
            self.limits, self.density, self._slots, self.image, self.runtime, self._memory_mb, reaper.labels(self.id), facts["NCPU"]
        )
        if self._idle_s is not None:
            self._spawn(self._end_idle(self._idle_s), "endless")
        self._fill()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def session(self) -> RunnerSession:
        """A warm session, else one that is started now. Waits while `max_sessions` are leased. Raises SandboxError."""
        await self._places.acquire()
        try:
            if self._closed:
                raise SandboxError("the sandbox is closed")
            session = self._next_warm() or await self._open()
        except BaseException:
            self._places.release()
            raise
        self._leased.add(session)
        self._fill()
        return session

    async def aclose(self) -> None:
        """End every session and wait until no container of this sandbox is left."""
        if self._closed:
            return
        self._closed = True
        for container in list(self._containers.values()):
            container.runner.close("the sandbox was closed")
        while tasks := [task for task in self._tasks if not task.done()]:
            for task in tasks:
                if task.get_name() == "endless":
                    task.cancel()
            await asyncio.wait(tasks)
        try:
            with asking(f"containers labelled {reaper.LABEL}={self.id} may be left", SandboxError):
                await self._control(self._sweep)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._threads.shutdown(wait=False)
        if self._client is not None:
            self._client.close()

    # sessions

    def _next_warm(self) -> RunnerSession | None:
        while self._warm:
            session = self._warm.popleft()
            if session.alive:
                return session
            session.end("its container died in the pool")
        return None

    async def _open(self) -> RunnerSession:
        """A fresh session: in a container that has room, or in a new one."""
        container = self._with_room()
        if container is None:
            if self.density == "container":
                container = await self._start()
            else:
                async with self._starting:  # who comes in the meantime goes into the same one
                    container = self._with_room() or await self._start()
        container.busy += 1
        try:
            session = await RunnerSession.open(
                container.runner, self.limits, self._grace_s, lambda ended: self._ended(container, ended), container.sessions.add
            )
        except BaseException:
            if not container.sessions:
                container.runner.close("it opened no session")
            raise
        finally:
            container.busy -= 1
        container.sessions.add(session)
        return session

    def _with_room(self) -> Container | None:
        if self.density == "container":
            return None
        return next((container for container in self._containers.values() if container.has_room), None)

    def _ended(self, container: Container, session: RunnerSession) -> None:
        """A session is over: give back its place, and what it holds."""
        container.sessions.discard(session)
        if session in self._leased:
            self._leased.discard(session)
            self._places.release()
        if not container.runner.alive or (self.density == "container" and not container.sessions):
            container.runner.close()
        elif not self._closed:
            container.busy += 1  # its place is taken until it is empty
            self._spawn(self._close_in(container, session))

    async def _close_in(self, container: Container, session: RunnerSession) -> None:
        """End a session of a container in which others go on."""
        try:
            await container.runner.ask(ANSWER_S, op="close", session=session.number)
        except ToolreasonError as error:
            if container.runner.alive:  # it could not be ended: nobody may come after it
                log.warning("a session could not be ended, so its container is: %s", error)
                container.runner.close(str(error))
        finally:
            container.busy -= 1

    async def _end_idle(self, idle_s: float) -> None:
        """The idle reaper: whoever forgot a session does not hold its place for ever."""
        while True:
            await asyncio.sleep(min(60.0, idle_s / 4))
            for session in list(self._leased):
                if session.idle_s > idle_s:
                    session.end(f"it was idle for {idle_s:g} s")

    # the pool

    def _fill(self) -> None:
        """Start what the pool lacks, in the background."""
        if not self._closed and self._lacking() > 0 and (self._filling is None or self._filling.done()):
            self._filling = self._spawn(self._keep_filling(), "endless")

    def _lacking(self) -> int:
        return self._pool - sum(session.alive for session in self._warm)

    async def _keep_filling(self) -> None:
        """Until the pool is full. A failing engine is asked again and again; callers meet its failure in the open."""
        failures = 0
        while not self._closed and (lacking := self._lacking()) > 0:
            try:
                for session in await asyncio.gather(*(self._open() for _ in range(min(lacking, CONTROL_THREADS)))):
                    self._warm.append(session)
                if failures:
                    await self._control(self._remove_unknown)
                failures = 0
            except Exception as error:
                if self._closed:
                    return  # it was ended while it started
                log.log(logging.DEBUG if failures else logging.WARNING, "a sandbox could not be started ahead of time: %s", error)
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                failures += 1

    # containers

    async def _start(self) -> Container:
        """Create, attach, start, and wait for the runner's greeting. Leaves nothing behind when it fails."""
        import docker

        creating = asyncio.ensure_future(self._control(self._create))
        try:
            made = await asyncio.shield(creating)
        except asyncio.CancelledError:
            self._spawn(self._discard(creating))  # its thread goes on, and may yet create one
            raise
        except (docker.errors.APIError, OSError) as error:
            raise SandboxError(f"the engine could not create a container: {error}") from error
        runner = None
        try:
            wire = await attach(self._engine, made, self._client.api._version)
            runner = Runner(wire, on_close=lambda: self._died(made))
            container = self._containers[made] = Container(made, runner, self._slots)
            await self._control(self._client.api.start, made)
            await runner.ready()
        except BaseException as error:
            if runner is None:
                self._dispose(made)
            else:
                runner.close("it did not start")
            if isinstance(error, (docker.errors.APIError, OSError)):
                raise SandboxError(f"the engine could not start a container: {error}") from error
            raise
        if self._closed:
            runner.close("the sandbox was closed")
            raise SandboxError("the sandbox is closed")
        return container

    def _create(self) -> str:
        """Runs in a control thread."""
        api = self._client.api
        return str(api.create_container(**self._plan.config(api))["Id"])

    def _died(self, made: str) -> None:
        """A runner has ended: so have its sessions, and its container is to go."""
        container = self._containers.pop(made)
        for session in list(container.sessions):
            session.end("its runner has ended")
        self._dispose(made)
        self._fill()

    def _dispose(self, made: str) -> None:
        """End a container in the background. Its runner ends by itself, now that its input is closed; this is for a stuck one."""
        self._spawn(self._control(reaper.kill, self._client, made))

    async def _discard(self, creating: asyncio.Future[str]) -> None:
        self._dispose(await creating)

    def _remove_unknown(self) -> None:
        """Remove containers of this sandbox that it lost track of: an engine that was restarted may have left some."""
        for container in self._client.api.containers(all=True, filters={"label": f"{reaper.LABEL}={self.id}"}):
            if container["Id"] not in self._containers and container["State"] != "created":
                reaper.remove(self._client, container["Id"])

    def _sweep(self) -> None:
        """Remove what is left of this sandbox's containers, and wait for the engine to be done."""
        for turn in range(300):
            left = self._client.api.containers(all=True, filters={"label": f"{reaper.LABEL}={self.id}"})
            if not left:
                return
            for container in left if turn % 20 == 19 else ():  # the engine is about to, as a rule
                reaper.remove(self._client, container["Id"])
            time.sleep(0.1)
        raise SandboxError(f"{len(left)} containers could not be removed: `docker rm -f` those labelled {reaper.LABEL}={self.id}")

    def _spawn(self, work: Coroutine[Any, Any, Any], name: str | None = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._settled)
        return task

    def _settled(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.warning("clearing up a sandbox failed: %s", error)

    async def _control(self, call: Callable[..., T], *args: Any) -> T:
        """A blocking call of docker-py, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)
