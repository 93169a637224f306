"""Ways to an engine. The stand-in for `ssh` runs here what it is to run elsewhere; all behind it is real."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from toolreason.errors import SandboxError, SetupError
from toolreason.execution import Limits, engine, ssh
from toolreason.execution.docker import DockerSandbox
from toolreason.execution.engine import Engine, attach
from toolreason.execution.reaper import LABEL

pytestmark = pytest.mark.docker

SSH = """#!/bin/sh
echo "$$ $@" >> {log}
while [ "$1" != -- ]; do shift; done
shift 2  # -- and the machine
unset DOCKER_HOST
{does}
"""
HOST = "ssh://someone@elsewhere:2222"


class StandIn:
    """An `ssh` that is first on the path."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.log = folder, folder / "log"
        self.local = Engine.find().host
        self.log.touch()
        self.does_its_work()
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.setenv("DOCKER_HOST", HOST)

    def does(self, what: str) -> None:
        new = self.folder / "new"
        new.write_text(SSH.format(log=self.log, does=what))
        new.chmod(0o755)
        new.rename(self.folder / "ssh")

    def does_its_work(self) -> None:
        self.does(f'DOCKER_HOST={self.local} exec sh -c "exec $*"')

    def calls(self) -> list[str]:
        return [line.partition(" ")[2] for line in self.log.read_text().splitlines()]

    def there(self) -> list[int]:
        """The process ids of its runs that have not ended, or that nobody waited for."""
        pids = [int(line.split()[0]) for line in self.log.read_text().splitlines()]
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return StandIn(tmp_path, monkeypatch)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


async def test_an_engine_over_ssh_works_as_a_local_one_and_leaves_no_process(stand_in: StandIn) -> None:
    async with DockerSandbox(Limits(), pool=1) as sandbox:
        for _ in range(3):
            session = await sandbox.session()
            assert (await session.run("print('x' * 100_000)\n6 * 7")).value == "42"
            await session.close()
        running = stand_in.there()
        assert all(os.getsid(pid) == pid for pid in running)  # Ctrl-C in this terminal is not for them
    calls = stand_in.calls()
    assert all("-oBatchMode=yes" in call for call in calls)
    assert all(call.endswith("-l someone -p 2222 -- elsewhere docker system dial-stdio") for call in calls)
    await asyncio.get_running_loop().shutdown_default_executor()
    assert running
    assert not stand_in.there()


def test_control_calls_use_their_connections_again(stand_in: StandIn) -> None:
    client = Engine.find().client()
    for number in range(20):
        assert client.api.containers(filters={"label": f"none{number}"}) == []
    assert len(stand_in.calls()) == 1
    client.close()
    assert not stand_in.there()


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("echo 'someone@elsewhere: Permission denied (publickey).' >&2; exit 255", "Permission denied"),
        ('exec sh -c "toolreason-no-such-$*"', "not found"),
        ('DOCKER_HOST=unix:///nonexistent exec sh -c "exec $*"', "/nonexistent"),
        ("exit 3", "exit code 3"),
    ],
    ids=["ssh", "no docker", "no engine", "silence"],
)
async def test_what_is_said_there_is_the_error(stand_in: StandIn, does: str, said: str) -> None:
    stand_in.does(does)
    with pytest.raises(SetupError, match=said) as caught:
        Engine.find().client()
    assert "ssh -T -oBatchMode=yes" in str(caught.value)
    assert not stand_in.there()
    with pytest.raises(SandboxError, match=said):
        await attach(Engine.find(), "some", "1.41")
    await asyncio.get_running_loop().shutdown_default_executor()
    assert not stand_in.there()


def test_what_is_said_later_is_the_error_too(stand_in: StandIn) -> None:
    client = Engine.find().client()
    stand_in.does("echo 'No route to host' >&2; exit 255")
    for pid in stand_in.there():
        os.killpg(pid, signal.SIGKILL)
    wait_until(lambda: not any(alive(pid) for pid in stand_in.there()))
    with pytest.raises(requests.ConnectionError, match="No route to host"):
        client.ping()
    stand_in.does_its_work()
    assert client.ping()
    client.close()
    assert not stand_in.there()


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"


