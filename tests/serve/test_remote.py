"""The client of the service: what it does when the network, the service or whatever answers in its place is not as it should be."""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.serve.service import TOKEN, served, until
from toolreason.errors import InputError, SandboxError, SessionLost, SettingsError, SetupError
from toolreason.execution import FileInfo, ScriptedSandbox, SessionBook
from toolreason.execution.remote import RemoteSandbox
from toolreason.types import CellResult, Outcome

PICTURE = base64.b64encode(b"\x89PNG\r\n\x1a\n...").decode()


async def test_all_calls_of_a_session_are_those_of_a_local_one() -> None:
    shown = CellResult(Outcome.OK, "out\n", "err", "42", None, "", 7, 0.5, (PICTURE,))
    scripted = ScriptedSandbox({"show": shown, "set": "", "bad": CellResult(Outcome.TIMEOUT)})
    async with served(scripted) as url, RemoteSandbox(url, token=TOKEN) as sandbox:
        session = await sandbox.session()
        assert await session.run("show") == shown
        await session.put("a folder/ä?&#.bin", b"\0\xff" * 1000)
        assert await session.files() == [FileInfo("a folder/ä?&#.bin", 2000)]
        assert await session.get("a folder/ä?&#.bin") == b"\0\xff" * 1000
        other = await session.fork()
        await other.put("b", b"")
        assert [file.path for file in await other.files()] == ["a folder/ä?&#.bin", "b"]
        assert len(await session.files()) == 1
        assert (await session.run("bad")).outcome is Outcome.TIMEOUT
        await session.undo()
        for refused in (
            session.undo(5),
            session.undo(0),
            session.get("nothing"),
            session.get("\ud800"),
            session.put("x" * 5000, b""),
        ):
            with pytest.raises(InputError):
                await refused
        assert (await session.run("set")).ok
        await session.close()
        await session.close()
        with pytest.raises(SessionLost):
            await session.run("set")
        assert (await other.run("set")).ok
    assert scripted.open == 0


async def test_rollouts_run_against_it_as_against_a_local_one() -> None:
    scripted = ScriptedSandbox(lambda code: f"ran {code}\n")
    async with served(scripted) as url, RemoteSandbox(url, token=TOKEN) as sandbox, SessionBook(sandbox) as book:
        results = await asyncio.gather(*(book.run(f"rollout {i % 20}", f"call {i}", f"cell {i}") for i in range(100)))
    assert [result.stdout for result in results] == [f"ran cell {i}\n" for i in range(100)]
    assert (scripted.sessions, len(scripted.calls), scripted.open) == (20, 100, 0)


class Breaking(httpx.AsyncBaseTransport):
    """The service does every request, and of each the first `times` answers are lost on the way."""

    def __init__(self, times: int) -> None:
        self.inner, self.times = httpx.AsyncHTTPTransport(), times
        self.lost: dict[str, int] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self.inner.handle_async_request(request)
        name = f"{request.method} {request.url.path.rpartition('/')[2]} {request.headers.get('idempotency-key')}"
        if self.lost.setdefault(name, 0) < self.times:
            self.lost[name] += 1
            await response.aread()
            await response.aclose()
            raise httpx.ReadError("connection reset", request=request)
        return response

    async def aclose(self) -> None:
        await self.inner.aclose()


async def test_an_answer_that_is_lost_is_asked_for_again_and_nothing_is_done_twice() -> None:
    scripted = ScriptedSandbox({"n += 1": "1\n", "n += 2": "3\n"})
    breaking = Breaking(times=2)
    async with served(scripted) as url, RemoteSandbox(url, token=TOKEN, transport=breaking) as sandbox:
        session = await sandbox.session()
        assert (await session.run("n += 1")).stdout == "1\n"
        await session.put("f", b"x")
        await session.fork()
        assert (await session.run("n += 2")).stdout == "3\n"
        await session.undo()
        assert await session.get("f") == b"x"
        with pytest.raises(InputError):
            await session.undo(2)
    assert [code for _, code in scripted.calls] == ["n += 1", "n += 2"]
    assert (scripted.sessions, scripted.open) == (2, 0)
    assert set(breaking.lost.values()) == {2}


