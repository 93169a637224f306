"""What the list of a run knows of each trajectory, and what can be asked of it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

SAID = 200_000  # characters of a trajectory that a search looks at
Sort = Literal["place", "problem", "tokens", "calls", "failed", "seconds", "verdict", "stop"]
COLUMNS = "place, id, problem, sample, strategy, verdict, answer, stop, calls, failed, faults, tokens, seconds"
SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value);
CREATE TABLE rows (place INTEGER PRIMARY KEY, size INTEGER, id TEXT, problem TEXT, sample INTEGER, strategy TEXT, verdict TEXT,
    answer TEXT, stop TEXT, calls INTEGER, failed INTEGER, faults INTEGER, tokens INTEGER, seconds REAL, UNIQUE (problem, sample));
CREATE TABLE said (place INTEGER PRIMARY KEY, text TEXT);
"""


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list is of, and in which order. Empty: everything, as it was written. `text` is looked for in the problem's id, in
    all segments and in the code that ran, without regard to the case of ASCII letters.
    """

    verdict: str = ""
    strategy: str = ""
    stop: str = ""
    problem: str = ""
    text: str = ""
    calls: int = 0  # at least
    tokens: int = 0  # at least
    errors: bool = False  # only with a call that failed
    sort: Sort = "place"
    down: bool = False

    def where(self) -> tuple[str, list[Any]]:
        """As SQL, and what stands for its question marks."""
        parts, values = ["TRUE"], list[Any]()
        for name in ("verdict", "strategy", "stop", "problem"):
            if value := getattr(self, name):
                parts.append(f"{name} = ?")
                values.append(value)
        for name in ("calls", "tokens"):
            if least := getattr(self, name):
                parts.append(f"{name} >= ?")
                values.append(least)
        if self.errors:
            parts.append("failed > 0")
        if self.text:
            parts.append("place IN (SELECT place FROM said WHERE text LIKE ? ESCAPE '!')")
            values.append("%" + "".join(f"!{sign}" if sign in "!%_" else sign for sign in self.text) + "%")
        return " AND ".join(parts), values

    @property
    def order(self) -> str:
        """As SQL. What is no column to sort by is as if nothing was asked for."""
        column = self.sort if self.sort in get_args(Sort) else "place"
        return f"{column} {'DESC' if self.down else 'ASC'}, place"


def take(database: sqlite3.Connection, place: int, line: bytes) -> bool:
    """A line into the list; of two for one rollout the later one stays. Whether it could be read."""
    try:
        row = json.loads(line)
        values = {"place": place, "size": len(line), **_columns(row)}
        said = _said(row)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    old = database.execute(
        "SELECT place FROM rows WHERE problem = ? AND sample = ?", [values["problem"], values["sample"]]
    ).fetchone()
    if old is not None:
        database.execute("DELETE FROM rows WHERE place = ?", [old["place"]])
        database.execute("DELETE FROM said WHERE place = ?", [old["place"]])
    database.execute(f"INSERT INTO rows ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})", list(values.values()))
    database.execute("INSERT INTO said VALUES (?, ?)", [place, said])
    return True


def _columns(row: Mapping[str, Any]) -> dict[str, Any]:
    verdict = row.get("verdict") or {}
    cells = [segment["cell"] for segment in row["segments"] if segment.get("cell")]
    answer = verdict.get("answer")
    return {
        "id": str(row["id"]),
        "problem": str(row["problem_id"]),
        "sample": int(row["sample"]),
        "strategy": str(row["strategy"]),
        "verdict": str(verdict.get("judgement") or "none"),
        "answer": None if answer is None else str(answer)[:200],
        "stop": str(row["stop"]),
        "calls": len(cells),
        "failed": sum(cell["result"]["outcome"] != "ok" for cell in cells),
        "faults": len(row.get("faults") or ()),
        "tokens": sum(len(segment["token_ids"]) for segment in row["segments"] if segment["source"] != "prompt"),
        "seconds": float((row.get("timings") or {}).get("total") or 0.0),
    }


def _said(row: Mapping[str, Any]) -> str:
    parts = [str(row["problem_id"]), *(str(segment["text"]) for segment in row["segments"])]
    parts += [segment["cell"]["code"] for segment in row["segments"] if segment.get("cell")]
    return "\n".join(parts)[:SAID].encode("utf-8", "replace").decode()
