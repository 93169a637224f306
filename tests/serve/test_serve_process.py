"""`serve` in a process of its own over real containers: many sessions at once, and nothing left when it ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.serve.service import TOKEN, process
from toolreason.errors import SessionLost
from toolreason.execution import reaper
from toolreason.execution.engine import Engine
from toolreason.execution.remote import RemoteSandbox
from toolreason.types import Outcome

pytestmark = pytest.mark.docker
OPTIONS = "density='shared', pool=1, limits=Limits(cell_timeout_s=20, memory_mb=128, processes=32, disk_mb=8)"


@pytest.fixture
def engine() -> Iterator[Any]:
    client = Engine.find().client()
    yield client
    client.close()


def containers(engine: Any, pid: int) -> int:
    return len(engine.api.containers(all=True, filters={"label": f"{reaper.LABEL}.pid={pid}"}))


async def test_sessions_side_by_side_keep_their_own_state_and_files() -> None:
    async def rollout(sandbox: RemoteSandbox, number: int) -> tuple[str | None, bytes]:
        session = await sandbox.session()
        await session.put("in", str(number).encode())
        await session.run("n = int(open('in').read())")
        await session.run("n = -1", keep=False)
        await session.run("n += 1000")
        await session.undo()
        other = await session.fork()
        await other.run("n = -2; open('in', 'w').write('-2')")
        assert (await session.run("import os\nos._exit(1)")).outcome is Outcome.CRASHED
        result = await session.run("open('out', 'w').write(str(n * 2)); n")
        out = await session.get("out")
        await session.close()
        await other.close()
        return result.value, out

    with process(OPTIONS, TOOLREASON_SANDBOX_TOKEN=TOKEN) as (_, url):
        async with RemoteSandbox(url, token=TOKEN) as sandbox:
            results = await asyncio.gather(*(rollout(sandbox, number) for number in range(16)))
    assert results == [(str(number), str(number * 2).encode()) for number in range(16)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_polite_kill_in_mid_call_ends_it_cleanly_with_no_container_left(number: int, engine: Any) -> None:
    with process(OPTIONS, TOOLREASON_SANDBOX_TOKEN=TOKEN) as (child, url):
        sandbox = await RemoteSandbox(url, token=TOKEN, reconnect_s=0.3).__aenter__()
        idle, busy = await sandbox.session(), await sandbox.session()
        call = asyncio.create_task(busy.run("while True: pass"))
        await asyncio.sleep(0.5)
        assert containers(engine, child.pid) >= 1
        child.send_signal(number)
        with pytest.raises(SessionLost):
            await call
        assert await asyncio.to_thread(child.wait, 30) == 0
        assert containers(engine, child.pid) == 0
        assert child.stdout
        said = child.stdout.read()
        assert "Traceback" not in said
        assert TOKEN not in said
        with pytest.raises(SessionLost):
            await idle.run("1")
        await sandbox.aclose()


async def test_without_a_token_it_serves_this_machine() -> None:
    with process("sandbox='local'", TOOLREASON_SANDBOX_TOKEN="") as (_, url):
        async with RemoteSandbox(url, token=None) as sandbox:
            assert (await (await sandbox.session()).run("6 * 7")).value == "42"