async def test_a_network_that_stays_broken_loses_the_session_in_good_time() -> None:
    async with served(ScriptedSandbox()) as url:
        sandbox = await RemoteSandbox(url, token=TOKEN, reconnect_s=0.5).__aenter__()
        session = await sandbox.session()
    async with asyncio.timeout(5):
        with pytest.raises(SessionLost, match="cannot be reached"):
            await session.run("1")
    with pytest.raises(SandboxError, match="cannot be reached"):
        await sandbox.session()
    await sandbox.aclose()


async def test_a_service_that_does_not_answer_loses_the_session_after_the_cells_time_and_a_grace() -> None:
    async def never(code: str) -> str:
        await asyncio.Event().wait()
        raise AssertionError

    scripted = ScriptedSandbox(never)
    async with served(scripted) as url, RemoteSandbox(url, token=TOKEN, grace_s=0.2) as sandbox:
        session = await sandbox.session()
        with pytest.raises(SessionLost, match=r"within 0\.5 s"):
            await session.run("1", timeout_s=0.3)
        await until(lambda: scripted.open == 0)


async def test_cancelling_a_call_ends_the_session_and_the_cell() -> None:
    ended = asyncio.Event()

    async def never(code: str) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    scripted = ScriptedSandbox(never)
    async with served(scripted) as url, RemoteSandbox(url, token=TOKEN) as sandbox:
        session = await sandbox.session()
        call = asyncio.create_task(session.run("1"))
        await until(lambda: bool(scripted.calls))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        with pytest.raises(SessionLost):
            await session.run("1")
        await asyncio.wait_for(ended.wait(), 5)
        await until(lambda: scripted.open == 0)


async def test_while_the_service_is_full_a_session_is_waited_for_and_a_wait_that_is_cancelled_takes_no_place() -> None:
    scripted = ScriptedSandbox()
    async with served(scripted, max_sessions=1, wait_s=0.1) as url, RemoteSandbox(url, token=TOKEN) as sandbox:
        first = await sandbox.session()
        cancelled, waiting = asyncio.create_task(sandbox.session()), asyncio.create_task(sandbox.session())
        with pytest.raises(SandboxError):
            await first.fork()
        cancelled.cancel()
        await first.close()
        second = await asyncio.wait_for(waiting, 10)
        await second.close()
        await (await sandbox.session()).close()
        async with RemoteSandbox(url, token=TOKEN, lease_s=0.3) as impatient:
            held = await sandbox.session()
            with pytest.raises(SandboxError, match=r"within 0\.3 s"):
                await impatient.session()
            await held.close()


async def test_a_client_leases_no_more_than_it_was_told() -> None:
    async with served(ScriptedSandbox()) as url, RemoteSandbox(url, token=TOKEN, max_sessions=1) as sandbox:
        first = await sandbox.session()
        waiting = asyncio.create_task(sandbox.session())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await first.close()
        await (await waiting).close()


