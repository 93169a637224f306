"""Type annotations as JSON schemas, and JSON values as what the annotation means: a list for `tuple[int, int]` becomes a tuple."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from typing import Any

PLAIN = {"int": "integer", "float": "number", "str": "string", "bool": "boolean", "None": "null"}
LISTS = {"list", "List", "Sequence", "Iterable", "Collection"}
SETS: dict[str, Callable[[Any], Any]] = {"set": set, "Set": set, "frozenset": frozenset, "FrozenSet": frozenset}
TUPLES = {"tuple", "Tuple"}
DICTS = {"dict", "Dict", "Mapping"}


def schema(annotation: ast.expr | None) -> dict[str, Any]:
    """The JSON schema of an annotation; empty (anything) for one that is not known."""
    name, inner = _named(annotation)
    if name in PLAIN:
        return {"type": PLAIN[name]}
    if name in LISTS or name in SETS:
        return {"type": "array"} | ({"items": schema(inner[0])} if inner else {})
    if name in TUPLES:
        return _tuple(inner)
    if name in DICTS:
        return {"type": "object"} | ({"additionalProperties": schema(inner[1])} if len(inner) == 2 else {})
    if name == "Literal":
        values = [json_value(one) for one in inner]
        return {"enum": [value for _, value in values]} if values and all(known for known, _ in values) else {}
    if name == "Union":
        members = [schema(one) for one in inner]
        return {"anyOf": members} if all(members) else {}
    return {}


def json_value(node: ast.expr) -> tuple[bool, Any]:
    """Whether an expression is a literal that JSON can carry, and its value."""
    try:
        value = ast.literal_eval(node)
        return True, json.loads(json.dumps(value, allow_nan=False))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return False, None


def from_json(annotation: ast.expr | None, value: Any) -> Any:
    """A JSON value as the annotation wants it: tuples, sets, floats, whole numbers as keys. What does not fit stays as it is."""
    name, inner = _named(annotation)
    if name == "float" and type(value) is int:
        return float(value) if abs(value) < 1 << 53 else value
    if name == "Union":
        return _union(inner, value)
    if isinstance(value, list):
        if name in TUPLES:
            kinds = [inner[0]] * len(value) if len(inner) == 2 and _ellipsis(inner[1]) else [*inner, *[None] * len(value)]
            return tuple(from_json(kind, one) for kind, one in zip(kinds, value, strict=False))
        items = [from_json(inner[0] if inner else None, one) for one in value]
        return _collected(SETS[name], items) if name in SETS else items
    if isinstance(value, dict) and name in DICTS and len(inner) == 2:
        return {_key(inner[0], key): from_json(inner[1], one) for key, one in value.items()}
    return value


def _union(members: list[ast.expr], value: Any) -> Any:
    fitting = [one for one in members if _fits(schema(one).get("type"), value)]
    return from_json(fitting[0], value) if fitting else value


def _fits(kind: str | None, value: Any) -> bool:
    kinds: dict[type, tuple[str, ...]] = {bool: ("boolean",), int: ("integer", "number"), float: ("number",), str: ("string",)}
    kinds |= {list: ("array",), dict: ("object",), type(None): ("null",)}
    return kind in kinds.get(type(value), ())


def _collected(kind: Callable[[Any], Any], items: list[Any]) -> Any:
    try:
        return kind(items)
    except TypeError:  # of items that cannot be hashed
        return items


def _key(annotation: ast.expr, key: str) -> Any:
    if _named(annotation)[0] != "int":
        return key
    try:
        return int(key)
    except ValueError:
        return key


def _tuple(inner: list[ast.expr]) -> dict[str, Any]:
    if not inner:
        return {"type": "array"}
    if len(inner) == 2 and _ellipsis(inner[1]):
        return {"type": "array", "items": schema(inner[0])}
    return {"type": "array", "prefixItems": [schema(one) for one in inner], "minItems": len(inner), "maxItems": len(inner)}


def _ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def _named(node: ast.expr | None) -> tuple[str, list[ast.expr]]:
    """(`list`, [`int`]) of `list[int]`; unions of both spellings are (`Union`, members)."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            return _named(ast.parse(node.value, mode="eval").body)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return "", []
    if isinstance(node, ast.Constant) and node.value is None:
        return "None", []
    if isinstance(node, ast.Name):
        return node.id, []
    if isinstance(node, ast.Attribute):  # typing.Optional
        return node.attr, []
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return "Union", [*_members(node.left), *_members(node.right)]
    if isinstance(node, ast.Subscript):
        name, _ = _named(node.value)
        inner = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name == "Optional":
            return "Union", [*_members(inner[0]), ast.Constant(None)]
        return name, [one for part in inner for one in _members(part)] if name == "Union" else inner
    return "", []


def _members(node: ast.expr) -> list[ast.expr]:
    name, inner = _named(node)
    return inner if name == "Union" else [node]
