"""A sandbox that runs nothing, for tests: the answers are given."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Self

from toolreason.errors import InputError, SandboxError, SessionLost
from toolreason.execution.base import FileInfo
from toolreason.types import CellResult, Outcome

Answer = str | CellResult | Exception
Answers = Mapping[str, Answer] | Callable[[str], Answer | Awaitable[Answer]]


class ScriptedSandbox:
    """`answers` gives, for a cell's code (its mapping is searched with surrounding blanks stripped), a `CellResult`, a text that
    becomes the standard output, or an exception to raise. Code without an answer raises NameError in its cell.

    `calls` are the cells that ran: (number of the session, code), in order. `open` counts the sessions that are leased.
    """

    def __init__(self, answers: Answers = {}) -> None:  # noqa: B006 (never written to)
        self._answers = answers
        self.calls: list[tuple[int, str]] = []
        self.sessions = 0
        self.open = 0
        self.closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def session(self) -> ScriptedSession:
        if self.closed:
            raise SandboxError("the sandbox is closed")
        self.sessions += 1
        self.open += 1
        return ScriptedSession(self, self.sessions)

    async def aclose(self) -> None:
        self.closed = True

    async def answer(self, code: str) -> CellResult:
        if callable(self._answers):
            given = self._answers(code)
            answer = await given if inspect.isawaitable(given) else given
        else:
            answer = self._answers.get(code.strip(), CellResult(Outcome.ERROR, error=f"NameError: no answer for {code!r}"))
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, CellResult) else CellResult(Outcome.OK, stdout=answer)


class ScriptedSession:
    """One lease of a `ScriptedSandbox`. Files are real, variables are not: `undo` takes back files only."""

    def __init__(self, sandbox: ScriptedSandbox, number: int, past: Sequence[Mapping[str, bytes]] = ({},)) -> None:
        self._sandbox, self._number = sandbox, number
        self._past = [dict(files) for files in past]  # the work folder before each committed cell, and now
        self._open = True

    async def run(self, code: str, *, timeout_s: float | None = None, keep: bool = True) -> CellResult:
        self._check()
        self._sandbox.calls.append((self._number, code))
        try:
            result = await self._sandbox.answer(code)
        except BaseException:
            await self.close()
            raise
        if keep and result.outcome.committed:
            self._past.append(dict(self._past[-1]))
        return result

    async def fork(self) -> ScriptedSession:
        self._check()
        other = await self._sandbox.session()
        return ScriptedSession(self._sandbox, other._number, self._past)

    async def undo(self, cells: int = 1) -> None:
        self._check()
        if not 0 < cells < len(self._past):
            raise InputError(f"{cells} cells cannot be taken back: {len(self._past) - 1} can")
        del self._past[-cells:]

    async def put(self, path: str, data: bytes) -> None:
        self._check()
        self._past[-1][path] = data

    async def get(self, path: str) -> bytes:
        self._check()
        if path not in self._past[-1]:
            raise InputError(f"there is no file {path!r}")
        return self._past[-1][path]

    async def files(self) -> list[FileInfo]:
        self._check()
        return [FileInfo(path, len(data)) for path, data in sorted(self._past[-1].items())]

    async def close(self) -> None:
        self._sandbox.open -= self._open
        self._open = False

    def _check(self) -> None:
        if not self._open or self._sandbox.closed:
            raise SessionLost("the session has ended: it was closed")
