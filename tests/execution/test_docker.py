"""The life of containers: leased, pooled, watched, and gone at the end, however the end comes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from toolreason.errors import SandboxError, SessionLost, SetupError
from toolreason.execution import Limits, Session, reaper
from toolreason.execution.container import Density
from toolreason.execution.docker import DockerSandbox
from toolreason.execution.engine import Engine
from toolreason.execution.image import find

pytestmark = pytest.mark.docker
LIMITS = Limits(cell_timeout_s=20, memory_mb=128, processes=32, disk_mb=8)


@pytest.fixture
def engine() -> Iterator[Any]:
    client = Engine.find().client()
    yield client
    client.close()


def containers(engine: Any, label: str) -> list[Any]:
    return list(engine.api.containers(all=True, filters={"label": label}))


def until(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Poll: the engine clears up in its own time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


async def eventually(holds: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.05)


async def test_nothing_is_left_when_a_sandbox_closes_with_sessions_open(engine: Any) -> None:
    async with DockerSandbox(LIMITS, pool=1) as sandbox:
        session = await sandbox.session()
        assert (await session.run("1")).ok
        assert containers(engine, f"{reaper.LABEL}={sandbox.id}")
    assert containers(engine, f"{reaper.LABEL}={sandbox.id}") == []
    with pytest.raises(SessionLost):
        await session.run("1")
    with pytest.raises(SandboxError):
        await sandbox.session()


async def test_twenty_sessions_at_a_time_and_a_caller_too_many_waits(engine: Any) -> None:
    async with DockerSandbox(LIMITS, pool=0, max_sessions=20) as sandbox:

        async def one(number: int) -> Session:
            session = await sandbox.session()
            assert (await session.run(f"x = {number}")).ok
            return session

        sessions = await asyncio.gather(*(one(i) for i in range(20)))
        extra = asyncio.ensure_future(sandbox.session())
        values = await asyncio.gather(*(session.run("x * x") for session in sessions))
        assert [result.value for result in values] == [str(i * i) for i in range(20)]
        assert not extra.done()
        await sessions[0].close()
        assert (await (await extra).run("1")).ok
    assert containers(engine, f"{reaper.LABEL}={sandbox.id}") == []


async def test_a_session_whose_container_dies_is_lost_and_the_pool_passes_over_dead_ones(engine: Any) -> None:
    async with DockerSandbox(LIMITS, pool=1) as sandbox:
        session = await sandbox.session()
        await eventually(lambda: len(sandbox._warm) == 1)
        call = asyncio.ensure_future(session.run("while True: pass"))
        await asyncio.sleep(0.1)
        for container in containers(engine, f"{reaper.LABEL}={sandbox.id}"):
            reaper.remove(engine, container["Id"])
        with pytest.raises(SessionLost):
            await call
        await eventually(lambda: not sandbox._warm[0].alive)
        assert (await (await sandbox.session()).run("2")).value == "2"


async def test_a_container_that_does_not_answer_is_killed_by_the_watchdog(engine: Any) -> None:
    async with DockerSandbox(LIMITS, pool=0, grace_s=0.5) as sandbox:
        session = await sandbox.session()
        (container,) = containers(engine, f"{reaper.LABEL}={sandbox.id}")
        engine.api.pause(container["Id"])
        with pytest.raises(SessionLost, match="did not answer"):
            await session.run("1", timeout_s=0.5)
        await eventually(lambda: containers(engine, f"{reaper.LABEL}={sandbox.id}") == [])


async def test_a_container_is_locked_down(engine: Any) -> None:
    async with DockerSandbox(LIMITS, pool=0) as sandbox:
        await sandbox.session()
        (container,) = containers(engine, f"{reaper.LABEL}={sandbox.id}")
        details = engine.api.inspect_container(container["Id"])
    host, config = details["HostConfig"], details["Config"]
    assert (config["User"], config["StdinOnce"], config["NetworkDisabled"]) == ("0:0", True, True)
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["CapDrop"], host["AutoRemove"]) == ("none", True, ["ALL"], True)
    assert (host["Privileged"], host["Binds"], host["Devices"]) == (False, None, None)
    assert set(host["CapAdd"]) == {"CHOWN", "KILL", "SETGID", "SETUID"}  # of process 1: cells have none
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert 32 <= host["PidsLimit"] < 100
    assert host["CpuQuota"] == host["CpuPeriod"]
    assert 0 < host["Memory"] == host["MemorySwap"] <= 272 << 20
    assert set(host["Tmpfs"]) == {"/work", "/tmp", "/keep", "/fork/1", "/fork/2", "/fork/3", "/fork/4"}
    assert all("noexec,nosuid,nodev,mode=0700,size=" in options for options in host["Tmpfs"].values())
    assert (host["IpcMode"], host["LogConfig"]["Type"]) == ("private", "none")


HOST = """
import asyncio, sys
from toolreason.execution import Limits
from toolreason.execution.docker import DockerSandbox

