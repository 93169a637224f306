"""The sandbox as a backend of deepagents: shell commands and files in one session, under deepagents' own protocol."""

from __future__ import annotations

import asyncio
import json
import posixpath
import uuid
from base64 import b64decode
from functools import cache
from pathlib import Path
from typing import Any, Self

from deepagents.backends.protocol import ExecuteResponse, FileDownloadResponse, FileUploadResponse
from deepagents.backends.sandbox import BaseSandbox

from toolreason.adapters.background import Opened, background
from toolreason.adapters.shell_cell import LETTER
from toolreason.errors import InputError, SandboxError
from toolreason.execution.base import Sandbox, Session
from toolreason.formats import feedback
from toolreason.types import CellResult, Outcome

MOST_OUTPUT = 4 << 20  # bytes of a command's output, head and tail
LONGEST_S = 3600.0
SPARE_S = 5.0  # for the cell around a command


class SandboxBackend(BaseSandbox):
    """A backend for `create_deep_agent(backend=...)`. It has one session, leased at the first call.

    `sandbox` is any that nobody has entered yet (default: `DockerSandbox()`). A command runs for at most `timeout_s` seconds unless
    a call says otherwise. Processes that it leaves behind end with it; variables of a shell do not outlive their command. Paths are
    absolute; `folder()` is the work folder, /tmp is scratch. A session that is lost stays lost: every call raises SandboxError.
    `close` (or leaving `with`) ends everything.
    """

    def __init__(self, sandbox: Sandbox | None = None, *, timeout_s: float = 120.0) -> None:
        self._opened, self._timeout_s = Opened(sandbox), timeout_s
        self._id = uuid.uuid4().hex
        self._session: Session | None = None
        self._folder = "/"
        self._lock = asyncio.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def id(self) -> str:
        return self._id

    def close(self) -> None:
        """End the session and the sandbox. Safe to call twice."""
        background().run(self._opened.close())

    def folder(self) -> str:
        """The absolute path of the work folder, the current directory of commands."""
        return background().run(self._where())

    def execute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:
        """Run a shell command. Exit code 124: it took longer than `timeout` seconds (0: an hour); 137: another limit struck."""
        return background().run(self._execute(command, timeout))

    async def aexecute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:
        return await background().arun(self._execute(command, timeout))

    def upload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        return background().run(self._upload(files))

    async def aupload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        return await background().arun(self._upload(files))

    def download_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        return background().run(self._download(paths))

    async def adownload_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        return await background().arun(self._download(paths))

    async def _execute(self, command: str, timeout: int | None) -> ExecuteResponse:
        seconds = self._timeout_s if timeout is None else float(timeout) or LONGEST_S
        async with self._lock:
            session = await self._leased()
            result = await session.run(cell("execute", command, seconds, MOST_OUTPUT), timeout_s=seconds + SPARE_S)
            said = _said(result)
            if said is None:
                return ExecuteResponse(feedback(result), 1 if result.outcome.committed else 137)
            inline = said.get("output")
            try:
                output = b64decode(inline, validate=True) if isinstance(inline, str) else await session.get(LETTER)
            except (ValueError, InputError) as error:
                raise SandboxError(f"a command's output is not where it should be: {error}") from error
        code, dropped = said.get("code"), said.get("dropped")
        return ExecuteResponse(output.decode("utf-8", "replace"), code if type(code) is int else None, bool(dropped))

    async def _upload(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        async with self._lock:
            session = await self._leased()
            return [FileUploadResponse(path, await self._put(session, path, data)) for path, data in files]

    async def _download(self, paths: list[str]) -> list[FileDownloadResponse]:
        async with self._lock:
            session = await self._leased()
            answers = [await self._get(session, path) for path in paths]
        return [FileDownloadResponse(path, *answer) for path, answer in zip(paths, answers, strict=True)]

    async def _put(self, session: Session, path: str, data: bytes) -> Any:
        """None, or the error."""
        if not posixpath.isabs(path) or "\0" in path:
            return "invalid_path"
        try:
            inside = self._inside(path)
            await session.put(inside or LETTER, data)
            return None if inside else _error(await session.run(cell("take_in", path)))
        except InputError as error:
            return str(error)

    async def _get(self, session: Session, path: str) -> tuple[bytes | None, Any]:
        """The content, or the error."""
        if not posixpath.isabs(path) or "\0" in path:
            return None, "invalid_path"
        try:
            if inside := self._inside(path):
                return await session.get(inside), None
        except InputError:
            pass  # the cell says why, or finds a way
        if (error := _error(await session.run(cell("give_out", path)))) is not None:
            return None, error
        try:
            return await session.get(LETTER), None
        except InputError as refused:
            return None, str(refused)

    def _inside(self, path: str) -> str | None:
        """The path from the work folder, if it is in there."""
        plain = posixpath.normpath(path)
        folder = self._folder.rstrip("/") + "/"
        return plain.removeprefix(folder) if plain.startswith(folder) and ".." not in path.split("/") else None

    async def _where(self) -> str:
        async with self._lock:
            await self._leased()
            return self._folder

    async def _leased(self) -> Session:
        if self._session is None:
            session = await (await self._opened.sandbox()).session()
            try:
                folder = (await session.run("import os\nprint(os.getcwd())")).stdout.rstrip("\n")
                if not posixpath.isabs(folder):
                    raise SandboxError(f"the session's work folder is no absolute path: {folder[:80]!r}")
            except BaseException:
                await session.close()
                raise
            self._session, self._folder = session, folder
        return self._session


@cache
def _source() -> str:
    return (Path(__file__).parent / "shell_cell.py").read_text(encoding="utf-8")


def cell(function: str, *arguments: Any) -> str:
    """The code of a cell that calls one of `shell_cell`'s functions. It leaves no names behind."""
    return f"(lambda names: (exec({_source()!r}, names), names[{function!r}](*{arguments!r})))({{}})[1]"


def _said(result: CellResult) -> dict[str, Any] | None:
    """What the cell printed, if it ended well. It is made next to untrusted code: anything may stand there."""
    if result.outcome is not Outcome.OK:
        return None
    try:
        said = json.loads(result.stdout)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _error(result: CellResult) -> str | None:
    said = _said(result)
    if said is None:
        return feedback(result)[-300:]
    return None if said.get("error") is None else str(said["error"])[:300]
