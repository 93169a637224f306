"""A remote sandbox does what a local one does, also where the connection breaks; what a service sends is checked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.serve.service import TOKEN, running
from toolreason.errors import InputError, SandboxError, SessionLost, SettingsError, SetupError
from toolreason.execution import Limits, Session, SessionBook
from toolreason.execution.conformance import LIMITS, Bench, Check, checks
from toolreason.execution.remote import RemoteSandbox


@asynccontextmanager
async def remote(sandbox: str, limits: Limits = LIMITS, **options: Any) -> AsyncIterator[RemoteSandbox]:
    """A service in a process of its own, and its client."""
    with running(sandbox=sandbox, limits=asdict(limits), **options) as service:
        async with RemoteSandbox(service.url, token=TOKEN) as opened:
            yield opened
        assert b"Traceback" not in service.errors


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench() -> AsyncIterator[Bench]:
    async with remote("docker") as opened:
        yield Bench(opened, lambda limits: remote("docker", limits))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(bench: Bench) -> AsyncIterator[Session]:
    leased = await bench.sandbox.session()
    yield leased
    await leased.close()


@pytest.mark.docker
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("check", [pytest.param(check, id=check.name) for check in checks()])
async def test_it_holds(bench: Bench, session: Session, check: Check) -> None:
    await check.run(bench, session)


# connections that break


class Line:
    """A way to the service that breaks once in every `each` requests: the service has had it, the answer is on its way."""

    def __init__(self, url: str, each: int) -> None:
        self.host, self.port = url.removeprefix("http://").split(":")
        self.each, self.requests, self.broken = each, 0, 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: requests there, answers back."""
        up_reader, up_writer = await asyncio.open_connection(self.host, int(self.port))

        async def there() -> None:
            while data := await reader.read(1 << 16):
                self.requests += data.count(b" HTTP/1.1\r\n")
                up_writer.write(data)
            up_writer.close()

        going = asyncio.ensure_future(there())
        try:
            while data := await up_reader.read(1 << 16):
                if self.requests // self.each > self.broken:
                    self.broken += 1
                    break
                writer.write(data)
        finally:
            going.cancel()
            for end in (up_writer, writer):
                end.close()
                with suppress(OSError):
                    await end.wait_closed()


