"""Ways to an engine. The stand-in for `ssh` runs here what it is to run elsewhere; all behind it is real."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from toolreason.errors import SetupError
from toolreason.execution import Limits
from toolreason.execution.docker import DockerSandbox
from toolreason.execution.engine import Engine
from toolreason.execution.tunnel import command, open_tunnel

pytestmark = pytest.mark.docker

SSH = """#!/bin/sh
echo "$@" >> {log}
while [ "$1" != -- ]; do shift; done
shift 2  # -- and the machine
unset DOCKER_HOST
{does}
"""


@pytest.fixture(autouse=True)
def forget_tunnels() -> Iterator[None]:
    """They are kept by address, and each test means another machine."""
    open_tunnel.cache_clear()
    yield
    open_tunnel.cache_clear()


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> Path:
    """Put an `ssh` first on the path. Returns the log of its arguments."""
    log = folder / "log"
    (folder / "ssh").write_text(SSH.format(log=log, does=does))
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/local/bin:/usr/bin:/bin")
    monkeypatch.setenv("DOCKER_HOST", "ssh://someone@elsewhere:2222")
    return log


async def test_an_engine_over_ssh_works_as_a_local_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = Engine.find().host
    log = stand_in(tmp_path, monkeypatch, f'DOCKER_HOST={local} exec "$@"')
    async with DockerSandbox(Limits(), pool=1) as sandbox:
        session = await sandbox.session()
        assert (await session.run("print('x' * 100_000)\n6 * 7")).value == "42"
    calls = log.read_text().splitlines()
    assert all("BatchMode=yes" in call and "-p 2222 -- someone@elsewhere docker" in call for call in calls)
    assert any(call.endswith("docker system dial-stdio") for call in calls)


def test_what_ssh_says_is_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, "echo 'someone@elsewhere: Permission denied (publickey).' >&2; exit 255")
    with pytest.raises(SetupError, match="Permission denied"):
        Engine.find()


def test_no_ssh_is_an_error_that_names_the_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", "ssh://elsewhere")
    with pytest.raises(SetupError, match="install an ssh client"):
        Engine.find()


def test_a_machine_s_name_is_never_taken_for_an_option() -> None:
    assert command("ssh://-oProxyCommand=evil", "docker")[-3:] == ["--", "-oproxycommand=evil", "docker"]
