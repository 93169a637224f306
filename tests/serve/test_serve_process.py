"""`serve` in a process of its own over real containers: many sessions at once, and nothing left when it ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.serve.service import TOKEN, running
from toolreason.errors import SessionLost
from toolreason.execution import reaper
from toolreason.execution.engine import Engine
from toolreason.execution.remote import RemoteSandbox
from toolreason.types import Outcome

pytestmark = pytest.mark.docker
LIMITS = {"cell_timeout_s": 20, "memory_mb": 128, "processes": 32, "disk_mb": 8}
OPTIONS: dict[str, Any] = {"density": "shared", "pool": 1, "limits": LIMITS}


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

    with running(**OPTIONS) as service:
        async with RemoteSandbox(service.url, token=TOKEN) as sandbox:
            results = await asyncio.gather(*(rollout(sandbox, number) for number in range(16)))
    assert results == [(str(number), str(number * 2).encode()) for number in range(16)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_polite_kill_in_mid_call_ends_it_cleanly_with_no_container_left(number: int, engine: Any) -> None:
    with running(**OPTIONS) as service:
        sandbox = await RemoteSandbox(service.url, token=TOKEN, reconnect_s=0.3).__aenter__()
        idle, busy = await sandbox.session(), await sandbox.session()
        call = asyncio.create_task(busy.run("while True: pass"))
        await asyncio.sleep(0.5)
        assert containers(engine, service.process.pid) >= 1
        ended = asyncio.create_task(asyncio.to_thread(service.end, number))
        with pytest.raises(SessionLost):
            await call
        assert await ended == 0
        assert containers(engine, service.process.pid) == 0
        with pytest.raises(SessionLost):
            await idle.run("1")
        await sandbox.aclose()
    assert b"Traceback" not in service.errors
    assert TOKEN.encode() not in service.errors


async def test_with_a_token_it_listens_on_every_address() -> None:
    with running(sandbox="local", host="0.0.0.0") as service:
        url = service.url.replace("0.0.0.0", "127.0.0.1")
        async with RemoteSandbox(url, token=TOKEN) as sandbox:
            assert (await (await sandbox.session()).run("6 * 7")).value == "42"


async def test_without_a_token_it_serves_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOOLREASON_SANDBOX_TOKEN", raising=False)
    with running(sandbox="local", token=None) as service:
        async with RemoteSandbox(service.url) as sandbox:
            assert (await (await sandbox.session()).run("6 * 7")).value == "42"
