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
    ("host", "said"), [("unix:///nonexistent.sock", "no container engine"), ("ssh://somewhere", "not supported")]
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


async def test_an_engine_over_tcp_works_as_a_local_one(monkeypatch: pytest.MonkeyPatch) -> None:
    local = Engine.find()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            while chunk := await reader.read(1 << 16):
                writer.write(chunk)
                await writer.drain()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await local.connect()
        with contextlib.suppress(OSError):
            await asyncio.gather(pipe(reader, back), pipe(there, writer))

    async with await asyncio.start_server(forward, "127.0.0.1", 0) as server:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with DockerSandbox(LIMITS, pool=0) as sandbox:
            session = await sandbox.session()
            assert (await session.run("print('x' * 100_000)\n6 * 7")).value == "42"
