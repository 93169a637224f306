"""Problems from where people keep them: a JSONL file, a Hugging Face dataset, or reasoning-gym's generators.

    problems.jsonl                    one JSON object a line
    hf:NAME[:CONFIG][:SPLIT]          through `datasets` (hf:openai/gsm8k:main:test); NAME may be a local folder
    gym:FAMILY[,FAMILY...]:SIZE[:SEED]  SIZE problems of each family (gym:count_primes,gcd:30:7)

A row's keys: `question` (or `problem`, `prompt`); `id` (default: the line number); then what it is graded by: `answer` (math;
GSM8K's `#### 72` is understood, and a `solution` that ends in a box), `choices` with `answer` (a letter, an index from 0, or an
option's text), `tests` (Python statements that raise unless the program is right), or `dataset` and `entry` (reasoning-gym);
`domain` as you like. `history` is what was said before the question: objects with `role` and `text`. `attachments` are pictures and
files, by paths from the JSONL file's folder; they have to be there. A bad row is named by line and reason, and costs nothing but
itself.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from toolreason import attachments, sources
from toolreason.errors import ProblemError
from toolreason.types import Problem, Reference, ReferenceKind, Turn, from_json
from toolreason.verify import extract

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was left out. `line` counts from 1."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Problems:
    """What a source gave: the problems in its order, and the rows that are none."""

    problems: list[Problem] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)


def load(source: str) -> Problems:
    """Read all problems of a source. Raises ProblemError (the source itself is wrong) or SetupError (something is missing here)."""
    found, first_seen = Problems(), dict[str, int]()
    folder = None if source.startswith(("hf:", "gym:")) else Path(source).parent
    for line, row in sources.rows(source):
        try:
            problem = from_row(row() if callable(row) else row, str(line), folder)
            if problem.id in first_seen:
                raise ProblemError(f"duplicate id {problem.id!r}, first on line {first_seen[problem.id]}")
        except ProblemError as error:
            found.bad.append(BadRow(line, str(error)))
            continue
        first_seen[problem.id] = line
        found.problems.append(problem)
    return found


def dump(problems: Iterable[Problem], path: str | Path) -> None:
    """Write problems as JSONL that loads back equal. Raises ProblemError for attachments that do not lie beside it or below."""
    folder = os.path.realpath(Path(path).parent)
    rows = [to_row(replace(one, attachments=tuple(_beside(folder, file) for file in one.attachments))) for one in problems]
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _beside(folder: str, attachment: str) -> str:
    full = os.path.realpath(attachment)
    if not Path(full).is_relative_to(folder):
        raise ProblemError(f"the attachment {attachment} does not lie in {folder}: copy it there, or write the problems beside it")
    return os.path.relpath(full, folder)


def to_row(problem: Problem) -> dict[str, Any]:
    """The row that `from_row` reads as this problem: the short keys where they say it all, else the whole `reference`."""
    reference = problem.reference
    row: dict[str, Any] = {"id": problem.id, "question": problem.question, "domain": problem.domain}
    short = row | {key: value for key, value in asdict(reference).items() if key != "kind" and value}
    more: dict[str, Any] = {"attachments": list(problem.attachments)} if problem.attachments else {}
    if problem.history:
        more["history"] = [asdict(turn) for turn in problem.history]
    try:
        if from_row(short, problem.id) == replace(problem, attachments=(), history=()):
            return short | more
    except ProblemError:
        pass
    return row | more | {"reference": asdict(reference)}


def from_row(row: object, default_id: str, folder: Path | None = None) -> Problem:
    """One problem from one row; `folder` is where its attachments lie. Raises ProblemError with the reason."""
    if not isinstance(row, dict):
        raise ProblemError(f"a row is a JSON object, not {type(row).__name__}")
    question = next((row[key] for key in ("question", "problem", "prompt") if row.get(key) is not None), None)
    if question is None:
        raise ProblemError("no question: give it as `question`, `problem` or `prompt`")
    if not isinstance(question, str) or not question.strip():
        raise ProblemError("the question is not a text, or is empty")
    identity = row.get("id", default_id)
    if isinstance(identity, bool) or not isinstance(identity, str | int) or not str(identity).strip():
        raise ProblemError("`id` is neither a text nor an integer, or is empty")
    reference = _reference(row)
    domain = row.get("domain", {ReferenceKind.CODE: "code", ReferenceKind.GYM: reference.dataset}.get(reference.kind, "math"))
    if not isinstance(domain, str):
        raise ProblemError("`domain` is not a text")
    problem = Problem(str(identity), question, reference, domain, _attachments(row, folder), _history(row))
    try:
        json.dumps(asdict(problem), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ProblemError("it contains half a surrogate pair, which is no character") from None
    return problem


def _history(row: dict[str, Any]) -> tuple[Turn, ...]:
    """What was said before, from `history`: `role` and `text` (or `content`) of each."""
    said = row.get("history") or []
    if not isinstance(said, list) or not all(isinstance(turn, dict) for turn in said):
        raise ProblemError("`history` is no list of objects with `role` and `text`")
    turns = tuple(Turn(str(turn.get("role")), turn.get("text", turn.get("content"))) for turn in said)
    for turn in turns:
        if turn.role not in ROLES or not isinstance(turn.text, str):
            raise ProblemError(f"a turn of `history` needs a `role` ({', '.join(ROLES)}) and a `text`")
    return turns


def _attachments(row: dict[str, Any], folder: Path | None) -> tuple[str, ...]:
    """The full paths of the files, all of which can be read."""
    named = _texts(row, "attachments")
    if named and folder is None:
        raise ProblemError("`attachments` are paths from a JSONL file's folder: save these problems as a JSONL file")
    paths = tuple(attachments.locate(folder, one) for one in named) if folder is not None else ()
    attachments.read(paths)
    return paths


def _reference(row: dict[str, Any]) -> Reference:
    if row.get("reference") is not None:
        return _whole_reference(row["reference"])
    if row.get("tests"):
        return Reference(ReferenceKind.CODE, tests=_texts(row, "tests"))
    if row.get("dataset") or row.get("entry"):
        return _gym_reference(row)
    if row.get("choices"):
        return _choice_reference(row)
    answer = row.get("answer")
    if answer is None and isinstance(row.get("solution"), str):
        boxed = extract.boxes(row["solution"])
        answer = boxed[-1] if boxed else row["solution"] if "####" in row["solution"] else None
    if answer is None:
        return Reference()
    text = _scalar(answer).rpartition("####")[2].strip()
    if not text:
        raise ProblemError("`answer` is empty")
    return Reference(ReferenceKind.MATH, answer=text)


def _whole_reference(value: object) -> Reference:
    """A reference in the form of `types.Reference`, as `dump` writes it where the short keys do not suffice."""
    known = {entry.name for entry in fields(Reference)}
    if not isinstance(value, dict) or not set(value) <= known:
        raise ProblemError(f"`reference` is not an object with some of {', '.join(sorted(known))}")
    try:
        return from_json(Reference, json.dumps(value))
    except ValueError as error:
        raise ProblemError(f"`reference` cannot be read: {error}") from None


def _scalar(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ProblemError(f"`answer` is neither a text nor a number, but {type(value).__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ProblemError("`answer` is not a finite number")
    try:
        return str(value)
    except ValueError:
        raise ProblemError("`answer` has too many digits: write it as a text") from None


def _texts(row: dict[str, Any], key: str) -> tuple[str, ...]:
    """A list of texts; one text counts as a list of one."""
    value = row.get(key)
    values = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(item, str) for item in values):
        raise ProblemError(f"`{key}` is not a list of texts")
    return tuple(values)


def _choice_reference(row: dict[str, Any]) -> Reference:
    choices: Any = row["choices"]
    labels: Any = None
    if isinstance(choices, dict):  # as in ARC: {"text": [...], "label": [...]}
        choices, labels = choices.get("text"), choices.get("label")
    if not isinstance(choices, list | tuple) or not all(isinstance(item, str | int | float) for item in choices):
        raise ProblemError("`choices` is not a list of texts")
    if not 2 <= len(choices) <= 26:
        raise ProblemError(f"{len(choices)} choices: 2 to 26 are possible")
    options = tuple(map(str, choices))
    answer = row["answer"] if row.get("answer") is not None else row.get("answerKey")
    if isinstance(labels, list) and str(answer) in map(str, labels):
        answer = list(map(str, labels)).index(str(answer))
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(options):
        letter = chr(ord("A") + answer)
    else:
        letter = extract.letter(answer, options) or "" if isinstance(answer, str) else ""
    if not letter:
        raise ProblemError(f"`answer` names none of the {len(options)} choices")
    return Reference(ReferenceKind.CHOICE, answer=letter, choices=options)


def _gym_reference(row: dict[str, Any]) -> Reference:
    dataset, entry = row.get("dataset"), row.get("entry")
    if not isinstance(dataset, str) or not dataset or not isinstance(entry, str | dict):
        raise ProblemError("a reasoning-gym row has `dataset` (a text) and `entry` (an object, or its JSON)")
    try:
        text = entry if isinstance(entry, str) else json.dumps(entry)
        readable = isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        readable = False
    if not readable:
        raise ProblemError("`entry` is not a JSON object")
    return Reference(ReferenceKind.GYM, dataset=dataset, entry=text)
