"""Tools for tests: one that is good, and ways to make it otherwise."""

from __future__ import annotations

from typing import Any

from toolreason.tools import signature
from toolreason.tools.package import ToolPackage

CODE = '''from collections import Counter


def digit_counts(number: int, base: int = 10) -> dict[str, int]:
    """How often each digit stands in `number`, written in `base` (2 to 10)."""
    if not 2 <= base <= 10:
        raise ValueError("base is outside 2 to 10")
    digits = []
    while number:
        number, digit = divmod(number, base)
        digits.append(str(digit))
    return dict(Counter(digits))
'''
TESTS = """from toolbox import digit_counts


def test_decimal() -> None:
    assert digit_counts(1223) == {"1": 1, "2": 2, "3": 1}


def test_binary() -> None:
    counts = digit_counts(8, base=2)
    assert counts["0"] == 3 and counts["1"] == 1


def test_a_base_that_there_is_not() -> None:
    try:
        digit_counts(5, 1)
    except ValueError:
        return
    assert False
"""
SQUARE = '''def square(n: int) -> int:
    """The square of `n`."""
    return n * n
'''
SQUARE_TESTS = """from toolbox import square


def test_three():
    assert square(3) == 9


def test_negative():
    assert square(-4) == 16
"""
CUBE = '''from toolbox import square


def cube(n: int) -> int:
    """The cube of `n`."""
    return n * square(n)
'''
CUBE_TESTS = SQUARE_TESTS.replace("square", "cube").replace("== 9", "== 27").replace("== 16", "== -64")


def digits(code: str = CODE, tests: str = TESTS, **more: Any) -> ToolPackage:
    return signature.package(code, tests, **more)


def square(**more: Any) -> ToolPackage:
    return signature.package(SQUARE, SQUARE_TESTS, **more)


def cube() -> ToolPackage:
    return signature.package(CUBE, CUBE_TESTS)
