"""What runs inside the sandbox around a tool. The host sends this file's text; it imports nothing of toolreason.

Whatever it reports is the word of a process in which untrusted code runs.
"""

import ast
import importlib
import json
import linecache
import math
import os
import sys
import traceback
from typing import Any

FOLDER = "toolbox"
TESTS = "<cell tests>"


def install(files: dict[str, str], recorded: bool = False) -> None:
    """Write the modules of the toolbox, and forget what was imported of it. `files`: text by name. `recorded`: note the calls,
    after those that were noted so far.
    """
    before = _noted()
    os.makedirs(FOLDER, exist_ok=True)
    for name, text in files.items():
        path = os.path.join(FOLDER, f"{name}.py")
        with open(path, "w", encoding="utf-8") as out:
            out.write(text)
    for name in [one for one in sys.modules if one == FOLDER or one.startswith(f"{FOLDER}.")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    if recorded:
        toolbox: Any = importlib.import_module(FOLDER)
        toolbox._record(before)


def notes(seen: dict[str, list[int]], most: int) -> str:
    """The tallies of calls that are not as they were `seen` (calls and faults by tool), in JSON of about `most` characters: what is
    too long loses the texts of its faults, then whole tallies, which come the next time.
    """
    rows = [row for name, row in _noted().items() if [row["calls"], row["faults"]] != seen.get(name)]
    rows.sort(key=lambda row: -row["faults"])
    while rows and len(repr(text := json.dumps(rows))) > most:
        told = [at for at, row in enumerate(rows) if row["call"] or row["error"]]
        if told:
            rows[told[-1]] = {**rows[told[-1]], "call": "", "error": ""}
        else:
            rows.pop()
    return text if rows else "[]"


def _noted() -> dict[str, Any]:
    toolbox: Any = sys.modules.get(FOLDER)
    tallies: Any = getattr(toolbox, "_tallies", None)
    return tallies if isinstance(tallies, dict) else {}  # the same one: what was imported before goes on counting in it


def test(source: str, function: str, tool: str, spoil: bool) -> str | None:
    """Run one test. None where it passes, else a report in JSON. With `spoil` the tool gives wrong results."""
    try:
        if spoil:
            _spoil(tool)
        linecache.cache[TESTS] = (len(source), None, source.splitlines(keepends=True), TESTS)
        names: dict[str, Any] = {"__name__": "tests"}
        exec(compile(source, TESTS, "exec", dont_inherit=True), names)
        names[function]()
        return None
    except Exception as error:
        return _report(error)


def call(tool: str, arguments: str, most: int) -> str:
    """A call, reported in JSON: `value`, itself JSON, cut to about `most` characters with `dropped` left out; or `error`."""
    try:
        text = json.dumps(_plain(getattr(importlib.import_module(FOLDER), tool)(**ast.literal_eval(arguments))))
    except (MemoryError, OSError):
        raise  # the runner knows which limit it was
    except Exception as error:
        return _report(error)
    shown = text if len(repr(text)) <= most else text[: most // 2]
    return json.dumps({"value": shown, "dropped": len(text) - len(shown)})


def _spoil(tool: str) -> None:
    """Put a wrapper in the tool's place whose results are never right."""
    toolbox = importlib.import_module(FOLDER)
    real = getattr(toolbox, tool)

    def wrong(*args: Any, **kwargs: Any) -> Any:
        try:
            return _other(real(*args, **kwargs))
        except Exception:
            return None

    setattr(toolbox, tool, wrong)


def _other(value: Any, depth: int = 0) -> Any:
    """A value of the same kind that is equal in nothing."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float, complex)):
        return next((one for one in (value + 1, value / 2) if one != value), 0.0)
    if isinstance(value, str):
        return value + "~"
    if depth > 20:
        return None
    if type(value) in (list, tuple):
        return type(value)([*(_other(one, depth + 1) for one in value), None])
    if isinstance(value, dict):
        return {**{key: _other(one, depth + 1) for key, one in value.items()}, "~": None}
    if isinstance(value, (set, frozenset)):
        return value | {"~"}
    return object()


def _report(error: Exception) -> str:
    message = f"{type(error).__name__}: {error}".removesuffix(": ")
    return json.dumps({"failed": isinstance(error, AssertionError), "error": message[:300], "traceback": _trace(error)[-1200:]})


def _trace(error: BaseException) -> str:
    """The traceback, with the lines of the tests and of the toolbox only."""
    report = traceback.TracebackException(type(error), error, error.__traceback__, compact=True)
    own = [one for one in report.stack if one.filename == TESTS or f"{os.sep}{FOLDER}{os.sep}" in one.filename]
    frames = traceback.StackSummary.from_list(
        [traceback.FrameSummary(_short(one.filename), one.lineno, one.name, line=one.line) for one in own]
    )
    return "".join([*frames.format(), *report.format_exception_only()])


def _short(filename: str) -> str:
    return "tests" if filename == TESTS else os.path.join(FOLDER, os.path.basename(filename))


def _plain(value: Any, depth: int = 0) -> Any:
    """A value as JSON can carry it: numpy's and sympy's numbers, sets and fractions included."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if depth > 50:
        return repr(value)
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(_plain(key, depth + 1)): _plain(one, depth + 1) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one, depth + 1) for one in value]
    if isinstance(value, (set, frozenset)):
        return sorted(
            (_plain(one, depth + 1) for one in value), key=lambda one: (str(type(one)), one if _ordered(one) else repr(one))
        )
    if hasattr(value, "tolist"):
        return _plain(value.tolist(), depth + 1)
    if getattr(value, "is_Integer", False) is True:
        return int(value)
    return str(value)


def _ordered(value: Any) -> bool:
    return isinstance(value, (int, float, str))
