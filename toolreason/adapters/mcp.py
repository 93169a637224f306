"""An MCP server over stdio: the model of any MCP client runs Python in the sandbox. `toolreason sandbox mcp` starts it.

A connection has one session, leased at its first call and ended with it. A session that is lost, or whose call was cancelled, is
replaced by a fresh one at the next call, and the answer says so.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from toolreason.errors import SetupError
from toolreason.execution import Limits, open_sandbox


def serve(sandbox: str = "docker", limits: Limits | None = None, **options: Any) -> None:
    """Serve one client over this process's standard input and output, until it goes away, SIGTERM or Ctrl-C.

    Options are those of `open_sandbox`. Raises SetupError when the sandbox, or mcp, is missing. Call it in the main thread.
    """
    try:
        from toolreason.adapters import mcp_tools  # noqa: F401
    except ImportError as error:
        raise SetupError("the MCP server needs mcp 2: pip install 'toolreason[mcp]'") from error
    if sandbox == "docker":
        options = {"pool": 1, "max_sessions": 2} | options
    asyncio.run(_serve(open_sandbox(sandbox, limits, **options)))


async def _serve(sandbox: Any) -> None:
    from toolreason.adapters.mcp_tools import server

    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    async with sandbox:
        serving = asyncio.ensure_future(server(sandbox).run_stdio_async())
        ending = asyncio.ensure_future(asked.wait())
        await asyncio.wait((serving, ending), return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if serving.done():
            return await serving
    os._exit(0)  # all is closed, but the thread that waits for the standard input cannot be woken