async def main():
    async with DockerSandbox(Limits(), pool=1) as sandbox:
        session = await sandbox.session()
        while not sandbox._warm:
            await asyncio.sleep(0.05)
        await session.run("x = 1")
        print(sandbox.id, flush=True)
        await session.run("while True: pass", timeout_s=600)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_host_process_that_is_killed_leaves_no_container(engine: Any, how: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", HOST], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as host:
        try:
            assert host.stdout
            name = host.stdout.readline().strip()
            assert len(containers(engine, f"{reaper.LABEL}={name}")) == 2
            host.send_signal(how)
            host.wait(30)
        finally:
            host.kill()  # else a failure here would wait for it
        until(lambda: containers(engine, f"{reaper.LABEL}={name}") == [])


def test_the_reaper_takes_containers_of_dead_owners_only(engine: Any) -> None:
    dead = reaper.labels("reaper-test") | {f"{reaper.LABEL}.pid": "1", f"{reaper.LABEL}.started": "never"}
    elsewhere = dead | {f"{reaper.LABEL}.host": "another machine"}
    image, made = find(engine), {}
    try:
        for name, labels in {"dead": dead, "elsewhere": elsewhere, "mine": reaper.labels("reaper-test")}.items():
            made[engine.api.create_container(image, labels=labels)["Id"]] = name
        reaper.reap(engine)
        left = {made[container["Id"]] for container in containers(engine, f"{reaper.LABEL}=reaper-test")}
        assert left == {"elsewhere", "mine"}
    finally:
        for container in made:
            reaper.remove(engine, container)


def test_an_owner_is_its_process_id_and_its_start() -> None:
    mine = reaper.labels("x")
    assert not reaper.orphaned(mine)
    assert reaper.orphaned(mine | {f"{reaper.LABEL}.started": "1"})
    assert reaper.orphaned(mine | {f"{reaper.LABEL}.pid": str(2**22 + 1)})
    assert not reaper.orphaned(mine | {f"{reaper.LABEL}.host": "elsewhere", f"{reaper.LABEL}.started": "1"})
    assert not reaper.orphaned({})
    assert json.dumps(mine)
    assert reaper.started(os.getpid())


class Failing(DockerSandbox):
    """Its containers start when told, and fail the first time."""

    def __init__(self) -> None:
        super().__init__(LIMITS, pool=1)
        self.go, self.tries = asyncio.Event(), 0

    async def _start(self) -> Any:
        await self.go.wait()
        self.tries += 1
        if self.tries == 1:
            raise SessionLost("the runner has ended")
        return await super()._start()


async def test_a_pool_whose_engine_failed_fills_itself_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    async with Failing() as sandbox:
        sandbox.go.set()
        await eventually(lambda: len(sandbox._warm) == 1)
    assert sandbox.tries == 2
    assert "ahead of time: the runner has ended" in caplog.text


async def test_a_warm_up_that_the_closing_ended_is_no_trouble(caplog: pytest.LogCaptureFixture) -> None:
    async with Failing():
        await asyncio.sleep(0.01)
    assert "ahead of time" not in caplog.text


async def test_an_image_that_is_missing_is_named_and_leaves_nothing(engine: Any) -> None:
    async with DockerSandbox(LIMITS, pool=0, image="toolreason-sandbox:nonesuch") as sandbox:
        with pytest.raises(SandboxError, match="nonesuch"):
            await sandbox.session()
    assert containers(engine, f"{reaper.LABEL}={sandbox.id}") == []


@pytest.mark.parametrize(
    ("host", "said"), [("unix:///nonexistent.sock", "no container engine"), ("fd://somewhere", "not supported")]
)
async def test_an_engine_that_is_missing_is_a_setup_error_with_the_fix(
    monkeypatch: pytest.MonkeyPatch, host: str, said: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    with pytest.raises(SetupError, match=said):
        async with DockerSandbox(LIMITS):
            pass


async def test_an_image_that_is_not_built_is_a_setup_error_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolreason.execution.image.REPOSITORY", "toolreason-nonesuch")
    with pytest.raises(SetupError, match="toolreason sandbox build"):
        async with DockerSandbox(LIMITS):
            pass


@pytest.mark.parametrize(("part", "kind"), [("reap", SetupError), ("_sweep", SandboxError)])
async def test_an_engine_that_goes_away_at_the_start_or_the_end_is_one_of_our_errors(
    monkeypatch: pytest.MonkeyPatch, part: str, kind: type[Exception]
) -> None:
    def gone(*_: Any) -> NoReturn:
        raise ConnectionError("the engine is gone")

    monkeypatch.setattr(reaper if part == "reap" else DockerSandbox, part, gone)
    with pytest.raises(kind, match="the engine is gone"):
        async with DockerSandbox(LIMITS, pool=0):
            pass


class Proxy:
    """A way to the engine that can be cut: what goes through it ends, and nobody gets through, until it is mended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine, self.monkeypatch = Engine.find(), monkeypatch
        self.writers: set[asyncio.StreamWriter] = set()
        self.is_cut = False

    async def __aenter__(self) -> Proxy:
        self.server = await asyncio.start_server(self.forward, "127.0.0.1", 0)
        self.monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{self.server.sockets[0].getsockname()[1]}")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        self.cut()
        await self.server.wait_closed()

    def cut(self) -> None:
        self.is_cut = True
        for writer in self.writers:
            writer.transport.abort()

    async def pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        with contextlib.closing(writer), contextlib.suppress(OSError):
            while chunk := await reader.read(1 << 16):
                writer.write(chunk)
                await writer.drain()
        self.writers.discard(writer)

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_cut:
            writer.transport.abort()
            return
        there, back = await self.engine.connect()
        await asyncio.gather(self.pipe(reader, back), self.pipe(there, writer))


async def test_an_engine_over_tcp_works_as_a_local_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Proxy(monkeypatch), DockerSandbox(LIMITS, pool=0) as sandbox:
        session = await sandbox.session()
        assert (await session.run("print('x' * 100_000)\n6 * 7")).value == "42"


@pytest.mark.parametrize("density", ["container", "shared"])
async def test_an_engine_that_goes_and_comes_back_costs_its_sessions_and_nothing_else(
    engine: Any, monkeypatch: pytest.MonkeyPatch, density: Density
) -> None:
    monkeypatch.setattr("toolreason.execution.docker.BACKOFF_S", (0.2,))
    async with Proxy(monkeypatch) as proxy, DockerSandbox(LIMITS, density=density, slots=4, pool=1, max_sessions=2) as sandbox:
        session = await sandbox.session()
        call = asyncio.ensure_future(session.run("while True: pass"))
        await asyncio.sleep(0.2)
        proxy.cut()
        with pytest.raises(SessionLost):
            await call
        with pytest.raises(SandboxError):  # an infrastructure error, never the model's
            await sandbox.session()
        proxy.is_cut = False
        await eventually(lambda: sum(warm.alive for warm in sandbox._warm) == 1)
        one, two = await sandbox.session(), await sandbox.session()  # no place was lost
        assert (await one.run("1")).ok
        assert (await two.run("1")).ok
    assert containers(engine, f"{reaper.LABEL}={sandbox.id}") == []


async def test_sessions_of_a_shared_container_have_user_ids_and_folders_of_their_own(engine: Any) -> None:
    async with DockerSandbox(LIMITS, density="shared", slots=3, pool=0) as sandbox:
        sessions = await asyncio.gather(*(sandbox.session() for _ in range(3)))
        look = "import os\nopen('mine', 'w').close()\nos.getuid(), os.getcwd(), os.listdir('.')"
        found = [eval((await session.run(look)).value or "") for session in sessions]
        assert len({uid for uid, _, _ in found}) == len({folder for _, folder, _ in found}) == 3
        assert all(set(files) <= {"mine", ".matplotlib"} for _, _, files in found)
        assert len(containers(engine, f"{reaper.LABEL}={sandbox.id}")) == 1
        fourth = await sandbox.session()
        assert (await fourth.run("1")).ok
        assert len(containers(engine, f"{reaper.LABEL}={sandbox.id}")) == 2


async def test_a_place_in_a_shared_container_is_given_again_empty(engine: Any) -> None:
    async with DockerSandbox(LIMITS, density="shared", slots=1, pool=0) as sandbox:
        uids = set()
        for turn in range(5):
            session = await sandbox.session()
            assert (await session.run("import os\nleft = os.listdir('.')\n[f for f in left if f[0] != '.']")).value == "[]"
            uids.add((await session.run("os.getuid()")).value)
            await session.run(f"os.makedirs('a/b/c')\nopen('a/b/c/{turn}', 'w').write('x')\nos.chmod('a', 0)")
            await session.close()
            await eventually(lambda: all(place.has_room for place in sandbox._containers.values()))
        assert len(containers(engine, f"{reaper.LABEL}={sandbox.id}")) == 1
        assert len(uids) == 5


async def test_a_shared_container_that_dies_takes_its_sessions_along_and_the_next_ones_live_in_another(engine: Any) -> None:
    async with DockerSandbox(LIMITS, density="shared", slots=8, pool=0) as sandbox:
        one, two = await sandbox.session(), await sandbox.session()
        for container in containers(engine, f"{reaper.LABEL}={sandbox.id}"):
            reaper.remove(engine, container["Id"])
        for session in (one, two):
            with pytest.raises(SessionLost):
                await session.run("1")
        assert (await (await sandbox.session()).run("2")).value == "2"


async def test_a_session_that_nobody_uses_is_ended_and_its_place_is_free_again() -> None:
    async with DockerSandbox(LIMITS, pool=0, max_sessions=1, idle_s=1.0) as sandbox:
        forgotten = await sandbox.session()
        await forgotten.run("import time\ntime.sleep(1.5)")  # a long call is no idleness
        async with asyncio.timeout(20):
            assert (await (await sandbox.session()).run("1")).ok
        with pytest.raises(SessionLost, match="idle"):
            await forgotten.run("1")
