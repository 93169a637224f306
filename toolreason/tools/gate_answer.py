"""The gate's rule against tools that know the answer: the gold answer of the ticket's problem stands nowhere in the tool."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from toolreason.errors import InputError
from toolreason.tools import signature
from toolreason.tools.gate import Finding, lists
from toolreason.types import Reference, ReferenceKind

if TYPE_CHECKING:
    from toolreason.tools.package import ToolPackage

SMALL = 12  # numbers up to here, and fractions of them, stand in any program
NUMBER = re.compile(r"(?<![\w.])\d[\d_]*(?:,\d{3})*(?:\.\d+)?(?:[eE][+-]?\d{1,3})?(?![\w])")
LATEX = re.compile(r"^(-?)\\[dt]?frac\{?(-?\d+)\}?\{?(\d+)\}?$")
WORDS = lists()["answer"]["words"]
FOLDED: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def gold(reference: Reference) -> tuple[str, ...]:
    """The texts that give a problem's answer away. Of a choice the option's text, since its letter stands everywhere."""
    if reference.kind is ReferenceKind.CHOICE:
        place = ord(reference.answer.strip().upper()[:1] or "?") - ord("A")
        return (reference.choices[place],) if 0 <= place < len(reference.choices) else ()
    return (reference.answer,) if reference.answer else ()


def findings(package: ToolPackage, answers: Sequence[str]) -> Iterator[Finding]:
    parts = {"the code": package.code, "tests: a literal": package.tests, "the description": package.description}
    for answer in answers:
        number = as_number(answer)
        if number is not None and trivial(number):
            continue
        for what, text in parts.items():
            line = _number(text, number) if number is not None else _text(text, answer)
            if line is None and what != "the description":
                line = _literal(text, number, answer)
            if line is not None:
                yield Finding(
                    "answer", f"{what} holds the answer of the problem it is made for: compute it, test other cases", line
                )


def as_number(answer: str) -> Fraction | None:
    """An answer as an exact number, if it is one."""
    text = re.sub(r"\\boxed|[${}]" if "frac" not in answer else r"\\boxed|\$", "", answer).strip().replace(" ", "")
    if match := LATEX.match(text):
        sign, above, below = match.groups()
        return Fraction(int(sign + above), int(below)) if int(below) else None
    try:
        return Fraction(re.sub(r",(?=\d{3})", "", text).rstrip("%."))
    except (ValueError, ZeroDivisionError):
        return None


def trivial(number: Fraction) -> bool:
    digits = str(abs(number.numerator))
    return (abs(number.numerator) <= SMALL or digits.rstrip("0") == "1") and number.denominator <= SMALL


def _number(text: str, wanted: Fraction) -> int | None:
    """The line in which the number stands: as a literal, in a text, or in a comment."""
    for match in NUMBER.finditer(text):
        if _same(match.group().replace(",", "").replace("_", ""), wanted):
            return text.count("\n", 0, match.start()) + 1
    return None


def _same(literal: str, wanted: Fraction) -> bool:
    try:
        found = Fraction(literal)
    except (ValueError, ZeroDivisionError):
        return False
    return found == abs(wanted) or (not _exact(wanted) and abs(float(found) - abs(float(wanted))) <= 1e-6 * abs(float(wanted)))


def _exact(number: Fraction) -> bool:
    """Whether it has a finite decimal form."""
    below = number.denominator
    for factor in (2, 5):
        while below % factor == 0:
            below //= factor
    return below == 1


def _text(text: str, answer: str) -> int | None:
    wanted = "".join(answer.split()).casefold()
    if len(wanted) < 3 or wanted in WORDS:
        return None
    pattern = r"(?<!\w)" + r"\s*".join(re.escape(char) for char in wanted[:500]) + r"(?!\w)"
    match = re.search(pattern, text, re.IGNORECASE)
    return text.count("\n", 0, match.start()) + 1 if match else None


def _literal(code: str, number: Fraction | None, answer: str) -> int | None:
    """The line of an expression of constants alone that comes to the answer: `0x13b0`, `5000 + 40`, `"PA" + "RIS"`."""
    try:
        tree = signature.parse(code)
    except InputError:
        return None
    wanted = "".join(answer.split()).casefold()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.BinOp):
            value = fold(node)
            if number is not None and isinstance(value, int | float) and not isinstance(value, bool) and _same(str(value), number):
                return node.lineno
            if isinstance(value, str) and len(wanted) >= 3 and wanted not in WORDS and "".join(value.split()).casefold() == wanted:
                return node.lineno
    return None


def fold(node: ast.expr, depth: int = 20) -> Any:
    """The value of an expression of small constants, or None."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, int | float | str) else None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = fold(node.operand, depth - 1) if depth else None
        return -value if isinstance(value, int | float) else None
    if not isinstance(node, ast.BinOp) or not depth:
        return None
    left, right = fold(node.left, depth - 1), fold(node.right, depth - 1)
    if left is None or right is None:
        return None
    try:
        if isinstance(node.op, ast.Pow):
            small = isinstance(left, int) and isinstance(right, int) and abs(left) < 1 << 32 and 0 <= right <= 64
            return left**right if small else None
        act = FOLDED.get(type(node.op))
        both = isinstance(left, int | float) and isinstance(right, int | float)
        if act is None or not (both or (isinstance(left, str) and isinstance(right, str) and act is operator.add)):
            return None
        value = act(left, right)
        return value if not isinstance(value, int) or value.bit_length() < 4096 else None
    except (ArithmeticError, TypeError, ValueError):
        return None
