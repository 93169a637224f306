"""The cells of an environment: the one that makes it, those that call, the one that plays calls again; and what they say.

A call's cell holds the model's words as one literal. What comes back is data, whatever it is.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Any

from toolreason.errors import ProblemError, SandboxError
from toolreason.execution.base import Sessions
from toolreason.functions import environment_cell, sources
from toolreason.types import Cell, CellResult, FunctionCall, FunctionTask, Segment, Source

OK, RAISED, MALFORMED, UNKNOWN, WRONG = (
    environment_cell.OK,
    environment_cell.RAISED,
    environment_cell.MALFORMED,
    environment_cell.UNKNOWN,
    environment_cell.WRONG,
)
STOPPED = "stopped"
FAULTS = (MALFORMED, UNKNOWN, WRONG)
STATUSES = (OK, RAISED, *FAULTS)
STATES = environment_cell.STATES

_CALL = re.compile(r"__import__\('environment'\)\.call\((?P<text>.*), (?P<turn>\d+)\)", re.DOTALL)


def call_code(text: str, turn: int) -> str:
    """The cell that makes the calls which the model wrote. `turn` counts the user's turns from 0."""
    return f"__import__('environment').call({text!r}, {turn})"


def written(cell: Cell) -> tuple[str, int]:
    """What the model wrote, and in which turn: the inverse of `call_code`. Raises ProblemError for another cell."""
    found = _CALL.fullmatch(cell.code)
    try:
        text = ast.literal_eval(found["text"]) if found else None
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        text = None
    if found is None or not isinstance(text, str):
        raise ProblemError(f"cell {cell.call_id} is no function call: this trajectory is not one of the strategy `functions`")
    return text, int(found["turn"])


def read(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The calls in what a model wrote, as the environment reads them. Raises ValueError."""
    return environment_cell.read(text)


def statuses(cell: Cell) -> tuple[str, ...]:
    """How each call of this cell went: one of `STATUSES`; a cell that was stopped is one call that was `stopped`."""
    if not cell.result.ok:
        return (STOPPED,)
    try:
        said = json.loads(ast.literal_eval(cell.result.value or ""))
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return (STOPPED,)
    known = isinstance(said, list) and said and all(one in STATUSES for one in said)
    return tuple(said) if known else (STOPPED,)


def expected(calls: Sequence[FunctionCall]) -> str:
    """These calls as a model would write them."""
    each = (f'{{"name": {json.dumps(one.name)}, "arguments": {one.arguments}}}' for one in calls)
    return f"[{', '.join(each)}]"


def documented(task: FunctionTask) -> dict[str, int]:
    """The functions by name, with the turn from which each may be called. Raises ProblemError for what is no documentation."""
    since: dict[str, int] = {}
    for number, turn in enumerate(task.turns):
        for text in turn.functions:
            try:
                name = json.loads(text)["name"]
            except (ValueError, KeyError, TypeError, RecursionError):
                raise ProblemError(f"the documentation of a function is no JSON object with a `name`: {text[:80]}") from None
            since.setdefault(str(name), number)
    return since


@lru_cache(maxsize=64)  # rollouts of one task share the text, which may be long
def install_code(task: FunctionTask, *, always: bool = False) -> str:
    """The cell that makes the task's environment. The same task gives the same code. `always`: what a later turn tells of may be
    called from the beginning. Raises ProblemError for a task that says no environment.
    """
    environment = task.environment
    source = sources.of(environment)
    try:
        config = json.loads(environment.config)
    except (ValueError, RecursionError) as error:
        raise ProblemError(f"the environment's `config` is no JSON: {error}") from None
    if not isinstance(config, dict) or not environment.classes:
        raise ProblemError("an environment has `classes`, and a `config` that is an object by their names")
    functions = {name: 0 if always else turn for name, turn in documented(task).items()}
    text = _source("environment_cell.py")
    given = (text, source.files, source.main, list(environment.classes), config, functions)
    return f"(lambda names: (exec({text!r}, names), names['install'](*{given!r}), None))({{}})[2]"


def play_code(turns: Sequence[Sequence[str]]) -> str:
    """The cell that makes all these calls, by turn, in an environment that has just been made, and writes `STATES`."""
    return f"__import__('environment').play({[list(texts) for texts in turns]!r})"


def by_turn(segments: Sequence[Segment], turns: int) -> list[list[Cell]]:
    """The cells of each of the user's turns."""
    found: list[list[Cell]] = [[] for _ in range(turns)]
    turn = -1
    for segment in segments:
        turn += segment.source is Source.PROMPT
        if segment.cell is not None:
            found[min(max(turn, 0), turns - 1)].append(segment.cell)
    return found


@dataclass(frozen=True)
class InEnvironment:
    """Sessions in each of which this cell has run before all others: where a session is built anew, it runs again."""

    sessions: Sessions
    code: str

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
        first = (f"{key}:environment", self.code)
        made = await self.sessions.run(key, *first)
        if not made.ok:
            raise SandboxError(f"the environment could not be made: {made.error or made.outcome}")
        return await self.sessions.run(key, call_id, code, history=[first, *history], stateful=stateful, timeout_s=timeout_s)

    async def release(self, key: str) -> None:
        await self.sessions.release(key)


@cache
def _source(file: str) -> str:
    return (resources.files("toolreason.functions") / file).read_text(encoding="utf-8")


def of(name: str, **arguments: Any) -> FunctionCall:
    """An expected call."""
    return FunctionCall(name, json.dumps(arguments))
