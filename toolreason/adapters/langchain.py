"""A LangChain tool that runs Python in the sandbox, for `create_agent`, `ToolNode` or a model's `bind_tools`."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from typing import Any, Literal, Self

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from pydantic import BaseModel, Field, PrivateAttr

from toolreason.adapters.background import Opened, background
from toolreason.execution.book import SessionBook
from toolreason.formats import feedback
from toolreason.types import CellResult

DESCRIPTION = (
    "Run Python and read what it prints. Variables, imports and files stay from call to call. numpy, sympy, networkx and "
    "matplotlib are there; a network is not. The value of a last expression is shown; print() everything else. Code that takes "
    "too long or too much memory is stopped, and nothing of it is kept."
)


class PythonInput(BaseModel):
    """What the model fills in."""

    code: str = Field(description="Python source, as in a notebook cell.")


class PythonTool(BaseTool):
    """Stateful Python by thread: calls with the same `thread_id` in their config share a session, leased at the first of them.

    Calls without one share a session, too: give each conversation its id. `sandbox` is any that nobody has entered yet (default:
    `DockerSandbox()`); it is opened at the first call, in a background event loop, so that `invoke` and `ainvoke` work from
    anywhere. At most `max_threads` sessions are kept; beyond, the one longest unused is ended. A session that is lost is rebuilt by
    running its cells again.

    The content is what a model should read, with figures as image blocks; the artifact is the `CellResult`. Code that fails is
    content; a sandbox that fails raises SandboxError. `close` (or leaving `with`) ends everything.
    """

    name: str = "python"
    description: str = DESCRIPTION
    args_schema: type[BaseModel] = PythonInput
    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    sandbox: Any = Field(default=None, exclude=True, repr=False)
    max_threads: int = 16
    _opened: Opened = PrivateAttr()
    _book: SessionBook | None = PrivateAttr(default=None)
    _threads: OrderedDict[str, int] = PrivateAttr(default_factory=OrderedDict)  # calls under way, the longest unused first

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._opened = Opened(self.sandbox)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all sessions and the sandbox. Safe to call twice."""
        background().run(self._opened.close())

    def release(self, thread_id: str) -> None:
        """End a thread's session. Its next call begins a fresh one."""
        background().run(self._release(thread_id))

    def _run(self, code: str, config: RunnableConfig, **_: Any) -> tuple[str | list[dict[str, Any]], CellResult]:
        result = background().run(self._call(code, thread_of(config)))
        return content(result), result

    async def _arun(self, code: str, config: RunnableConfig, **_: Any) -> tuple[str | list[dict[str, Any]], CellResult]:
        result = await background().arun(self._call(code, thread_of(config)))
        return content(result), result

    async def _call(self, code: str, thread: str) -> CellResult:
        sandbox = await self._opened.sandbox()
        book = self._book = self._book or SessionBook(sandbox)
        if thread not in self._threads:
            await self._make_room()
        self._threads[thread] = self._threads.get(thread, 0) + 1
        self._threads.move_to_end(thread)
        try:  # the ids of calls are not the model's: some give the same one again
            return await book.run(thread, uuid.uuid4().hex, code)
        finally:
            if thread in self._threads:
                self._threads[thread] -= 1

    async def _make_room(self) -> None:
        unused = [thread for thread, calls in self._threads.items() if not calls]
        for thread in unused[: max(0, len(self._threads) + 1 - self.max_threads)]:
            await self._release(thread)

    async def _release(self, thread: str) -> None:
        self._threads.pop(thread, None)
        if self._book is not None:
            await self._book.release(thread)


def thread_of(config: RunnableConfig | None) -> str:
    return str(((config or {}).get("configurable") or {}).get("thread_id") or "")


def content(result: CellResult) -> str | list[dict[str, Any]]:
    """What a model reads: text, with figures a list of content blocks."""
    text = feedback(result)
    if not result.figures:
        return text
    figures = [{"type": "image", "base64": figure, "mime_type": "image/png"} for figure in result.figures]
    return [{"type": "text", "text": text}, *figures]
