"""The MCP server under a real MCP client, in a process of its own, over real containers."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from toolreason.adapters.mcp_tools import FRESH, server
from toolreason.errors import SessionLost
from toolreason.execution import ScriptedSandbox, reaper
from toolreason.execution.engine import Engine

COMMAND = """
from toolreason.adapters.mcp import serve
from toolreason.execution import Limits
serve(density="shared", limits=Limits(cell_timeout_s=5, memory_mb=256, disk_mb=8))
"""


@asynccontextmanager
async def connected() -> AsyncIterator[Client]:
    parameters = StdioServerParameters(command=sys.executable, args=["-c", COMMAND], env=dict(os.environ))
    async with Client(stdio_client(parameters)) as client:
        yield client


async def called(client: Client, name: str, /, **arguments: Any) -> tuple[bool, list[Any]]:
    """Whether it failed, and the content: texts as they are, images as (type, first bytes)."""
    result: Any = await client.call_tool(name, arguments)
    return bool(result.is_error), [
        block.text if block.type == "text" else (block.mime_type, base64.b64decode(block.data)[:4]) for block in result.content
    ]


@pytest.mark.docker
async def test_a_client_uses_all_tools_in_one_session() -> None:
    async with connected() as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"run_python", "write_file", "read_file", "list_files", "undo", "reset"}
        assert all(tool.description for tool in tools.values())
        assert await called(client, "list_files") == (False, ["[no files]"])
        assert await called(client, "run_python", code="x = 6\nprint('hello')\nx * 7") == (False, ["hello\n42"])
        assert await called(client, "write_file", path="data/in.txt", content="äöü\n") == (False, ["data/in.txt: 7 bytes"])
        assert await called(client, "run_python", code="open('data/in.txt').read()") == (False, ["'äöü\\n'"])
        assert await called(client, "write_file", path="b", content="AP8=", encoding="base64") == (False, ["b: 2 bytes"])
        assert await called(client, "read_file", path="b") == (False, ["AP8="])
        assert await called(client, "read_file", path="data/in.txt") == (False, ["äöü\n"])
        assert await called(client, "list_files") == (False, ["         2 b\n         7 data/in.txt"])
        await called(client, "run_python", code="x = 0")
        assert await called(client, "undo") == (False, ["took back 1"])
        assert await called(client, "run_python", code="x") == (False, ["6"])
        await called(client, "reset")
        failed, (said,) = await called(client, "run_python", code="x")
        assert (failed, "NameError" in said) == (False, True)
        assert await called(client, "list_files") == (False, ["[no files]"])


@pytest.mark.docker
async def test_figures_are_images_and_files_that_are_images_too() -> None:
    async with connected() as client:
        code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.savefig('f.png')\nprint('drawn')"
        assert await called(client, "run_python", code=code) == (False, ["drawn", ("image/png", b"\x89PNG")])
        assert await called(client, "read_file", path="f.png") == (False, [("image/png", b"\x89PNG")])


@pytest.mark.docker
async def test_what_is_refused_is_said_and_the_session_goes_on() -> None:
    async with connected() as client:
        await called(client, "run_python", code="kept = 1\nopen('big', 'w').write('x' * 300_000)")
        for name, arguments in [
            ("read_file", {"path": "../etc/passwd"}),
            ("read_file", {"path": "/etc/passwd"}),
            ("read_file", {"path": "nothing"}),
            ("read_file", {"path": "big"}),
            ("write_file", {"path": "../x", "content": ""}),
            ("write_file", {"path": "x", "content": "no base64!", "encoding": "base64"}),
            ("undo", {"cells": 50}),
            ("undo", {"cells": 0}),
            ("run_python", {}),
        ]:
            failed, said = await called(client, name, **arguments)
            assert failed, (name, arguments, said)
        failed, (said,) = await called(client, "run_python", code="kept = 2\nwhile True: pass")
        assert (failed, "took too long" in said) == (False, True)
        assert await called(client, "run_python", code="kept") == (False, ["1"])


@pytest.mark.docker
@pytest.mark.parametrize("number", [None, signal.SIGTERM, signal.SIGINT])
def test_the_end_of_the_client_and_a_polite_kill_leave_no_container(number: int | None) -> None:
    engine = Engine.find().client()
    child = subprocess.Popen([sys.executable, "-c", COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdin
    mark = f"{reaper.LABEL}.pid={child.pid}"
    try:
        for _ in range(300):
            if engine.api.containers(filters={"label": mark}):
                break
            assert child.poll() is None
            time.sleep(0.1)
        else:
            pytest.fail("no container")
        if number is None:
            child.stdin.close()
        else:
            child.send_signal(number)
        assert child.wait(30) == 0
        assert engine.api.containers(all=True, filters={"label": mark}) == []
    finally:
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout, child.stderr):
            assert stream
            stream.close()
        engine.close()


async def test_a_session_that_is_lost_is_replaced_and_the_model_is_told() -> None:
    answers: dict[str, Any] = {"die": SessionLost("its container is gone"), "1": "one\n"}
    sandbox = ScriptedSandbox(answers)
    async with Client(server(sandbox)) as client:
        assert sandbox.sessions == 0
        failed, (said,) = await called(client, "run_python", code="die")
        assert (failed, "its container is gone" in said) == (True, True)
        assert await called(client, "run_python", code="1") == (False, [f"{FRESH}\none"])
        assert await called(client, "run_python", code="1") == (False, ["one"])
        assert sandbox.sessions == 2


async def test_calls_that_come_at_once_share_one_session() -> None:
    sandbox = ScriptedSandbox(lambda code: f"{code}\n")
    async with Client(server(sandbox)) as client:
        answers = await asyncio.gather(*(called(client, "run_python", code=str(n)) for n in range(8)))
    assert answers == [(False, [str(n)]) for n in range(8)]
    assert sandbox.sessions == 1
