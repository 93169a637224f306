"""The service by its own words, over real sockets: who may ask, how much, what is done once, what happens when a client is gone."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.serve.service import BEARER, TOKEN, served, until
from toolreason.errors import SandboxError, SessionLost, SettingsError
from toolreason.execution import ScriptedSandbox
from toolreason.serve.app import router
from toolreason.serve.sandbox import serve
from toolreason.types import CellResult, Outcome

JSON = {"Content-Type": "application/json"}


def client(url: str, headers: dict[str, str] | None = BEARER) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=20)


async def leased(http: httpx.AsyncClient, url: str = "") -> str:
    answer = await http.post(f"{url}/sessions")
    assert answer.status_code == 201
    return f"/sessions/{answer.json()['id']}"


WRONG: list[dict[bytes, bytes]] = [
    {},
    {b"authorization": b""},
    {b"authorization": b"Bearer"},
    {b"authorization": b"Bearer " + TOKEN[:-1].encode()},
    {b"authorization": b"Bearer " + TOKEN.encode() + b"x"},
    {b"authorization": b"Basic " + TOKEN.encode()},
    {b"authorization": "Bearer Schlüssel\N{KEY}".encode()},
    {b"authorization": b"Bearer \xff\xfe"},
    {b"x-token": TOKEN.encode()},
]


@pytest.mark.parametrize("headers", WRONG)
async def test_every_route_but_health_wants_the_token(headers: dict[bytes, bytes]) -> None:
    routes = [(method, route.path) for route in router.routes for method in route.methods if route.path != "/health"]  # type: ignore[attr-defined]
    assert len(routes) == 10
    sandbox = ScriptedSandbox()
    async with served(sandbox) as url, httpx.AsyncClient(base_url=url) as http:
        for method, path in [*routes, ("GET", "/nowhere"), ("GET", "//health"), ("GET", "/health/../stats")]:
            answer = await http.request(method, path, headers=list(headers.items()))
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert TOKEN not in answer.text
        assert (await http.get("/health", headers=list(headers.items()))).json() == {"ok": True}
    assert sandbox.sessions == 0


async def test_the_right_token_opens_and_the_schemes_name_may_be_written_either_way() -> None:
    async with served(ScriptedSandbox()) as url, client(url) as http:
        assert (await http.get("/stats")).json()["sessions"] == 0
        assert (await http.get("/stats", headers={"Authorization": f"bearer {TOKEN}"})).status_code == 200
        assert (await http.get("/nowhere")).status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Host": ""}, 403),
    ],
)
async def test_without_a_token_a_page_in_a_browser_is_refused(headers: dict[str, str], status: int) -> None:
    async with served(ScriptedSandbox(), token=None) as url, client(url, None) as http:
        assert (await http.get("/stats", headers=headers)).status_code == status


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.0.2.7"])
def test_beyond_this_machine_it_refuses_to_listen_without_a_token(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOOLREASON_SANDBOX_TOKEN", raising=False)
    with pytest.raises(SettingsError, match="set a token"):
        serve(host, 0)


@pytest.mark.parametrize("token", ["two words", "Schlüssel", "line\nbreak"])
def test_a_token_that_no_header_carries_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(SettingsError, match="printable ASCII") as caught:
        serve("127.0.0.1", 0, token)
    assert token not in str(caught.value)


def test_a_token_that_can_be_guessed_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError, match="can be guessed") as caught:
        serve("127.0.0.1", 0, "hunter2")
    assert "hunter2" not in str(caught.value)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SettingsError, match="choose another --port"):
        serve("127.0.0.1", taken.getsockname()[1], sandbox="local")


async def test_bodies_that_are_too_large_are_refused_with_and_without_a_length() -> None:
    async def pieces() -> Any:
        for _ in range(10):
            yield b"x" * (1 << 20)

    async with served(ScriptedSandbox(), max_file_mb=1) as url, client(url) as http:
        at = await leased(http)
        for path in (f"{at}/run", f"{at}/undo"):
            assert (await http.post(path, content=b"x" * (9 << 20))).status_code == 413
            assert (await http.post(path, content=pieces())).status_code == 413
        assert (await http.put(f"{at}/file", params={"path": "f"}, content=pieces())).status_code == 413
        assert (await http.get(f"{at}/files")).json() == {"files": []}


GARBAGE: list[bytes] = [
    b"",
    b"\xff\xfe",
    b"[" * 100_000,
    b'"code"',
    b"{}",
    b'{"code": 7}',
    b'{"code": "1", "timeout_s": NaN}',
    b'{"code": "1", "timeout_s": -1}',
    b'{"code": "1", "timeout_s": 1e9}',
    b'{"code": "1", "shell": true}',
    b'{"code": null, "code": {}}',
]


@pytest.mark.parametrize("body", GARBAGE, ids=lambda body: repr(body[:40]))
async def test_garbage_is_refused_with_a_reason_and_runs_nothing(body: bytes) -> None:
    sandbox = ScriptedSandbox()
    async with served(sandbox) as url, client(url) as http:
        at = await leased(http)
        answer = await http.post(f"{at}/run", content=body, headers=JSON)
        assert answer.status_code in (400, 422)
        assert 0 < len(answer.json()["error"]) <= 1000
        assert (await http.post(f"{at}/undo", json={"cells": 0})).status_code == 422
    assert sandbox.calls == []


async def test_what_is_no_http_is_answered_and_the_service_goes_on() -> None:
    async with served(ScriptedSandbox()) as url, client(url) as http:
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        writer.write(b"\x16\x03\x01 no http\r\n\r\n")
        assert b"400" in await reader.read(100)
        writer.close()
        assert (await http.get("/stats")).status_code == 200


@pytest.mark.parametrize(
    ("error", "status"), [(SandboxError("no engine"), 502), (SessionLost("gone"), 410), (SettingsError("no such thing"), 422)]
)
async def test_each_error_has_its_status(error: Exception, status: int) -> None:
    async with served(ScriptedSandbox({"1": error})) as url, client(url) as http:
        answer = await http.post(f"{await leased(http)}/run", json={"code": "1"})
        assert (answer.status_code, answer.json()) == (status, {"error": str(error)})


async def test_a_session_that_is_not_there_is_gone() -> None:
    async with served(ScriptedSandbox({"1": SessionLost("gone")})) as url, client(url) as http:
        at = await leased(http)
        await http.post(f"{at}/run", json={"code": "1"})
        for path in (at, "/sessions/invented"):
            assert (await http.get(f"{path}/files")).status_code == 410
            assert (await http.delete(path)).status_code == 204
        assert (await http.get("/stats")).json()["sessions"] == 0


async def test_a_request_that_comes_again_is_not_done_again() -> None:
    sandbox = ScriptedSandbox({"n += 1": "done\n"})
    async with served(sandbox) as url, client(url) as http:
        first, again = [(await http.post("/sessions", headers={"Idempotency-Key": "L"})).json()["id"] for _ in range(2)]
        assert first == again
        at, key = f"/sessions/{first}", {"Idempotency-Key": "A"}
        answers = [await http.post(f"{at}/run", json={"code": "n += 1"}, headers=key) for _ in range(3)]
        assert {(answer.status_code, answer.json()["stdout"]) for answer in answers} == {(200, "done\n")}
        other = await http.post(f"{at}/run", json={"code": "n += 2"}, headers=key)
        assert (other.status_code, "an id of its own" in other.json()["error"]) == (422, True)
        for _ in range(3):
            assert (await http.post(f"{at}/undo", json={"cells": 1}, headers={"Idempotency-Key": "B"})).status_code == 204
        forks = {(await http.post(f"{at}/fork", headers={"Idempotency-Key": "C"})).json()["id"] for _ in range(3)}
        assert len(forks) == 1
    assert [code for _, code in sandbox.calls] == ["n += 1"]
    assert sandbox.sessions == 2


async def test_the_latest_answers_are_kept_and_an_older_request_is_known_and_not_done_again() -> None:
    sandbox = ScriptedSandbox({str(n): "x" for n in range(12)})
    async with served(sandbox) as url, client(url) as http:
        at = await leased(http)
        statuses = []
        for code in [*range(12), 11, 0]:
            answer = await http.post(f"{at}/run", json={"code": str(code)}, headers={"Idempotency-Key": str(code)})
            statuses.append(answer.status_code)
    assert statuses == [200] * 13 + [502]
    assert [int(code) for _, code in sandbox.calls] == [*range(12)]


async def hang_up_after(url: str, path: str, body: bytes, key: str) -> None:
    """Send a request whole, and go away before the answer."""
    _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nIdempotency-Key: {key}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.close()
    await writer.wait_closed()


async def test_a_call_goes_on_when_its_client_goes_away_and_its_answer_waits_for_it() -> None:
    let, code = asyncio.Event(), json.dumps({"code": "slow"}).encode()

    async def answer(code: str) -> CellResult:
        await let.wait()
        return CellResult(Outcome.OK, "slept\n")

    sandbox = ScriptedSandbox(answer)
    async with served(sandbox) as url, client(url) as http:
        at = await leased(http)
        await hang_up_after(url, f"{at}/run", code, "K")
        await asyncio.sleep(0.1)
        again = asyncio.create_task(http.post(f"{at}/run", content=code, headers={"Idempotency-Key": "K", **JSON}))
        await asyncio.sleep(0.1)
        assert not again.done()
        let.set()
        assert (await again).json()["stdout"] == "slept\n"
        assert (await http.post(f"{at}/undo", json={"cells": 1})).status_code == 204
        assert (await http.post(f"{at}/undo", json={"cells": 1})).status_code == 422
    assert len(sandbox.calls) == 1


async def test_a_client_that_goes_away_in_the_middle_of_a_body_has_done_nothing(caplog: pytest.LogCaptureFixture) -> None:
    sandbox = ScriptedSandbox({"1": "done"})
    async with served(sandbox) as url, client(url) as http:
        at = await leased(http)
        for request, kind in ((f"POST {at}/run", "application/json"), (f"PUT {at}/file?path=f", "application/octet-stream")):
            _, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
            head = f"{request} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: {kind}\r\n"
            writer.write(f'{head}Content-Length: 1000\r\n\r\n{{"code": "1"}}'.encode())
            await writer.drain()
            await asyncio.sleep(0.1)
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(0.2)
        assert (await http.get(f"{at}/files")).json() == {"files": []}
    assert sandbox.calls == []
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def never(code: str) -> CellResult:
    await asyncio.Event().wait()
    raise AssertionError


async def test_closing_a_session_ends_the_call_that_runs_in_it() -> None:
    sandbox = ScriptedSandbox(never)
    async with served(sandbox) as url, client(url) as http:
        at = await leased(http)
        call = asyncio.create_task(http.post(f"{at}/run", json={"code": "1"}))
        await until(lambda: bool(sandbox.calls))
        assert (await http.delete(at)).status_code == 204
        assert (await call).status_code == 410
        assert sandbox.open == 0


async def test_the_service_ends_at_once_and_a_call_under_way_is_told() -> None:
    sandbox = ScriptedSandbox(never)
    async with httpx.AsyncClient(headers=BEARER) as http:
        async with served(sandbox) as url:
            at = url + await leased(http, url)
            call = asyncio.create_task(http.post(f"{at}/run", json={"code": "1"}))
            await until(lambda: bool(sandbox.calls))
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 5
        assert (await call).status_code == 410
        assert sandbox.open == 0
        with pytest.raises(httpx.TransportError):
            await http.get(f"{url}/health")


async def test_at_the_limit_a_lease_waits_a_while_and_is_told_to_come_again() -> None:
    sandbox = ScriptedSandbox()
    async with served(sandbox, max_sessions=2, wait_s=0.3) as url, client(url) as http:
        first, _ = await leased(http), await leased(http)
        answer = await http.post("/sessions", headers={"Idempotency-Key": "L"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert (await http.post(f"{first}/fork")).status_code == 503
        waiting = asyncio.create_task(http.post("/sessions", headers={"Idempotency-Key": "L"}))
        await asyncio.sleep(0.1)
        await http.delete(first)
        assert (await waiting).status_code == 201
        assert (await http.get("/stats")).json() | {"uptime_s": 0} == {
            "service": 1,
            "sessions": 2,
            "max_sessions": 2,
            "waiting": 0,
            "leased": 3,
            "calls": 1,
            "ended_idle": 0,
            "uptime_s": 0,
        }


async def test_a_lease_that_nobody_wants_any_more_can_be_forgotten_before_and_after_it_is_made() -> None:
    sandbox = ScriptedSandbox()
    async with served(sandbox, max_sessions=1, wait_s=30) as url, client(url) as http:
        await http.post("/sessions", headers={"Idempotency-Key": "one"})
        waiting = asyncio.create_task(http.post("/sessions", headers={"Idempotency-Key": "two"}))
        await asyncio.sleep(0.1)
        assert (await http.delete("/sessions", headers={"Idempotency-Key": "two"})).status_code == 204
        assert (await waiting).status_code == 502
        assert (await http.delete("/sessions", headers={"Idempotency-Key": "one"})).status_code == 204
        assert sandbox.open == 0
        await leased(http)


async def test_an_idle_session_is_ended_and_a_busy_one_is_not() -> None:
    async def answer(code: str) -> str:
        await asyncio.sleep(1.0)
        return "late\n"

    sandbox = ScriptedSandbox(answer)
    async with served(sandbox, idle_s=0.4) as url, client(url) as http:
        idle, busy = await leased(http), await leased(http)
        assert (await http.post(f"{busy}/run", json={"code": "1"})).json()["stdout"] == "late\n"
        assert (await http.get(f"{idle}/files")).status_code == 410
        assert (await http.get("/stats")).json()["ended_idle"] == 1


async def test_text_that_is_no_unicode_travels() -> None:
    async with served(ScriptedSandbox({"'\ud800'": SettingsError("no \ud800")})) as url, client(url) as http:
        answer = await http.post(f"{await leased(http)}/run", content=rb'{"code": "' + rb"'\ud800'" + rb'"}', headers=JSON)
        assert (answer.status_code, answer.json()) == (422, {"error": "no \ud800"})