async def test_a_connection_that_breaks_costs_its_session_and_nothing_else(stand_in: StandIn) -> None:
    async with DockerSandbox(Limits(), pool=0) as sandbox:
        broken = await sandbox.session()
        before = set(stand_in.there())
        other = await sandbox.session()
        for pid in set(stand_in.there()) - before:  # one of them is the second session's
            os.killpg(pid, signal.SIGKILL)
        with pytest.raises(SandboxError):
            await other.run("1 + 1")
        assert (await broken.run("1 + 1")).value == "2"
        assert (await (await sandbox.session()).run("2 + 2")).value == "4"


def test_a_program_that_is_killed_leaves_neither_process_nor_container(stand_in: StandIn) -> None:
    program = (
        "import asyncio, os, signal\n"
        "from toolreason.execution.docker import DockerSandbox\n"
        "async def main():\n"
        "    async with DockerSandbox(pool=0) as sandbox:\n"
        "        await (await sandbox.session()).run('1')\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        pass
    assert process.returncode == -signal.SIGKILL
    assert stand_in.calls()
    # whoever is the parent of orphans here may leave the dead uncollected
    wait_until(lambda: not any(alive(pid) for pid in stand_in.there()))
    client = Engine(stand_in.local).client()
    label = f"{LABEL}.pid={process.pid}"
    try:
        wait_until(lambda: not client.api.containers(all=True, filters={"label": label}))
    finally:
        client.close()


def test_an_ssh_that_does_not_want_to_end_is_killed(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "END_S", 0.2)
    stand_in.does("trap '' TERM; echo ready; while :; do sleep 1; done")
    line = ssh.Line(HOST)
    assert line.socket.recv(5) == b"ready"
    line.end()
    line.socket.close()
    assert line.process.returncode == -signal.SIGKILL
    assert not stand_in.there()


def test_no_ssh_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", "ssh://elsewhere")
    with pytest.raises(SetupError, match="ssh can't be started"):
        Engine.find().client()


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("ssh://h", ["--", "h", "docker system dial-stdio"]),
        ("ssh://-oProxyCommand=evil", ["--", "-oProxyCommand=evil", "docker system dial-stdio"]),
        ("ssh://a%40b@[::1]:22", ["-l", "a@b", "-p", "22", "--", "::1", "docker system dial-stdio"]),
        ("ssh://Host/run/u's/d.sock", ["--", "Host", """docker --host 'unix:///run/u'"'"'s/d.sock' system dial-stdio"""]),
    ],
)
def test_what_ssh_is_asked_for(host: str, words: list[str]) -> None:
    assert ssh.command(host)[-len(words) :] == words


@pytest.mark.parametrize("host", ["ssh://", "ssh://h:port", "ssh://user:secret@h", "ssh://h?x=1"])
def test_what_is_no_address_is_said(host: str) -> None:
    with pytest.raises(SetupError, match="without a password"):
        Engine(host).client()


def test_dockers_own_settings_name_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    for name, host in (("far", "ssh://me@far"), ("near", "unix:///run/near.sock")):
        subprocess.run(["docker", "context", "create", name, "--docker", f"host={host}"], check=True, capture_output=True)
    subprocess.run(["docker", "context", "use", "far"], check=True, capture_output=True)
    assert Engine.find().host == "ssh://me@far"
    monkeypatch.setenv("DOCKER_CONTEXT", "near")
    assert Engine.find().host == "unix:///run/near.sock"
    monkeypatch.setenv("DOCKER_CONTEXT", "absent")
    with pytest.raises(SetupError, match="docker context ls"):
        Engine.find()
    monkeypatch.setenv("DOCKER_HOST", "tcp://first:1")
    assert Engine.find().host == "tcp://first:1"


def test_of_the_usual_sockets_the_first_that_this_user_may_use_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert tmp_path / "docker.sock" in engine._sockets()  # a rootless engine's
    system, rootless, absent = tmp_path / "system.sock", tmp_path / "docker.sock", tmp_path / "absent.sock"
    monkeypatch.setattr(engine, "_sockets", lambda: [absent, system, rootless])
    with pytest.raises(SetupError, match="start Docker"):
        Engine.find()
    system.touch()
    rootless.touch()
    assert Engine.find().host == f"unix://{system}"
    usable = {rootless}
    monkeypatch.setattr(os, "access", lambda path, mode: path in usable)
    assert Engine.find().host == f"unix://{rootless}"
    usable.clear()
    assert Engine.find().host == f"unix://{system}"  # whose error says what is to be done
