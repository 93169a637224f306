"""Numbers and operations as prose and code state them. Pure, linear in the text, and never raising: the text is a model's.

Signs are left out (`5 - 3` and `-3` look alike in prose), so every number is a magnitude.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

DIGITS = 40  # a longer number is nobody's mental arithmetic
WINDOW = 120  # characters before an equals sign in which its left side is looked for
POWER = 64  # exponents above this are not worked out
NUMBER = r"(?:\d{1,3}(?:(?:,|\{,\})\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?(?:[eE][+-]?\d{1,3}(?!\w))?)"

_NUMBER = re.compile(rf"(?<![\w.])(?P<number>{NUMBER})(?!\w)")
_EQUALS = re.compile(
    r"(?:(?<![=<>!:])=(?!=)|≈|\\approx\b|\bis equal to\b|\bequals\b|\bgives\b|\bis\b)"
    rf"(?:[\s$*]|\\boxed\{{|\\\(|\\,|\babout\b|\bapproximately\b)*(?P<number>{NUMBER})"
    r"(?![\w(]|\.\d|\s*(?:[/+×·⋅÷^%]|\\(?:times|cdot|div|frac|%)|\*\*\s*\d|\*(?!\*)|[-−]\s*\d))"  # noqa: RUF001
)
_TOKEN = re.compile(
    rf"(?P<number>{NUMBER})"
    r"|(?P<sign>\*\*|[-+−*×·⋅/÷^%]|\\(?:times|cdot|div)\b|\b(?:times|plus|minus|mod|divided by)\b|(?<=[\s\d])x(?=[\s\d]))"  # noqa: RUF001
    r"|(?P<skip>[\s()\[\]{}$]|\\(?:left|right)\b|\\[,;! ()])|(?P<other>[\s\S])"
)
_BULLET = re.compile(r"^\s*[-*•]\s+")
_SIGNS = {
    **dict.fromkeys(("+", "plus"), "+"),
    **dict.fromkeys(("-", "−", "minus"), "-"),  # noqa: RUF001
    **dict.fromkeys(("*", "×", "·", "⋅", "x", "\\times", "\\cdot", "times"), "*"),  # noqa: RUF001
    **dict.fromkeys(("/", "÷", "\\div", "divided by"), "/"),
    **dict.fromkeys(("**", "^"), "**"),
    **dict.fromkeys(("%", "mod"), "%"),
}
_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Pow: "**", ast.Mod: "%",
}  # fmt: skip
_SHOWING = {"print", "int", "float", "round", "str", "repr", "format", "abs", "len", "list", "sorted", "N", "evalf"}
_WORK = (ast.BinOp, ast.For, ast.While, ast.comprehension, ast.FunctionDef)


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it is written: its value, the decimals it is given to, and where it begins."""

    value: Fraction
    decimals: int = 0
    start: int = 0

    def shows(self, stated: Number) -> bool:
        """Whether `stated` is this number, or this number rounded to two decimals or more."""
        return self.value == stated.value or (self.decimals > stated.decimals >= 2 and self.rounds_to(stated))

    def rounds_to(self, other: Number) -> bool:
        """Whether this number, rounded to as many decimals as `other` has, is `other`."""
        return bool(abs(self.value - other.value) * 2 * 10**other.decimals <= 1)

    @property
    def trivial(self) -> bool:
        """Too common to say where it comes from: 0 to 12, powers of ten, halves and quarters below 1."""
        value = self.value
        small = value.denominator == 1 and value <= 12
        return small or value in _ROUND or (value < 1 and value.denominator in (2, 4))


_ROUND = {Fraction(10) ** power for power in range(-6, 13)}