@pytest.mark.parametrize("token", [None, "wrong", "Schlüssel \N{KEY}"])
async def test_a_token_that_the_service_refuses_is_a_setting_and_is_not_shown(
    token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOOLREASON_SANDBOX_TOKEN", raising=False)
    async with served(ScriptedSandbox()) as url:
        with pytest.raises(SettingsError, match="TOOLREASON_SANDBOX_TOKEN") as caught:
            await RemoteSandbox(url, token=token).__aenter__()
        assert str(token) not in str(caught.value)


async def test_the_token_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLREASON_SANDBOX_TOKEN", TOKEN)
    async with served(ScriptedSandbox()) as url, RemoteSandbox(url) as sandbox:
        assert await (await sandbox.session()).files() == []


async def test_a_service_that_is_not_there_names_the_command() -> None:
    with pytest.raises(SetupError, match="toolreason sandbox serve"):
        await RemoteSandbox("http://127.0.0.1:9", reconnect_s=0.2).__aenter__()


@pytest.mark.parametrize("url", ["", "host:8700", "ftp://host", "http://", "http://host:port", "http://host:99999", "http://[::1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="http://HOST:PORT"):
        RemoteSandbox(url)


GOOD = {"outcome": "ok", "stdout": "x"}
ANSWERS: list[httpx.Response | Callable[[], httpx.Response]] = [
    httpx.Response(200, content=b"\xff\xfe"),
    httpx.Response(200, content=b"[" * 100_000),
    httpx.Response(200, json=[GOOD]),
    httpx.Response(200, json={}),
    httpx.Response(200, json=GOOD | {"outcome": "won"}),
    httpx.Response(200, json=GOOD | {"stdout": 7}),
    httpx.Response(200, json=GOOD | {"dropped": True}),
    httpx.Response(200, content=b'{"outcome": "ok", "duration_s": 1e999}'),
    httpx.Response(200, json=GOOD | {"figures": ["not a picture"]}),
    httpx.Response(200, json=GOOD | {"figures": [PICTURE] * 1000}),
    httpx.Response(200, content=json.dumps(GOOD | {"stdout": "x" * (18 << 20)}).encode()),
    httpx.Response(200, content=zlib.compress(b"x"), headers={"content-encoding": "deflate"}),
    httpx.Response(302, headers={"location": "http://elsewhere.example/"}),
    httpx.Response(404, content=b"<html>"),
    httpx.Response(500, content=b'{"error": ' + b"[" * 100_000),
    httpx.Response(502, content=json.dumps({"error": ["\ud800"] * 10_000}).encode()),
]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: f"{answer.status_code} {answer.content[:30]!r}")
async def test_an_answer_that_makes_no_sense_is_an_error_of_the_sandbox(answer: httpx.Response) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/run"):
            return answer
        return httpx.Response(200, json={"service": 1, "id": "abc", "cell_timeout_s": 10})

    async with RemoteSandbox("http://service", transport=httpx.MockTransport(handler)) as sandbox:
        session = await sandbox.session()
        with pytest.raises(SandboxError) as caught:
            await session.run("1")
        assert len(str(caught.value)) < 2000
        with pytest.raises(SessionLost):
            await session.files()


LEASES: list[Any] = [
    {},
    {"id": "../../stats", "cell_timeout_s": 10},
    {"id": "a" * 200, "cell_timeout_s": 10},
    {"id": 7, "cell_timeout_s": 10},
    {"id": "a", "cell_timeout_s": "10"},
    {"id": "a", "cell_timeout_s": -1},
    {"id": "a", "cell_timeout_s": float("inf")},
    [],
]


@pytest.mark.parametrize("lease", LEASES, ids=str)
async def test_a_lease_that_makes_no_sense_is_an_error_of_the_sandbox(lease: Any) -> None:
    content = json.dumps(lease).encode()

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=content) if request.method == "POST" else httpx.Response(200, json={"service": 1})

    async with RemoteSandbox("http://service", transport=httpx.MockTransport(handler)) as sandbox:
        with pytest.raises(SandboxError):
            await sandbox.session()


@pytest.mark.parametrize("files", [7, [["a"]], [["a", "b"]], [[1, 2, 3]], {"a": 1}])
async def test_a_list_of_files_that_makes_no_sense_is_an_error_of_the_sandbox(files: Any) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"service": 1, "files": files, "id": "abc", "cell_timeout_s": 10})

    async with RemoteSandbox("http://service", transport=httpx.MockTransport(handler)) as sandbox:
        session = await sandbox.session()
        with pytest.raises(SandboxError):
            await session.files()
