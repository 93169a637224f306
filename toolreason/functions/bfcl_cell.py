"""BFCL's simulated APIs and its checker, as they are used inside the sandbox: the host sends this file's text.

The modules of the `bfcl_eval` package that it imports lie beside it, in the work folder of the session.
"""

from __future__ import annotations

import copy
import importlib
import json
from typing import Any


def make(name: str, given: dict[str, Any]) -> Any:
    """An object of this API in the state that a task begins with; `given` has `scenario` and `long_context`."""
    backend = importlib.import_module("bfcl_eval.constants.executable_backend_config")
    made = getattr(importlib.import_module(backend.CLASS_FILE_PATH_MAPPING[name]), name)()
    if name not in backend.STATELESS_CLASSES:
        made._load_scenario(copy.deepcopy(given["scenario"]), long_context=given["long_context"])
    return made


def check(entry: dict[str, Any], made: list[list[list[list[Any]]]], wanted: list[list[list[Any]]]) -> str:
    """What BFCL's checker says of these calls (name and arguments; by turn, and by step where they are the model's), as JSON."""
    checker = importlib.import_module("bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker")
    steps = [[[_source(*call) for call in step] for step in turn] for turn in made]
    truth = [[_source(*call) for call in turn] for turn in wanted]
    said = checker.multi_turn_checker(steps, truth, entry, entry["id"].rsplit("_", 1)[0], "model")
    reason = f"{said.get('error_type', '')}: {said.get('error_message', '')}"
    return json.dumps([said["valid"] is True, "" if said["valid"] is True else reason[:500]])


def _source(name: str, arguments: dict[str, Any]) -> str:
    """The call as the checker takes it, source that it evaluates: names only where a name may stand, values as literals."""
    if not all(one.isidentifier() for one in (name, *arguments)):
        raise ValueError(f"{name!r} with {list(arguments)!r} is no call")
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
