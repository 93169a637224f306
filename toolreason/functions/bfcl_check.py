"""BFCL's own checker, on a rollout of one of its multi-turn tasks. It runs in the sandbox, with the few modules that it needs.

It evaluates each call as source: what the model wrote gets there as names that are identifiers and values that are literals.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from typing import Any

from toolreason.errors import InputError, VerifierError
from toolreason.execution.base import Sandbox
from toolreason.functions import cells, sources
from toolreason.types import Cell, FunctionTask, Problem, StopReason, Trajectory


async def check(problem: Problem, trajectory: Trajectory, sandbox: Sandbox, timeout_s: float = 60.0) -> tuple[bool, str]:
    """What BFCL's own checker says: whether the rollout is valid, and else its reason.

    It makes all calls anew, in a session of its own. A rollout that did not come to its last turn is not valid, there as here
    ("force-terminated"). Calls that were refused (no JSON, an unknown function) are left out, as it leaves out what it cannot
    decode. Raises InfrastructureError where the sandbox or the checker itself fails.
    """
    task = problem.reference.task
    if task is None or not task.environment.package.startswith("bfcl:"):
        raise InputError(f"problem {problem.id!r} is none of BFCL's multi-turn tasks")
    if trajectory.stop is not StopReason.ANSWERED:
        return False, f"force-terminated: {trajectory.stop}"
    made = [[_made(cell) for cell in turn] for turn in cells.by_turn(trajectory.segments, len(task.turns))]
    wanted = [[[call.name, json.loads(call.arguments)] for call in turn.calls] for turn in task.turns]
    given = [_entry(problem, task), [[step for step in turn if step] for turn in made], wanted]
    files = sources.of(task.environment).files
    return await _ask(sandbox, _check_code(files, given), timeout_s)


def _made(cell: Cell) -> list[list[Any]]:
    """The calls of one step that were made: name and arguments."""
    text, _ = cells.written(cell)
    if not cell.result.outcome.committed or cells.MALFORMED in cells.statuses(cell):
        return []
    calls = cells.read(text)
    return [
        [name, arguments]
        for (name, arguments), status in zip(calls, cells.statuses(cell), strict=False)
        if status in (cells.OK, cells.RAISED)
    ]


async def _ask(sandbox: Sandbox, code: str, timeout_s: float) -> tuple[bool, str]:
    session = await sandbox.session()
    try:
        result = await session.run(code, timeout_s=timeout_s)
    finally:
        await session.close()
    try:
        valid, reason = json.loads(ast.literal_eval(result.value or ""))
        return bool(valid), str(reason)
    except (ValueError, SyntaxError, TypeError, RecursionError) as error:
        raise VerifierError(f"BFCL's checker failed: {result.error or result.outcome}") from error


def _check_code(files: dict[str, str], given: Sequence[Any]) -> str:
    write = (
        "for path, text in files.items():\n"
        "    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)\n"
        "    with open(path, 'w', encoding='utf-8') as file:\n"
        "        file.write(text)\n"
    )
    ask = f"importlib.invalidate_caches()\nimportlib.import_module('bfcl_environment').check(*{list(given)!r})"
    return f"import importlib, os\nfiles = {files!r}\n{write}{ask}"


def _entry(problem: Problem, task: FunctionTask) -> dict[str, Any]:
    """What the checker reads of a task."""
    config = json.loads(task.environment.config)
    return {
        "id": problem.id,
        "involved_classes": list(task.environment.classes),
        "initial_config": {name: given["scenario"] for name, given in config.items()},
    }