class Operation(NamedTuple):
    """One binary operation on magnitudes; the operands of + and * are in order of size."""

    sign: str
    first: Fraction
    second: Fraction

    @property
    def value(self) -> Fraction | None:
        """What it gives, None where that is undefined, too large or no fraction."""
        first, second = self.first, self.second
        if self.sign == "**":
            small = second.denominator == 1 and second <= POWER and first <= 10**6
            return first ** int(second) if small else None
        if self.sign in ("/", "//", "%"):
            if not second:
                return None
            return first / second if self.sign == "/" else Fraction(first // second) if self.sign == "//" else first % second
        return {"+": first + second, "-": abs(first - second), "*": first * second}[self.sign]


@dataclass(frozen=True, slots=True)
class Statement:
    """`17 * 23 = 391` in prose: the operands of the left side, their operation where it is one and stands alone, the result."""

    operands: tuple[Fraction, ...]
    operation: Operation | None
    result: Number
    start: int
    end: int


def numbers(text: str) -> Iterator[Number]:
    """All numbers that are no part of a word, in order."""
    for match in _NUMBER.finditer(text):
        if number := _number(match):
            yield number


def _number(match: re.Match[str]) -> Number | None:
    written = match["number"].replace("{,}", "").replace(",", "")
    if len(written) > DIGITS:
        return None
    mantissa = re.split("[eE]", written)[0]
    return Number(Fraction(written), len(mantissa.partition(".")[2]), match.start("number"))


def statements(prose: str) -> Iterator[Statement]:
    """What the prose works out: an equals sign (or `is`, `gives`, `equals`) between an operation on numbers and a number."""
    for match in _EQUALS.finditer(prose):
        result = _number(match)
        begin = max(prose.rfind("\n", 0, match.start()) + 1, match.start() - WINDOW)
        left = _left(_BULLET.sub("", prose[begin : match.start()]))
        if result and left:
            length, operands, operation = left
            yield Statement(operands, operation, result, match.start() - length, match.end())


def _left(text: str) -> tuple[int, tuple[Fraction, ...], Operation | None] | None:
    """The operation on numbers that ends `text`: its length, its operands, and itself where it is one and stands alone."""
    operands: list[Fraction] = []
    signs: list[str] = []
    begin = len(text)
    for token in reversed(list(_TOKEN.finditer(text))):
        if token["skip"]:
            continue
        if token["number"] and len(operands) == len(signs):
            number = _number(token)
            if number is None:
                return None
            operands.insert(0, number.value)
            begin = token.start()
        elif token["sign"] and len(operands) == len(signs) + 1:
            signs.insert(0, _SIGNS[token["sign"]])
        else:
            break
    if len(operands) < 2:
        return None
    before = text[:begin]
    apart = not before[-1:].isalnum() and not before.rstrip()[-1:].isdigit()
    alone = len(signs) == 1 and len(operands) == 2 and apart and _balanced(text[begin:])
    return len(text) - begin, tuple(operands), operation(signs[0], *operands) if alone else None


def _balanced(text: str) -> bool:
    return all(text.count(opening) == text.count(closing) for opening, closing in ("()", "[]", "{}"))


def operation(sign: str, first: Fraction, second: Fraction) -> Operation:
    return Operation(sign, *(sorted((first, second)) if sign in "+*" and sign != "**" else (first, second)))


@dataclass(frozen=True, slots=True)
class Code:
    """What a cell's code says: the numbers in it, its operations on numbers that can be read off it, its form without comments and
    layout, and whether it works something out (rather than print what is known). Code that cannot be parsed has numbers only.
    """

    numbers: frozenset[Fraction]
    operations: frozenset[Operation] = frozenset()
    form: str | None = None
    works: bool = False

    @property
    def values(self) -> frozenset[Fraction]:
        """What these operations give: numbers that the code has, though they stand nowhere in it."""
        return frozenset(value for operation in self.operations if (value := operation.value) is not None)


def code(text: str) -> Code:
    found = frozenset(number.value for number in numbers(re.sub(r"(?<=\d)_(?=\d)", "", text)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `"\d"` in a model's code is none of ours
            tree = ast.parse(text)
        nodes = list(ast.walk(tree))
        known = _Known(tree, nodes)
        done = frozenset(made for node in nodes if isinstance(node, ast.BinOp) and (made := known.operation(node)))
        return Code(found, done, ast.dump(tree), any(map(_works, nodes)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Code(found)


class _Known:
    """What can be read off a cell without running it: names that are bound once, at its top, to a number or to an operation on
    known numbers, and the operations on such numbers.
    """

    def __init__(self, tree: ast.Module, nodes: list[ast.AST]) -> None:
        self._names: dict[str, Fraction] = {}
        self._done: dict[ast.BinOp, Operation | None] = {}
        bound = Counter(node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
        for statement in tree.body:
            if isinstance(statement, ast.Assign) and isinstance(name := statement.targets[0], ast.Name):
                value = self.value(statement.value)
                if value is not None and bound[name.id] == 1:
                    self._names[name.id] = value

    def operation(self, node: ast.BinOp) -> Operation | None:
        if node not in self._done:
            sign, first, second = _OPERATORS.get(type(node.op)), self.value(node.left), self.value(node.right)
            if sign is None or first is None or second is None:
                self._done[node] = None
            else:
                self._done[node] = operation(sign, first, second)
        return self._done[node]

    def value(self, node: ast.expr) -> Fraction | None:
        match node:
            case ast.Name():
                return self._names.get(node.id)
            case ast.BinOp():
                done = self.operation(node)
                return done.value if done else None
            case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
                written = str(node.value)  # a float as it is printed: 0.1 is a tenth
                return abs(Fraction(written)) if len(written) <= DIGITS and written not in ("inf", "nan") else None
        return None


def _works(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr if isinstance(node.func, ast.Attribute) else ""
        return name not in _SHOWING
    return isinstance(node, _WORK)
