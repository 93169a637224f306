"""The sandbox that is a boundary: each session is a container of its own, never handed to a second one.

A container has no network, no capabilities, a read-only root, the user `nobody`, bounded memory, processes and CPU, and two
small folders in memory to write to. It is created, attached and warmed up ahead of time, and handed out in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, Self, TypeVar

from toolreason.errors import SandboxError
from toolreason.execution import image as images
from toolreason.execution import reaper
from toolreason.execution.base import Limits, Session
from toolreason.execution.engine import Engine, asking, attach
from toolreason.execution.wire import WireSession

T = TypeVar("T")
log = logging.getLogger(__name__)
RUNNER_MB = 96  # what the runner and its imports take, on top of the session's own memory
CONTROL_THREADS = 4  # control calls at a time: more starts at once only make each slower


class DockerSandbox:
    """Leases containers. Use as `async with DockerSandbox() as sandbox`, within one event loop.

    `pool` containers are kept warm; at most `max_sessions` are leased, and further callers wait. `image` is a tag (default: the
    one that `toolreason sandbox build` makes), `runtime` another OCI runtime of the engine, such as `runsc`. A runner that does
    not answer within a cell's time and `grace_s` is killed. Entering raises SetupError when engine or image are missing.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        pool: int = 2,
        max_sessions: int = 32,
        image: str | None = None,
        runtime: str | None = None,
        grace_s: float = 10.0,
    ) -> None:
        self.limits, self.image, self.runtime = limits or Limits(), image, runtime
        self._pool, self._grace_s = pool, grace_s
        self._slots = asyncio.Semaphore(max_sessions)
        self._warm: deque[WireSession] = deque()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._live: dict[str, WireSession] = {}
        self._starting = 0
        self._closed = False
        self.id = uuid.uuid4().hex[:12]

    async def __aenter__(self) -> Self:
        self._threads = ThreadPoolExecutor(CONTROL_THREADS, "toolreason-docker")
        self._client: Any = None
        try:
            self._engine = Engine.find()
            self._client = await self._control(self._engine.client)
            if self.image is None:
                self.image = await self._control(images.find, self._client)
            with asking("the engine could not clear up what earlier processes left"):
                await self._control(reaper.reap, self._client)
        except BaseException:
            self._let_go()
            raise
        self._refill()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def session(self) -> Session:
        """A warm session, else one that is started now. Waits while `max_sessions` are leased. Raises SandboxError."""
        await self._slots.acquire()
        try:
            if self._closed:
                raise SandboxError("the sandbox is closed")
            while self._warm:
                session = self._warm.popleft()
                if session.alive:
                    break
                await session.close()  # its container died in the pool
            else:
                session = await self._start()
        except BaseException:
            self._slots.release()
            raise
        session.on_close = self._returner(session.on_close)
        self._refill()
        return session

    async def aclose(self) -> None:
        """End every session and wait until no container of this sandbox is left."""
        if self._closed:
            return
        self._closed = True
        for session in list(self._live.values()):
            await session.close()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            with asking(f"containers labelled {reaper.LABEL}={self.id} may be left", SandboxError):
                await self._control(self._sweep)
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._threads.shutdown(wait=False)
        if self._client is not None:
            self._client.close()

    def _returner(self, end: Callable[[], None]) -> Callable[[], None]:
        """What a leased session does when it ends: give its container back, then its place."""

        def give_back() -> None:
            end()
            self._slots.release()

        return give_back

    def _refill(self) -> None:
        """Start what the pool lacks, in the background. A failure is logged: the next caller meets it in the open."""
        for _ in range(self._pool - len(self._warm) - self._starting):
            self._starting += 1
            self._spawn(self._warm_up())

    async def _warm_up(self) -> None:
        try:
            session = await self._start()
            if self._closed:
                await session.close()
            else:
                self._warm.append(session)
        except Exception as error:
            if not self._closed:  # else it was ended while it started
                log.warning("a sandbox could not be started ahead of time: %s", error)
        finally:
            self._starting -= 1

    async def _start(self) -> WireSession:
        """Create, attach, start, and wait for the runner's greeting. Leaves nothing behind when it fails."""
        import docker

        creating = asyncio.ensure_future(self._control(self._create))
        try:
            container = await asyncio.shield(creating)
        except asyncio.CancelledError:
            self._spawn(self._discard(creating))  # its thread goes on, and may yet create one
            raise
        except (docker.errors.APIError, OSError) as error:
            raise SandboxError(f"the engine could not create a container: {error}") from error
        session = None
        try:
            wire = await attach(self._engine, container, self._client.api._version)
            session = WireSession(wire, self.limits, grace_s=self._grace_s, on_close=lambda: self._dispose(container))
            self._live[container] = session
            await self._control(self._client.api.start, container)
            await session.ready()
        except BaseException as error:
            if session is None:
                self._dispose(container)
            else:
                await session.close()
            if isinstance(error, (docker.errors.APIError, OSError)):
                raise SandboxError(f"the engine could not start a container: {error}") from error
            raise
        return session

    def _create(self) -> str:
        """The container, locked down. Runs in a control thread."""
        limits, api = self.limits, self._client.api
        scratch = f"rw,noexec,nosuid,nodev,size={limits.disk_mb}m,nr_inodes=16k,mode=0700,uid=65534,gid=65534"
        memory = (limits.memory_mb + RUNNER_MB) << 20
        config = api.create_host_config(
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            pids_limit=limits.processes,
            mem_limit=memory,
            memswap_limit=memory,
            nano_cpus=int(limits.cpus * 1e9),
            ipc_mode="private",
            shm_size=16 << 20,  # multiprocessing's locks live there
            tmpfs={"/work": scratch, "/tmp": scratch},
            log_config={"type": "none"},
            auto_remove=True,
            runtime=self.runtime,
        )
        created = api.create_container(
            self.image,
            command=[json.dumps(asdict(limits))],
            user="65534:65534",
            stdin_open=True,  # attached, so docker-py sets StdinOnce too: the runner's input closes when this process dies
            network_disabled=True,
            hostname="sandbox",
            labels=reaper.labels(self.id),
            host_config=config,
        )
        return str(created["Id"])

    def _dispose(self, container: str) -> None:
        """End a container in the background. Its runner ends by itself, now that its input is closed; this is for a stuck one."""
        self._live.pop(container, None)
        self._spawn(self._control(reaper.kill, self._client, container))

    async def _discard(self, creating: asyncio.Future[str]) -> None:
        self._dispose(await creating)

    def _sweep(self) -> None:
        """Remove what is left of this sandbox's containers, and wait for the engine to be done."""
        import time

        for turn in range(300):
            left = self._client.api.containers(all=True, filters={"label": f"{reaper.LABEL}={self.id}"})
            if not left:
                return
            for container in left if turn % 20 == 19 else ():  # the engine is about to, as a rule
                reaper.remove(self._client, container["Id"])
            time.sleep(0.1)
        raise SandboxError(f"{len(left)} containers could not be removed: `docker rm -f` those labelled {reaper.LABEL}={self.id}")

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._settled)

    def _settled(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.warning("clearing up a sandbox failed: %s", error)

    async def _control(self, call: Callable[..., T], *args: Any) -> T:
        """A blocking call of docker-py, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *args)