async def test_a_call_whose_answer_is_lost_is_asked_again_and_done_once() -> None:
    with running(sandbox="local") as service:
        line = Line(service.url, each=3)
        server = await asyncio.start_server(line.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with RemoteSandbox(f"http://127.0.0.1:{port}", token=TOKEN) as sandbox:
            sessions = [await sandbox.session() for _ in range(3)]
            for number, session in enumerate(sessions):
                await session.run("done = []")
                for turn in range(6):
                    assert (await session.run(f"done.append({turn})\nlen(done)")).value == str(turn + 1)
                await session.put("note", b"x" * number)
                other = await session.fork()
                await session.undo(2)
                assert (await session.run("done")).value == "[0, 1, 2, 3]"
                assert (await other.run("done")).value == "[0, 1, 2, 3, 4, 5]"
                assert await other.get("note") == b"x" * number
            assert (await sandbox.stats())["sessions"] == 6  # none was leased twice
        assert line.broken >= 10
        server.close()
        await server.wait_closed()


async def test_a_service_that_is_gone_is_a_lost_session_and_no_cell_result() -> None:
    with running(sandbox="local") as service:
        async with RemoteSandbox(service.url, token=TOKEN, reconnect_s=0.5) as sandbox:
            session = await sandbox.session()
            call = asyncio.ensure_future(session.run("import time\ntime.sleep(60)", timeout_s=100))
            await asyncio.sleep(0.5)
            await asyncio.to_thread(service.end)
            with pytest.raises(SessionLost):
                await call
            with pytest.raises(SessionLost):
                await session.run("1")
            with pytest.raises(SandboxError, match="cannot be reached"):
                await sandbox.session()
    with pytest.raises(SetupError, match="toolreason sandbox serve"):
        async with RemoteSandbox(service.url, token=TOKEN, reconnect_s=0.1):
            pass


async def test_a_cancelled_call_ends_its_session_and_its_cell_over_there() -> None:
    async with remote("local") as sandbox:
        session = await sandbox.session()
        call = asyncio.ensure_future(session.run("while True: pass", timeout_s=1000))
        await asyncio.sleep(0.5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        for _ in range(100):
            if not (await sandbox.stats())["sessions"]:
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("the session goes on")


async def test_a_lease_that_nobody_waits_for_any_more_leaves_no_session() -> None:
    async with remote("local") as sandbox:
        for pause in (0.0, 0.01, 0.05, 0.2):
            leasing = asyncio.ensure_future(sandbox.session())
            await asyncio.sleep(pause)
            leasing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leasing
        for _ in range(100):
            if (await sandbox.stats())["sessions"] == 0 and not sandbox._tasks:
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("a session is left")


async def test_more_clients_than_places_wait_for_one() -> None:
    async with remote("local", max_sessions=2, wait_s=0.2) as sandbox:

        async def rollout(number: int) -> str | None:
            session = await sandbox.session()
            await session.run(f"n = {number}")
            value = (await session.run("n * n")).value
            await session.close()
            return value

        assert await asyncio.gather(*map(rollout, range(6))) == [str(number**2) for number in range(6)]


async def test_a_fork_without_a_place_is_refused_and_its_session_goes_on() -> None:
    async with remote("local", max_sessions=1) as sandbox:
        session = await sandbox.session()
        await session.run("x = 1")
        with pytest.raises(SandboxError, match="taken"):
            await session.fork()
        assert (await session.run("x")).value == "1"


async def test_a_book_rebuilds_what_a_service_has_forgotten() -> None:
    async with remote("local", idle_s=0.4) as sandbox, SessionBook(sandbox) as book:
        await book.run("rollout", "1", "x = 20")
        await asyncio.sleep(1)
        assert (await sandbox.stats())["sessions"] == 0
        assert (await book.run("rollout", "2", "x + 1")).value == "21"


# what a service sends


def scripted(status: int, body: dict[str, str]) -> httpx.MockTransport:
    """A service that opens sessions and gives the same answer to everything else."""

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path in ("/stats", "/sessions"):
            return httpx.Response(200, json={"service": 1, "id": "abc", "cell_timeout_s": 5})
        return httpx.Response(status, content=json.dumps(body).encode())

    return httpx.MockTransport(handle)


CALLS: list[Callable[[Session], Any]] = [
    lambda session: session.run("1"),
    lambda session: session.fork(),
    lambda session: session.undo(),
    lambda session: session.put("a", b""),
    lambda session: session.get("a"),
    lambda session: session.files(),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("status", "raised"), [(410, SessionLost), (422, InputError), (413, InputError), (502, SandboxError)])
async def test_each_status_has_its_error(call: Callable[[Session], Any], status: int, raised: type[Exception]) -> None:
    async with RemoteSandbox("http://there", transport=scripted(status, {"error": "why \ud800"})) as sandbox:
        session = await sandbox.session()
        with pytest.raises(raised, match=r"why \\ud800") as caught:
            await call(session)
        assert type(caught.value) is raised
        with pytest.raises(InputError if raised is InputError else SessionLost):
            await call(session)  # what was refused harms no session


async def test_another_server_is_no_sandbox_service() -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json={"service": "something else"}))
    with pytest.raises(SetupError, match="another service"):
        async with RemoteSandbox("http://there", transport=transport):
            pass


def test_a_password_in_the_address_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError, match="TOOLREASON_SANDBOX_TOKEN") as caught:
        RemoteSandbox("http://user:secret@host")
    assert "secret" not in str(caught.value)
