"""The gate's rules for tests: functions `test_*` without parameters, each an assertion away from being true by itself."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from toolreason.errors import InputError
from toolreason.tools import gate_code, signature
from toolreason.tools.gate import Finding

if TYPE_CHECKING:
    from toolreason.tools.gate import GateSettings


def findings(tests: str, name: str, settings: GateSettings) -> list[Finding]:
    try:
        tree = signature.parse(tests, "the test file")
    except InputError as error:
        return [Finding("syntax", f"tests: {error}")]
    found = [*gate_code.top_level(tree), *gate_code.imported(tree, name, settings, tests=True)]
    found += [*gate_code.names(tests, tree, settings), *gate_code.reached(tree), *gate_code.patched(tree)]
    found = [Finding(one.rule, f"tests: {one.message}", one.line) for one in found]
    functions = test_functions(tree)
    if len({one.name for one in functions}) != len(functions):
        found.append(Finding("tests", "tests: two of them have one name"))
    if len(functions) > settings.most_tests_functions:
        found.append(Finding("tests", f"tests: {len(functions)} are too many: {settings.most_tests_functions} at most"))
    for function in functions:
        plain = isinstance(function, ast.FunctionDef) and not function.decorator_list
        if not plain or any((function.args.args, function.args.kwonlyargs, function.args.vararg, function.args.kwarg)):
            found.append(Finding("tests", f"tests: {function.name} is no plain function without parameters", function.lineno))
    calls, checks = callers(tree, name), checkers(tree)
    asserting = [one for one in functions if asserts(one, calls, checks)]
    if len(asserting) < settings.least_tests:
        found.append(
            Finding(
                "tests",
                f"tests: {settings.least_tests} functions test_* are needed that assert something of what {name} gives back "
                f"(from {signature.TOOLBOX} import {name}): there are {len(asserting)}",
            )
        )
    return found


def test_functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [one for one in tree.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef) and one.name.startswith("test_")]


def test_names(tests: str) -> list[str]:
    """The tests there are, in order. Raises InputError where the file is no Python."""
    return [one.name for one in test_functions(signature.parse(tests, "the test file"))]


def callers(tree: ast.Module, name: str) -> set[str]:
    """The names whose call calls the tool: those it is imported as, and helpers that use one of them."""
    found = {
        alias.asname or alias.name
        for module, node in signature.imports(tree)
        if module == signature.TOOLBOX and isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name == name
    }
    helpers = [one for one in tree.body if isinstance(one, ast.FunctionDef) and not one.name.startswith("test_")]
    grown = True
    while found and grown:
        more = {one.name for one in helpers if _mentions(one, found)} - found
        found, grown = found | more, bool(more)
    return found


def checkers(tree: ast.Module) -> set[str]:
    """Helpers that assert or raise: a test may leave the assertion to one of them."""
    helpers = [one for one in tree.body if isinstance(one, ast.FunctionDef) and not one.name.startswith("test_")]
    return {one.name for one in helpers if any(isinstance(inner, ast.Assert | ast.Raise) for inner in ast.walk(one))}


def asserts(function: ast.FunctionDef | ast.AsyncFunctionDef, calls: set[str], checks: set[str]) -> bool:
    """Whether an assertion of the test depends on a call of the tool: by value, or by where the call led."""
    flow = _Flow(set(calls), checks)
    while True:
        before = len(flow.known)
        if flow.block(function.body, False):
            return True
        if len(flow.known) == before:
            return False


class _Flow:
    """What depends on the tool in one test. `known` are the names that do; it grows as statements are read."""

    def __init__(self, known: set[str], checks: set[str]) -> None:
        self.known, self.checks = known, checks

    def block(self, body: list[ast.stmt], inside: bool) -> bool:
        """Whether there is a dependent assertion. `inside`: whether the block is reached depends on the tool."""
        found = [self.statement(node, inside) for node in body]  # all of them: `known` grows
        return any(found)

    def statement(self, node: ast.stmt, inside: bool) -> bool:
        if isinstance(node, ast.Assert):
            return inside or self.mentions(node.test)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if self.mentions(node):
                self.known.add(node.name)
            return False
        if blocks := _blocks(node):
            inside = inside or any(self.mentions(head) for head in _heads(node))
            if inside and isinstance(node, ast.For):
                self.known |= _stored(node.target)
            found = [self.block(block, inside) for block in blocks]
            return any(found)
        if not inside and not self.mentions(node):
            return False
        self.known |= _stored(node)
        match node:
            case ast.Expr(ast.Call(ast.Attribute(ast.Name(id=name)))):
                self.known.add(name)  # results.append(tool(3))
            case ast.Expr(ast.Call(ast.Name(id=name))):
                return name in self.checks
        return isinstance(node, ast.Raise)

    def mentions(self, node: ast.AST) -> bool:
        return any(isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load) and one.id in self.known for one in ast.walk(node))


def _blocks(node: ast.stmt) -> list[list[ast.stmt]]:
    found = [getattr(node, part, []) for part in ("body", "orelse", "finalbody")]
    return [block for block in (*found, *(handler.body for handler in getattr(node, "handlers", []))) if block]


def _heads(node: ast.stmt) -> list[ast.AST]:
    """What decides whether, and with what, the blocks of a statement run."""
    heads = [getattr(node, part, None) for part in ("test", "iter")] + [one.context_expr for one in getattr(node, "items", [])]
    return [head for head in (*heads, *(node.body if isinstance(node, ast.Try) else [])) if head is not None]


def _mentions(node: ast.AST, names: set[str]) -> bool:
    return any(isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load) and one.id in names for one in ast.walk(node))


def _stored(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
