"""Tools that are alike: copies, near copies, one that only looks like the rest, and the library that holds them."""

from __future__ import annotations

from toolreason.tools import signature
from toolreason.tools.package import ToolPackage

FACTORIAL = '''def factorial(n: int) -> int:
    """The product of the whole numbers from 1 to n."""
    if n < 0:
        raise ValueError("n is below 0")
    result = 1
    for factor in range(2, n + 1):
        result *= factor
    return result
'''
FACTORIAL_TESTS = """from toolbox import factorial


def test_five():
    assert factorial(5) == 120


def test_zero():
    assert factorial(0) == 1
"""
COPY = FACTORIAL.replace("factorial", "product_up_to").replace("result", "total")  # the same but for names
COPY_TESTS = """from toolbox import product_up_to

CASES = {3: 6, 6: 720}


def test_cases():
    for n, wanted in CASES.items():
        assert product_up_to(n) == wanted


def test_five():
    assert product_up_to(n=5) == 120
"""
STRICT = FACTORIAL.replace("factorial", "factorial_strict").replace("n < 0", "n < 1").replace("below 0", "below 1")  # 0 is refused
STRICT_TESTS = """from toolbox import factorial_strict

CASES = {4: 24}


def test_cases():
    for n, wanted in CASES.items():
        assert factorial_strict(n) == wanted


def test_zero_is_refused():
    try:
        factorial_strict(0)
    except ValueError:
        return
    assert False


def test_six():
    assert factorial_strict(6) == 720
"""
CHOOSE = '''from toolbox import product_up_to


def choose(n: int, k: int) -> int:
    """In how many ways k of n things can be chosen."""
    return product_up_to(n) // (product_up_to(k) * product_up_to(n - k))
'''
CHOOSE_TESTS = """from toolbox import choose


def test_two_of_five():
    assert choose(5, 2) == 10


def test_one():
    assert choose(7, 1) == 7
"""
SCALE = '''def scale(values: list[int], by: int = 2) -> list[int]:
    """Each of the values, multiplied."""
    return [value * by for value in values]
'''
SCALE_TESTS = """from toolbox import scale


def test_twice():
    assert scale([1, 2]) == [2, 4]


def test_by():
    assert scale([3], by=3) == [9]
"""
SHIFT = '''def scale_shift(values: list[int], plus: int = 0) -> list[int]:
    """Each of the values, multiplied and shifted."""
    return [value * 2 + plus for value in values]
'''
SHIFT_TESTS = """from toolbox import scale_shift


def test_twice():
    assert scale_shift([1, 2]) == [2, 4]


def test_plus():
    assert scale_shift([3], plus=1) == [7]
"""
# what a model may write for both: neither is the other
GENERAL = SCALE.replace("by: int = 2", "by: int = 2, plus: int = 0").replace("value * by", "value * by + plus")
TOTAL = '''from toolbox import scale


def doubled_sum(values: list[int]) -> int:
    """Twice the sum of the values."""
    return sum(scale(values))
'''
TOTAL_TESTS = """from toolbox import doubled_sum


def test_large():
    assert doubled_sum([50, 1]) == 102


def test_none():
    assert doubled_sum([]) == 0
"""


def factorial(**more: object) -> ToolPackage:
    return signature.package(FACTORIAL, FACTORIAL_TESTS, **more)  # type: ignore[arg-type]


def copy(**more: object) -> ToolPackage:
    return signature.package(COPY, COPY_TESTS, **more)  # type: ignore[arg-type]


def strict(**more: object) -> ToolPackage:
    return signature.package(STRICT, STRICT_TESTS, **more)  # type: ignore[arg-type]


def choose() -> ToolPackage:
    return signature.package(CHOOSE, CHOOSE_TESTS)


def scale() -> ToolPackage:
    return signature.package(SCALE, SCALE_TESTS)


def shift() -> ToolPackage:
    return signature.package(SHIFT, SHIFT_TESTS)


def total() -> ToolPackage:
    return signature.package(TOTAL, TOTAL_TESTS)


def ways() -> ToolPackage:
    """As `choose`, with the other copy."""
    tests = CHOOSE_TESTS.replace("choose", "ways")
    return signature.package(CHOOSE.replace("choose", "ways").replace("product_up_to", "factorial"), tests)
