"""The tools of the MCP server, over one session."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ImageContent, TextContent
from pydantic import Field

from toolreason.errors import InfrastructureError, InputError
from toolreason.execution.base import Sandbox, Session
from toolreason.formats import feedback

MOST_CHARS = 200_000  # of a file that is read; more would fill the model's context
IMAGES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}
FRESH = "[a fresh session: variables and files from before are gone]"
INSTRUCTIONS = (
    "A Python session without a network, in a work folder of its own. Variables, imports and files stay from call to call. "
    "Code that does not end well (too slow, too much memory, a crash) leaves no trace; undo takes back what ended before."
)
Content = list[Any]  # of TextContent and ImageContent
Path = Annotated[str, Field(description="Relative to the work folder, without `..`.")]


def server(sandbox: Sandbox) -> MCPServer[Any]:
    """The server over any sandbox, which stays the caller's. `run_stdio_async` serves one client."""
    made: MCPServer[Any] = MCPServer("toolreason", instructions=INSTRUCTIONS, log_level="WARNING")
    tools = Tools(sandbox)
    for tool in (tools.run_python, tools.write_file, tools.read_file, tools.list_files, tools.undo, tools.reset):
        made.add_tool(tool, structured_output=False)
    return made


class Tools:
    """What one client can call. The docstrings of the tools are what its model reads."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._session: Session | None = None
        self._lost = False
        self._leasing = asyncio.Lock()

    async def run_python(self, code: Annotated[str, Field(description="Python source. print() what you want to see.")]) -> Content:
        """Run Python. Returns what it printed, the value of a last expression, errors, and open matplotlib figures as images."""
        async with self._turn() as session:
            result = await session.run(code)
        figures = [ImageContent(type="image", data=figure, mime_type="image/png") for figure in result.figures]
        return [*self._text(feedback(result)), *figures]

    async def write_file(self, path: Path, content: str, encoding: Literal["text", "base64"] = "text") -> Content:
        """Write a file into the work folder. Folders on the way are made."""
        try:
            data = content.encode() if encoding == "text" else base64.b64decode(content, validate=True)
        except ValueError as error:
            raise ToolError(f"the content is no {encoding}: {error}") from error
        async with self._turn() as session:
            await session.put(path, data)
        return self._text(f"{path}: {len(data)} bytes")

    async def read_file(self, path: Path) -> Content:
        """Read a file of the work folder: text, an image, or else its bytes in base64."""
        async with self._turn() as session:
            data = await session.get(path)
        encoded = base64.b64encode(data).decode()
        for magic, kind in IMAGES.items():
            if data.startswith(magic):
                return [*self._text(), ImageContent(type="image", data=encoded, mime_type=kind)]
        try:
            read = data.decode()
        except UnicodeDecodeError:
            read = encoded
        if len(read) > MOST_CHARS:
            raise ToolError(f"{path} has {len(data)} bytes, too many to show: read a part of it with run_python")
        return [TextContent(type="text", text=read)]

    async def list_files(self) -> Content:
        """List the files of the work folder: size in bytes, path."""
        async with self._turn() as session:
            found = await session.files()
        return self._text(*(f"{file.size:>10} {file.path}" for file in found) if found else ["[no files]"])

    async def undo(self, cells: Annotated[int, Field(ge=1, description="How many.")] = 1) -> Content:
        """Take back the last runs of run_python that ended: variables and files are as before them."""
        async with self._turn() as session:
            await session.undo(cells)
        return self._text(f"took back {cells}")

    async def reset(self) -> Content:
        """End the session: the next call begins a fresh one, without variables and files."""
        session, self._session, self._lost = self._session, None, False
        if session is not None:
            await session.close()
        return self._text("the next call begins a fresh session")

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[Session]:
        """The session, for one call. What was refused is told to the model; what failed or was cancelled ends the session, too."""
        try:
            async with self._leasing:
                session = self._session = self._session or await self._sandbox.session()
        except InfrastructureError as error:
            raise ToolError(f"no session could be had: {error}") from error
        try:
            yield session
        except InputError as error:
            raise ToolError(str(error)) from error
        except BaseException as error:
            if self._session is session:
                self._session, self._lost = None, True
            await session.close()
            if isinstance(error, InfrastructureError):
                raise ToolError(f"the session was lost: {error}") from error
            raise

    def _text(self, *parts: str) -> Content:
        """With the word, once, that the session is another one than before."""
        lost, self._lost = self._lost, False
        lines = [FRESH, *parts] if lost else list(parts)
        return [TextContent(type="text", text="\n".join(lines))] if lines else []
