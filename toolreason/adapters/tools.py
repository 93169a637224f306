"""A library's tools as LangChain tools: for `create_agent`, `ToolNode` or a model's `bind_tools`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Literal, Self

from langchain_core.runnables import ensure_config
from langchain_core.tools import BaseTool, BaseToolkit, ToolException
from pydantic import PrivateAttr

from toolreason.adapters.background import Opened, background
from toolreason.adapters.langchain import content, thread_of
from toolreason.adapters.toolcalls import Caller
from toolreason.errors import InputError
from toolreason.render import visible
from toolreason.tools.library import open_library
from toolreason.tools.package import Status, ToolPackage
from toolreason.tools.stores import DEFAULT
from toolreason.types import CellResult


class LibraryToolkit(BaseToolkit):
    """The admitted tools of a library. `get_tools()` gives all, `search(need)` those that fit.

    `library` and `name` are those of `open_library`; `sandbox` is any that nobody has entered yet (default: `DockerSandbox()`).
    Both are opened at the first use, in a background event loop, so that tools work from anywhere. `close` (or leaving `with`)
    ends everything.
    """

    library: Any = DEFAULT
    name: str = "default"
    sandbox: Any = None
    _opened: Opened = PrivateAttr()
    _caller: Caller | None = PrivateAttr(default=None)
    _opening: asyncio.Lock = PrivateAttr(default_factory=asyncio.Lock)
    _stack: AsyncExitStack = PrivateAttr(default_factory=AsyncExitStack)

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._opened = Opened(self.sandbox)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get_tools(self) -> list[BaseTool]:
        """All that are offered now, by name."""
        return background().run(self._all())

    async def aget_tools(self) -> list[BaseTool]:
        return await background().arun(self._all())

    def search(self, need: str, k: int = 5) -> list[BaseTool]:
        """The `k` tools that fit a need best."""
        return background().run(self._search(need, k))

    async def asearch(self, need: str, k: int = 5) -> list[BaseTool]:
        return await background().arun(self._search(need, k))

    def close(self) -> None:
        """End all sessions, the sandbox and the library. Safe to call twice."""
        background().run(self._close())

    async def caller(self) -> Caller:
        """For the tools; runs in the background."""
        sandbox = await self._opened.sandbox()
        async with self._opening:
            if self._caller is None:
                library = await self._stack.enter_async_context(open_library(self.library, name=self.name))
                self._caller = Caller(library, sandbox)
            return self._caller

    async def _all(self) -> list[BaseTool]:
        return self._tools(await (await self.caller()).library.list(status=Status.ADMITTED))

    async def _search(self, need: str, k: int) -> list[BaseTool]:
        return self._tools([hit.package for hit in await (await self.caller()).library.search(need, k)])

    def _tools(self, packages: Sequence[ToolPackage]) -> list[BaseTool]:
        return [LibraryTool.of(package, self) for package in packages]

    async def _close(self) -> None:
        if self._caller is not None:
            await self._caller.aclose()
            self._caller = None
        await self._stack.aclose()
        await self._opened.close()
        await asyncio.sleep(0)  # the store's own task, which it cancels when it is forgotten, ends


class LibraryTool(BaseTool):
    """One version of a tool. Made by a `LibraryToolkit`, and alive as long as that is.

    The content is what a model should read, the artifact the `CellResult`. Every call is recorded in the library, under the
    `problem_id` of the config's `configurable`, or its `thread_id`. A tool that fails is content; so is that it was taken back
    since (set `handle_tool_error=False` to have a ToolException). A sandbox that fails raises SandboxError. `metadata` says where
    the tool comes from.
    """

    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    handle_tool_error: Any = True
    version: int = 1
    _toolkit: LibraryToolkit = PrivateAttr()

    @classmethod
    def of(cls, package: ToolPackage, toolkit: LibraryToolkit) -> LibraryTool:
        made = cls(
            name=package.name,
            description=visible(package.description),
            args_schema=package.parameters,
            version=package.version,
            metadata=provenance(package),
        )
        made._toolkit = toolkit
        return made

    def _run(self, /, **arguments: Any) -> tuple[str | list[dict[str, Any]], CellResult]:
        return _shown(background().run(self._call(arguments, _problem())))

    async def _arun(self, /, **arguments: Any) -> tuple[str | list[dict[str, Any]], CellResult]:
        return _shown(await background().arun(self._call(arguments, _problem())))

    async def _call(self, arguments: dict[str, Any], problem_id: str) -> CellResult:
        caller = await self._toolkit.caller()
        try:
            return await caller.call(self.name, arguments, version=self.version, problem_id=problem_id)
        except InputError as error:
            raise ToolException(str(error)) from error


def provenance(package: ToolPackage) -> dict[str, Any]:
    """Where a tool comes from."""
    ticket = package.ticket
    return {
        "version": package.identity,
        "hash": package.hash,
        "author": package.author,
        "created": package.created,
        "problem_id": ticket.problem_id if ticket else "",
    }


def _problem() -> str:
    config = ensure_config()
    return str((config.get("configurable") or {}).get("problem_id") or thread_of(config))


def _shown(result: CellResult) -> tuple[str | list[dict[str, Any]], CellResult]:
    return content(result), result
