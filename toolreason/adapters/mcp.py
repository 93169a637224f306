"""An MCP server over stdio: the model of any MCP client runs Python in the sandbox. `toolreason sandbox mcp` starts it.

A connection has one session, leased at its first call and ended with it. A session that is lost, or whose call was cancelled, is
replaced by a fresh one at the next call, and the answer says so.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
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


def serve_tools(
    library: str,
    name: str = "default",
    *,
    category: str | None = None,
    sandbox: Any = None,
) -> None:
    """As `serve`, with the admitted tools of a library in place of Python itself. `library` and `name` as in `open_library`;
    `sandbox` is any that nobody has entered yet (default: docker).
    """
    try:
        from toolreason.adapters import tools_mcp  # noqa: F401
    except ImportError as error:
        raise SetupError("the MCP server needs mcp 2: pip install 'toolreason[mcp]'") from error
    asyncio.run(_serve_tools(library, name, category, sandbox or open_sandbox("docker")))


async def _serve(sandbox: Any) -> None:
    from toolreason.adapters.mcp_tools import server

    asked = _asked()
    async with sandbox:
        ended = await _until(asked, server(sandbox).run_stdio_async())
    if not ended:
        os._exit(0)  # all is closed, but the thread that waits for the standard input cannot be woken


async def _serve_tools(library: str, name: str, category: str | None, sandbox: Any) -> None:
    from toolreason.adapters.tools_mcp import serve_stdio, server
    from toolreason.tools.library import open_library

    asked = _asked()
    async with open_library(library, name=name) as opened, sandbox:
        ended = await _until(asked, serve_stdio(server(opened, sandbox, category=category)))
    if not ended:
        os._exit(0)


def _asked() -> asyncio.Event:
    """Set when a signal asks for an end."""
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    return asked


async def _until(asked: asyncio.Event, serve: Coroutine[Any, Any, None]) -> bool:
    """Serve until the client goes away (True) or `asked` is set (False)."""
    serving, ending = asyncio.ensure_future(serve), asyncio.ensure_future(asked.wait())
    await asyncio.wait((serving, ending), return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    if serving.done():
        await serving
    return serving.done()
