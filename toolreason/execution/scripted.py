"""A sandbox that runs nothing, for tests: the answers are given."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Self

from toolreason.errors import SandboxError, SessionLost
from toolreason.execution.base import Session
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

    async def session(self) -> Session:
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
    """One lease of a `ScriptedSandbox`."""

    def __init__(self, sandbox: ScriptedSandbox, number: int) -> None:
        self._sandbox, self._number = sandbox, number
        self._open = True

    async def run(self, code: str, *, timeout_s: float | None = None, keep: bool = True) -> CellResult:
        if not self._open or self._sandbox.closed:
            raise SessionLost("the session has ended: it was closed")
        self._sandbox.calls.append((self._number, code))
        try:
            return await self._sandbox.answer(code)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        self._sandbox.open -= self._open
        self._open = False
