"""What the graph tests share: sessions that answer from a function, and a policy that records the ids it was given."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from tests.graphs.uct_runs import Run
from toolreason.execution import Limits, open_sandbox
from toolreason.execution.base import Sandbox
from toolreason.policies.base import Completion
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.tools.library import Library, open_library
from toolreason.types import CellResult, Outcome, Sampling, Segment


class FakeSessions:
    """Answers each cell from `answer(code)`; keeps what it was asked."""

    def __init__(self, answer: Callable[[str], CellResult | Exception]) -> None:
        self.answer = answer
        self.ran: list[tuple[str, str, str]] = []
        self.histories: list[list[tuple[str, str]]] = []
        self.released: list[str] = []

    async def run(
        self,
        key: str,
        call_id: str,
        code: str,
        *,
        history: Sequence[tuple[str, str]] = (),
        stateful: bool = True,
        timeout_s: float | None = None,
    ) -> CellResult:
        self.ran.append((key, call_id, code))
        self.histories.append(list(history))
        result = self.answer(code)
        if isinstance(result, Exception):
            raise result
        return result

    async def release(self, key: str) -> None:
        self.released.append(key)


class RecordingPolicy(ScriptedPolicy):
    """Keeps, for each call, the ids it was given and the ids it gave."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.exchanges: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    async def sample(self, segments: Sequence[Segment], sampling: Sampling, **options: Any) -> Completion:
        completion = await super().sample(segments, sampling, **options)
        given = tuple(token for segment in segments for token in segment.token_ids)
        self.exchanges.append((given, completion.token_ids))
        return completion


@pytest.fixture
def sessions() -> FakeSessions:
    """Every cell prints 42."""
    return FakeSessions(lambda code: CellResult(Outcome.OK, "42\n"))


@pytest.fixture
async def library() -> AsyncIterator[Library]:
    async with open_library("memory") as opened:
        yield opened


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox("local", Limits(cell_timeout_s=10)) as opened:
        yield opened


@pytest.fixture
def run(library: Library, sandbox: Sandbox) -> Run:
    return Run(library, sandbox)
