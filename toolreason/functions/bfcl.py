"""BFCL's multi-turn tasks, from the `bfcl-eval` package: loaded as problems that run in its simulated APIs.

The package is the user's to get (`pip download --no-deps bfcl-eval==2026.3.23`: its pins clash with ours, so it is not installed
beside us), as a wheel, which is read as the archive that it is, or as a folder in which it is installed. None of its code is
imported or run here: on the host its data is read as JSON and its sources as text. The APIs run in the sandbox, and so does the
checker (`toolreason.functions.bfcl_check`).
"""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib import resources
from typing import Any

from toolreason.errors import InputError, SettingsError
from toolreason.functions.bfclfiles import Package
from toolreason.functions.sources import EnvironmentSource
from toolreason.types import (
    Environment,
    FunctionCall,
    FunctionTask,
    Problem,
    Reference,
    ReferenceKind,
    UserTurn,
)

KINDS = ("base", "miss_func", "miss_param", "long_context")
APIS = {
    "GorillaFileSystem": "gorilla_file_system",
    "MathAPI": "math_api",
    "MessageAPI": "message_api",
    "TwitterAPI": "posting_api",
    "TicketAPI": "ticket_api",
    "TradingBot": "trading_bot",
    "TravelAPI": "travel_booking",
    "VehicleControlAPI": "vehicle_control",
}
"""The classes of the multi-turn tasks, and the modules that have them."""

_EVAL = "eval_checker/multi_turn_eval"
_APIS = f"{_EVAL}/func_source_code"
_TYPES = {"dict": "object", "float": "number", "tuple": "array"}  # their names for JSON schema's types


def load(path: str, kinds: Sequence[str] = KINDS, ids: Sequence[str] | None = None) -> list[Problem]:
    """The tasks of these kinds (of these ids alone), in the package's order. The domain of each is `bfcl_` and its kind.

    Raises SettingsError for an unknown kind or id, SetupError where the package is not there, InputError where it is another one.
    """
    package = Package.open(path)
    found: list[Problem] = []
    for kind in kinds:
        if kind not in KINDS:
            raise SettingsError(f"BFCL has no multi-turn tasks of kind {kind!r}: there are {', '.join(KINDS)}")
        truths = {row["id"]: row["ground_truth"] for row in package.rows(f"data/possible_answer/BFCL_v4_multi_turn_{kind}.json")}
        for row in package.rows(f"data/BFCL_v4_multi_turn_{kind}.json"):
            if ids is None or row["id"] in ids:
                found.append(_problem(package, row, truths[row["id"]], kind))
    if missing := set(ids or ()) - {problem.id for problem in found}:
        raise SettingsError(f"BFCL has no task {', '.join(sorted(missing))} among its kinds {', '.join(kinds)}")
    return found


def source(path: str, classes: Sequence[str]) -> EnvironmentSource:
    """What the sandbox needs of the package for these APIs."""
    return _source(path, tuple(classes))


def _problem(package: Package, row: dict[str, Any], truth: list[list[str]], kind: str) -> Problem:
    classes = [str(name) for name in row["involved_classes"]]
    if unknown := set(classes) - set(APIS):
        raise InputError(f"task {row['id']} of {package.path} uses {', '.join(sorted(unknown))}, which we do not know")
    late = {int(turn): list(names) for turn, names in row.get("missed_function", {}).items()}
    missing = {name for names in late.values() for name in names}
    docs = {name: text for api in classes for name, text in _documentation(package, api).items()}
    signatures = {name: order for api in classes for name, order in _signatures(package, api).items()}
    turns: list[UserTurn] = []
    for number, (said, calls) in enumerate(zip(row["question"], truth, strict=True)):
        told = late.get(number, [name for name in docs if name not in missing] if number == 0 else [])
        message = "\n".join(one["content"] for one in said) if said else package.more_functions()
        expected = tuple(_call(text, signatures) for text in calls)
        turns.append(UserTurn(message, expected, tuple(docs[name] for name in told)))
    scenario = row["initial_config"]
    config = {api: {"scenario": scenario.get(api, {}), "long_context": kind == "long_context"} for api in classes}
    environment = Environment(tuple(classes), json.dumps(config), package=f"bfcl:{package.path}")
    reference = Reference(ReferenceKind.CALLS, task=FunctionTask(environment, tuple(turns)))
    return Problem(str(row["id"]), turns[0].message, reference, f"bfcl_{kind}")


def _call(text: str, signatures: dict[str, list[str]]) -> FunctionCall:
    """An expected call, which the package has as source. It is parsed, not run; its arguments are literals."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
        assert isinstance(node, ast.Call)
        assert isinstance(node.func, ast.Name)
        named = {str(one.arg): ast.literal_eval(one.value) for one in node.keywords}
        placed = dict(zip(signatures[node.func.id], map(ast.literal_eval, node.args), strict=False))
        return FunctionCall(node.func.id, json.dumps(placed | named))
    except (AssertionError, KeyError, ValueError, SyntaxError, TypeError) as error:
        raise InputError(f"an expected call is not one that we can read: {text[:200]}") from error


@lru_cache(maxsize=64)
def _documentation(package: Package, api: str) -> dict[str, str]:
    """The functions of an API by name, as a task holds them: in JSON schema's own words, without what they return."""
    found: dict[str, str] = {}
    for row in package.rows(f"data/multi_turn_func_doc/{APIS[api]}.json"):
        kept = {key: row[key] for key in ("name", "description", "parameters")}
        found[str(row["name"])] = json.dumps(_schema(kept), ensure_ascii=False)
    return found


def _schema(value: Any) -> Any:
    if isinstance(value, list):
        return [_schema(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {key: _TYPES.get(one, one) if key == "type" and isinstance(one, str) else _schema(one) for key, one in value.items()}


@lru_cache(maxsize=64)
def _signatures(package: Package, api: str) -> dict[str, list[str]]:
    """The order of each method's parameters, from the source as text: the documentation has another order for some."""
    tree = ast.parse(package.text(f"{_APIS}/{APIS[api]}.py"))
    (kind,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == api)
    return {node.name: [one.arg for one in node.args.args[1:]] for node in kind.body if isinstance(node, ast.FunctionDef)}


@lru_cache(maxsize=64)
def _source(path: str, classes: tuple[str, ...]) -> EnvironmentSource:
    package = Package.open(path)
    wanted = ["__init__.py", "constants/__init__.py", "constants/executable_backend_config.py", "eval_checker/__init__.py"]
    wanted += [f"{_EVAL}/{name}.py" for name in ("__init__", "multi_turn_checker", "multi_turn_utils")]
    wanted += [f"{_APIS}/{name}.py" for name in ("__init__", "long_context", *(APIS[api] for api in classes))]
    files = {f"bfcl_eval/{name}": package.text(name) for name in wanted}
    return EnvironmentSource(files | {"bfcl_environment.py": _own()}, "bfcl_environment")


@cache
def _own() -> str:
    return (resources.files("toolreason.functions") / "bfcl_cell.py").read_text(encoding="utf-8")
