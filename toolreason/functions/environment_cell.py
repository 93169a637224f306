"""The environment of a task, as it stands inside the sandbox: the host sends this file's text; nothing of toolreason is in it.

It becomes the module `environment`. The model's words reach it as one literal and are read here: JSON, then names looked up among
those that may be called, then arguments bound by name. Nothing of them is ever code.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import importlib
import inspect
import io
import json
import os
import re
import sys
from types import ModuleType
from typing import Any

STATES = "states.json"  # what `play` writes into the work folder
PREVIEW = 200  # characters of a value that are kept to be read
OK, RAISED, MALFORMED, UNKNOWN, WRONG = "ok", "raised", "malformed_call", "unknown_function", "wrong_arguments"

_instances: dict[str, Any] = {}
_owners: dict[str, Any] = {}  # the object that has the function
_since: dict[str, int] = {}  # the turn from which it may be called


def install(
    source: str, files: dict[str, str], main: str, classes: list[str], config: dict[str, Any], functions: dict[str, int]
) -> None:
    """Make the module `environment` of this file's text, and in it the objects."""
    module = ModuleType("environment")
    sys.modules["environment"] = module
    exec(compile(source, "environment.py", "exec"), module.__dict__)
    module.begin(files, main, classes, config, functions)


def begin(files: dict[str, str], main: str, classes: list[str], config: dict[str, Any], functions: dict[str, int]) -> None:
    """Write the files into the work folder; make an object of each class, by the main module's `make` where it has one."""
    for path, text in files.items():
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    importlib.invalidate_caches()
    code = importlib.import_module(main)
    make = getattr(code, "make", lambda name, given: getattr(code, name)(**given))
    for name in classes:
        _instances[name] = make(name, config.get(name, {}))
        for function, _ in inspect.getmembers(_instances[name], inspect.ismethod):
            if function in functions and not function.startswith("_"):
                _owners[function] = _instances[name]
    _since.update(functions)


def call(text: str, turn: int) -> str:
    """Make the calls that the model wrote in this turn and print what they gave. Returns how each went, as JSON."""
    shown = []
    answers = _called(text, turn)
    for answer in answers:
        name = {"name": answer["name"]} if answer["name"] else {}
        shown.append(json.dumps(name | answer["shown"], ensure_ascii=False, default=str))
    print(f"[{', '.join(shown)}]".encode("utf-8", "replace").decode())
    return json.dumps([answer["status"] for answer in answers])


def _called(text: str, turn: int) -> list[dict[str, Any]]:
    try:
        wanted = read(text)
    except (ValueError, RecursionError) as error:
        told = f'{error}; write [{{"name": "...", "arguments": {{"...": ...}}}}]'
        return [{"name": "", "arguments": "", "status": MALFORMED, "result": "", "shown": {"error": told}}]
    return [_one(name, arguments, turn) for name, arguments in wanted]


def read(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The calls in this text: the JSON of one, or of a list; a fence around it is forgiven. Raises ValueError."""
    fenced = re.fullmatch(r"\s*```\w*\n(.*?)\n?\s*```\s*", text, re.DOTALL)
    try:
        found = json.loads(fenced.group(1) if fenced else text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"this is no JSON: {error}") from None
    calls = found if isinstance(found, list) else [found]
    if not calls:
        raise ValueError("there is no call in the list")
    for one in calls:
        if not isinstance(one, dict) or not isinstance(one.get("name"), str) or not set(one) <= {"name", "arguments"}:
            raise ValueError("a call is an object with `name` and `arguments`")
        if not isinstance(one.get("arguments", {}), dict):
            raise ValueError("`arguments` is an object: each argument by its name")
    return [(one["name"], one.get("arguments", {})) for one in calls]


def _one(name: str, arguments: dict[str, Any], turn: int) -> dict[str, Any]:
    """One call. `arguments` and `result` of the answer are digests: of the arguments with their defaults, and of what it gave."""
    answer = {"name": name, "arguments": digest(arguments), "status": UNKNOWN, "result": ""}
    if name not in _owners or turn < _since[name]:
        there = ", ".join(sorted(one for one in _owners if turn >= _since[one]))
        return answer | {"shown": {"error": f"there is no such function; there are: {there}"}}
    method = getattr(_owners[name], name)
    try:
        bound = inspect.signature(method).bind(**arguments)
    except TypeError as error:
        return answer | {"status": WRONG, "shown": {"error": f"wrong arguments: {error}"}}
    complete = inspect.signature(method).bind(**arguments)
    complete.apply_defaults()
    answer["arguments"] = digest(complete.arguments)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            result = method(*bound.args, **bound.kwargs)
    except (Exception, SystemExit) as error:
        raised = f"{type(error).__name__}: {error}"
        return answer | {"status": RAISED, "result": digest(raised), "shown": {"error": raised}}
    try:
        json.dumps(result, default=str)
    except (TypeError, ValueError, RecursionError):
        result = str(result)
    return answer | {"status": OK, "result": digest(result), "shown": {"result": result}}


def play(turns: list[list[str]]) -> None:
    """Make the calls of each turn, and write down the state before, after each turn, and how each call went."""
    before = state()
    played = []
    for number, texts in enumerate(turns):
        answers = [answer for text in texts for answer in _called(text, number)]
        played.append({"calls": [{k: v for k, v in one.items() if k != "shown"} for one in answers], "state": state()})
    previews = {f"{name}.{key}": repr(value)[:PREVIEW] for name in _instances for key, value in _public(_instances[name])}
    report = {"before": before, "turns": played, "previews": previews}
    with open(STATES, "w", encoding="ascii") as file:
        json.dump(report, file)


def state() -> dict[str, str]:
    """A digest of each public attribute, by `class.attribute`."""
    return {f"{name}.{key}": digest(value) for name in _instances for key, value in _public(_instances[name])}


def _public(instance: Any) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in vars(instance).items() if not key.startswith("_")]


def digest(value: Any) -> str:
    """Equal for equal values: JSON's kinds by value, tuples as lists, other objects by their class and public attributes."""
    try:
        text = json.dumps(_plain(value, ()), sort_keys=True)
    except (RecursionError, ValueError):  # a number of thousands of digits has no JSON
        text = "not comparable"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value: Any, above: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return int(value) if isinstance(value, float) and value.is_integer() else value
    if id(value) in above:  # a child that knows its parent
        return {"above": len(above) - above.index(id(value))}
    above = (*above, id(value))
    if isinstance(value, list | tuple):
        return [_plain(one, above) for one in value]
    if isinstance(value, dict):
        pairs = [[_plain(key, above), _plain(one, above)] for key, one in value.items()]
        return {"dict": sorted(pairs, key=lambda pair: json.dumps(pair[0], sort_keys=True))}
    if isinstance(value, set | frozenset):
        return {"set": sorted(json.dumps(_plain(one, above), sort_keys=True) for one in value)}
    if hasattr(value, "__dict__") and not isinstance(value, type | enum.Enum):
        return {"object": type(value).__name__, "has": {key: _plain(one, above) for key, one in _public(value)}}
    return {"other": re.sub(r" at 0x[0-9a-f]+", "", repr(value))}
