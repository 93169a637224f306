"""What a session's toolbox noted of its calls, as the host reads it: data from untrusted code, bounded and checked."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from toolreason.types import CellResult

CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class Note:
    """One call of a tool. `outermost`: by the agent's own code, not by another tool. `error` is set where it raised; `fault` where
    the tool is to blame for that, and `call` then is the call as source if its arguments are literals.
    """

    tool: str
    outermost: bool
    latency_s: float
    error: str = ""
    fault: str = ""
    call: str = ""


def read(result: CellResult, known: Container[str]) -> tuple[list[Note], int]:
    """The notes in the value of a `notes_code` cell, of tools in `known` only, and how many there were of whatever kind."""
    try:
        rows = json.loads(ast.literal_eval(result.value or "''"))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return [], 0
    if not isinstance(rows, list):
        return [], 0
    notes = (_note(row) for row in rows)
    return [note for note in notes if note is not None and note.tool in known], len(rows)


def _note(row: Any) -> Note | None:
    try:
        latency = float(row["s"])
        texts = {name: row[name] for name in ("tool", "error", "fault", "call")}
        if not all(isinstance(text, str) and len(text) <= CHARACTERS for text in texts.values()) or not math.isfinite(latency):
            return None
        return Note(outermost=row["outermost"] is True, latency_s=max(0.0, latency), **texts)
    except (KeyError, TypeError, ValueError):
        return None
