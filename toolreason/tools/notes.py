"""What a session's toolbox noted of its calls, as the host reads it: data from untrusted code, bounded and checked."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from toolreason.errors import InputError
from toolreason.tools import signature, untrusted
from toolreason.types import CellResult

CHARACTERS = 400
MOST = 10**12  # of anything that is counted


@dataclass(frozen=True, slots=True)
class Note:
    """The calls of one tool in a session so far. `calls`: by the agent's own code, not by another tool; `failed` of them raised;
    `seconds` is the time that they took. `faults`: the times when the tool was to blame, called by whomever. Of the last one: its
    `error`, and the `call` as source if its arguments are literals.
    """

    tool: str
    calls: int = 0
    failed: int = 0
    seconds: float = 0.0
    faults: int = 0
    error: str = ""
    call: str = ""


def read(result: CellResult, known: Container[str]) -> list[Note]:
    """The notes in the value of a `notes_code` cell, one for each tool in `known` at most."""
    try:
        rows = json.loads(ast.literal_eval(result.value or "''"))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return []
    notes = (_note(row) for row in rows) if isinstance(rows, list) else ()
    return list({note.tool: note for note in notes if note is not None and note.tool in known}.values())


def _note(row: Any) -> Note | None:
    try:
        counts = [row[name] for name in ("calls", "failed", "faults")]
        texts = [row[name] for name in ("tool", "error", "call")]
        seconds = float(row["s"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if not all(isinstance(text, str) and len(text) <= CHARACTERS for text in texts):
        return None
    if not all(type(count) is int and 0 <= count <= MOST for count in counts) or not math.isfinite(seconds):
        return None
    (calls, failed, faults), (tool, error, call) = counts, texts
    call = call if is_call(call, tool) else ""
    return Note(tool, calls, min(failed, calls), min(max(0.0, seconds), float(MOST)), faults, untrusted.line(error), call)


def is_call(text: str, tool: str) -> bool:
    """Whether `text` is one call of this tool with literals as arguments, in one line: it becomes part of a test."""
    if not text.isprintable():
        return False
    try:
        (statement,) = signature.parse(text).body
        call = statement.value if isinstance(statement, ast.Expr) else None
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == tool):
            return False
        for one in (*call.args, *(keyword.value for keyword in call.keywords)):
            ast.literal_eval(one)
        return all(keyword.arg for keyword in call.keywords)
    except (InputError, ValueError, TypeError, RecursionError, MemoryError):
        return False
