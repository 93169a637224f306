"""The signature is read from the code, without running it."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from toolreason.errors import InputError
from toolreason.tools import signature, typehints


def parsed(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        ("int", {"type": "integer"}),
        ("float", {"type": "number"}),
        ("str", {"type": "string"}),
        ("bool", {"type": "boolean"}),
        ("list", {"type": "array"}),
        ("list[int]", {"type": "array", "items": {"type": "integer"}}),
        ("typing.List[list[str]]", {"type": "array", "items": {"type": "array", "items": {"type": "string"}}}),
        ("dict[str, float]", {"type": "object", "additionalProperties": {"type": "number"}}),
        ("dict", {"type": "object"}),
        ("tuple[int, ...]", {"type": "array", "items": {"type": "integer"}}),
        (
            "tuple[int, str]",
            {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2},
        ),
        ("set[int]", {"type": "array", "items": {"type": "integer"}}),
        ("Optional[int]", {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        ("int | str | None", {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]}),
        ("Union[int, Optional[str]]", {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]}),
        ('Literal["up", "down"]', {"enum": ["up", "down"]}),
        ('"list[int]"', {"type": "array", "items": {"type": "integer"}}),
        ("Graph", {}),
        ("int | Graph", {}),
    ],
)
def test_an_annotation_is_a_schema(annotation: str, schema: dict[str, Any]) -> None:
    assert typehints.schema(parsed(annotation)) == schema


@pytest.mark.parametrize(
    ("annotation", "given", "meant"),
    [
        ("tuple[int, int]", [1, 2], (1, 2)),
        ("list[tuple[int, int]]", [[1, 2], [3, 4]], [(1, 2), (3, 4)]),
        ("tuple[tuple[int, ...], ...]", [[1], []], ((1,), ())),
        ("set[int]", [1, 1, 2], {1, 2}),
        ("set[tuple[int, int]]", [[1, 2]], {(1, 2)}),
        ("set", [[1]], [[1]]),
        ("dict[int, list[int]]", {"1": [2]}, {1: [2]}),
        ("float", 3, 3.0),
        ("Optional[tuple[int, int]]", [1, 2], (1, 2)),
        ("tuple[int, int] | None", None, None),
        ("int", "no number", "no number"),
        ("Graph", {"a": [1]}, {"a": [1]}),
    ],
)
def test_json_becomes_what_the_annotation_means(annotation: str, given: Any, meant: Any) -> None:
    value = typehints.from_json(parsed(annotation), given)
    assert value == meant
    assert type(value) is type(meant)


def test_the_whole_signature() -> None:
    code = '''import numpy as np
from toolbox import square, cube
import os.path

def _helper(x): return x

def fit(points: list[float], degree: int = 1, *, name: str | None = None, how: object = print) -> float:
    """Fit it.

    More of it.
    """
    return _helper(points)
'''
    found = signature.read(code)
    assert (found.name, found.requirements, found.tools) == ("fit", ("numpy",), ("cube", "square"))
    assert found.description == "Fit it.\n\nMore of it."
    assert found.parameters == {
        "type": "object",
        "properties": {
            "points": {"type": "array", "items": {"type": "number"}},
            "degree": {"type": "integer", "default": 1},
            "name": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            "how": {},
        },
        "required": ["points"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def f(x) -> int: ...", "no type for x"),
        ("def f(x, *, y) -> int: ...", "no type for x, y"),
        ("def f(x: int): ...", r"no type of the result \(-> ...\)"),
        ("def f(*xs: int) -> int: ...", r"\*xs: name each parameter"),
        ("def f(**xs: int) -> int: ...", r"\*\*xs: name each parameter"),
        ("def f(x: int, /) -> int: ...", "called by name"),
        ("async def f(x: int) -> int: ...", "a plain function"),
        ("def f() -> int: ...\ndef g() -> int: ...", "there is f, g"),
        ("def _f() -> int: ...", "there is none"),
        ("def f(:", "no Python: .* in line 1"),
        ("x = " + "-" * 100_000 + "1", "no Python"),
        ("x = '\0'", "no Python"),
    ],
)
def test_what_is_missing_is_said(code: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        signature.read(code)


def test_another_name_than_the_packages_is_told() -> None:
    with pytest.raises(InputError, match="give both one name"):
        signature.read("def f() -> int: ...", "g")


def test_odd_escapes_warn_nobody() -> None:
    assert signature.read("def f() -> str:\n    '''Odd.'''\n    return '\\d'").name == "f"


def test_an_edit_follows_its_version_and_keeps_what_is_not_edited() -> None:
    from tests.tools import samples

    old = samples.square(category="numbers")
    new = signature.edited(old, samples.SQUARE.replace("n * n", "n**2"), old.tests, author="human")
    assert (new.name, new.category, new.description, new.parents) == ("square", "numbers", old.description, ("square@1",))
    assert new.hash != old.hash
    with pytest.raises(InputError, match="give both one name"):
        signature.edited(old, samples.CUBE, old.tests)
