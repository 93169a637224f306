"""The tests of several tools as the tests of one: `from toolbox import member` becomes `from toolbox import merged as member`.

Each member's test file keeps its meaning: what it defines at its top and another file defines otherwise gets another name.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from toolreason.tools import signature
from toolreason.tools.gate_tests import test_functions

Import = ast.Import | ast.ImportFrom
Named = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def aimed_at(source: str, member: str, merged: str) -> str:
    """The code or tests of `source` with `merged` in the place of `member`, under its old name. Raises InputError."""
    return ast.unparse(_aimed(signature.parse(source, "the test file"), member, merged)) + "\n"


def union(merged: str, tests: str, others: Sequence[tuple[str, str]]) -> str:
    """The tests of `merged` as they are, and those of the others (name, tests) aimed at it. A test that is there already, but for
    its own name and the tool's, is left out, if it uses nothing else of its file. Raises InputError where one is no Python.
    """
    first = signature.parse(tests, "the test file")
    taken = set(_defined(first))
    seen = set(_neutral(first, merged, merged).values())
    there = {ast.dump(node) for node in first.body if isinstance(node, Import)}
    added: list[ast.stmt] = []
    for number, (member, source) in enumerate(others, 2):
        tree = _aimed(signature.parse(source, f"the test file of {member}"), member, merged)
        alone = _neutral(tree, member, merged)
        doubles = {name for name, what in alone.items() if what in seen}
        seen |= set(alone.values())
        tree.body = [node for node in tree.body if not (isinstance(node, Named) and node.name in doubles)]
        tree.body = [node for node in tree.body if not (isinstance(node, Import) and ast.dump(node) in there)]
        clashing = [name for name in _defined(tree) if name in taken]
        tree = _Renamed({name: _free(name, number, taken) for name in clashing}).visit(tree)
        taken |= set(_defined(tree))
        there |= {ast.dump(node) for node in tree.body if isinstance(node, Import)}
        if test_functions(tree):
            added += tree.body
    if not added:
        return signature.tidy(tests)
    imports = [node for node in added if isinstance(node, Import)]
    rest = [node for node in added if not isinstance(node, Import)]
    text = "\n\n\n".join(["\n".join(map(ast.unparse, imports)), *map(ast.unparse, rest)])
    return signature.tidy(f"{signature.tidy(tests)}\n\n{text.strip()}")


def _aimed(tree: ast.Module, member: str, merged: str) -> ast.Module:
    for module, node in signature.imports(tree):
        if module == signature.TOOLBOX and isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name == member != merged:
                    alias.name, alias.asname = merged, alias.asname or member
                    alias.asname = None if alias.asname == merged else alias.asname
    return tree


def _defined(tree: ast.Module) -> list[str]:
    """The names that a module binds at its top; those of imports too."""
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, Import):
            names += [(alias.asname or alias.name).split(".")[0] for alias in node.names]
        elif isinstance(node, Named):
            names.append(node.name)
        else:
            names += [one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)]
    return list(dict.fromkeys(names))


def _free(name: str, number: int, taken: set[str]) -> str:
    while (new := f"{name}_{number}") in taken:
        number += 1
    taken.add(new)
    return new


def _neutral(tree: ast.Module, member: str, merged: str) -> dict[str, str]:
    """What each test does, without its name and the tool's, by its name. Tests that use what else their file defines are left out:
    there the same words may mean something else.
    """
    tests = test_functions(tree)
    own = set(_defined(ast.Module([node for node in tree.body if not isinstance(node, Import)], [])))
    found = {}
    for test in tests:
        body = ast.parse(ast.unparse(ast.Module(test.body, [])))
        names = [node for node in ast.walk(body) if isinstance(node, ast.Name)]
        if own & {node.id for node in names}:
            continue
        for node in names:
            node.id = "@" if node.id in (member, merged) else node.id
        found[test.name] = ast.dump(body)
    return found


class _Renamed(ast.NodeTransformer):
    """Other names for what a module defines, but not where a function has the name for something of its own."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> Any:
        node.id = self._names.get(node.id, node.id)
        return node

    def visit_Import(self, node: ast.Import) -> Any:
        for alias in node.names:
            if (bound := alias.asname or alias.name) in self._names:  # `import a.b` binds a, and is there already or clashes
                alias.asname = self._names[bound]
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> Any:
        for alias in node.names:
            if (bound := alias.asname or alias.name) in self._names:
                alias.asname = self._names[bound]
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        node.name = self._names.get(node.name, node.name)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> Any:
        return self._function(node)

    def _function(self, node: Any) -> Any:
        node.name = self._names.get(node.name, node.name)
        own = {one.arg for one in ast.walk(node) if isinstance(one, ast.arg)}
        own |= {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
        own |= set(_defined(ast.Module([one for one in ast.walk(node) if isinstance(one, Import)], [])))
        inner = _Renamed({old: new for old, new in self._names.items() if old not in own})
        node.body = [inner.visit(one) for one in node.body]
        return node
