"""The gate's rules for code: one public function, nothing that acts on import, imports from a list, no games with names."""

from __future__ import annotations

import ast
import re
import symtable
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from toolreason.errors import InputError
from toolreason.tools import signature
from toolreason.tools.gate import Finding, lists

if TYPE_CHECKING:
    from toolreason.tools.gate import GateSettings

DUNDER = re.compile(r"__\w+__")
PLAIN_DUNDERS, FOOLING, ATTRIBUTES = (lists()["names"][key] for key in ("dunders", "fooling", "attributes"))
DECORATORS, CONSTRUCTORS = lists()["top"]["decorators"], lists()["top"]["constructors"]
SAFE_GETATTR = re.compile(r"(?!_)\w+")


def findings(code: str, name: str, settings: GateSettings) -> list[Finding]:
    try:
        tree = signature.parse(code)
    except InputError as error:
        return [Finding("syntax", str(error))]
    found = [*top_level(tree), *imported(tree, name, settings), *names(code, tree, settings), *reached(tree), *patched(tree)]
    try:
        read = signature.read(code, name)
        if not read.description:
            found.append(Finding("docstring", f"{name} has no docstring: say what it computes, of what, and what it gives back"))
    except InputError as error:
        found.append(Finding("signature", str(error)))
    return found


def top_level(tree: ast.Module, *, public_classes: bool = False) -> Iterator[Finding]:
    """Only imports, constants and definitions: importing a tool does nothing."""
    yield from _body(tree.body, tree)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not public_classes:
            yield Finding("name", f"class {node.name} is public: a tool offers one function, its helpers begin with _", node.lineno)


def _body(body: list[ast.stmt], owner: ast.AST) -> Iterator[Finding]:
    for position, node in enumerate(body):
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Pass():
                pass
            case ast.Expr(ast.Constant(str())) if position == 0:
                pass
            case ast.Assign(targets=targets) if all(isinstance(one, ast.Name | ast.Tuple) for one in targets):
                yield from _constant(node.value)
            case ast.AnnAssign(target=ast.Name()):
                yield from _constant(node.value)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _definition(node)
            case ast.ClassDef():
                yield from _class(node)
            case _:
                yield Finding("statement", f"{_what(node)} at the top acts on import: put it into a function", node.lineno)


def _what(node: ast.AST) -> str:
    return "a call" if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else f"a statement ({type(node).__name__})"


def _definition(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Finding]:
    for decorator in node.decorator_list:
        if _called(decorator) not in DECORATORS:
            yield Finding("statement", f"the decorator of {node.name} acts on import", decorator.lineno)
        if isinstance(decorator, ast.Call):
            for value in (*decorator.args, *(keyword.value for keyword in decorator.keywords)):
                yield from _constant(value)
    for default in (*node.args.defaults, *node.args.kw_defaults):
        yield from _constant(default)


def _class(node: ast.ClassDef) -> Iterator[Finding]:
    if node.keywords:
        yield Finding("statement", f"class {node.name}: keywords such as metaclass act on import", node.lineno)
    for decorator in node.decorator_list:
        if _called(decorator) not in DECORATORS:
            yield Finding("statement", f"the decorator of {node.name} acts on import", decorator.lineno)
    for base in node.bases:
        yield from _constant(base)
    yield from _body(node.body, node)
    for inner in ast.walk(node):
        if isinstance(inner, ast.FunctionDef) and inner.name in FOOLING:
            yield Finding("attribute", f"{inner.name} makes objects that can pass for others", inner.lineno)


def _constant(node: ast.expr | None) -> Iterator[Finding]:
    """The value of a constant: literals, names, arithmetic, comprehensions, and calls that only make a value."""
    if node is None:
        return
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call) and _called(inner) not in CONSTRUCTORS:
            yield Finding("statement", f"a call of {_called(inner) or 'something'} at the top acts on import", inner.lineno)
        elif isinstance(inner, ast.Await | ast.Yield | ast.YieldFrom | ast.NamedExpr):
            yield Finding("statement", f"{type(inner).__name__} at the top acts on import", inner.lineno)


def _called(node: ast.expr) -> str:
    target = node.func if isinstance(node, ast.Call) else node
    return target.attr if isinstance(target, ast.Attribute) else target.id if isinstance(target, ast.Name) else ""


def imported(tree: ast.Module, name: str, settings: GateSettings, *, tests: bool = False) -> Iterator[Finding]:
    for module, node in signature.imports(tree):
        root, names = module.split(".")[0], [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
        line = node.lineno
        if root == signature.TOOLBOX:
            if module != signature.TOOLBOX or not names:
                yield Finding("import", f"write `from {signature.TOOLBOX} import other`", line)
            if name in names and not tests:
                yield Finding("import", f"{name} imports itself", line)
        elif not module:
            yield Finding("import", "a relative import leads nowhere: a tool is one file", line)
        elif module != "__future__" and root not in settings.imports:
            yield Finding("import", f"{root} is not among the modules that a tool may import", line)
        if "*" in names:
            yield Finding("import", "import * hides what is used", line)
        for taken in (*names, *module.split(".")[1:]):
            if taken.startswith("_") or taken in ATTRIBUTES:
                yield Finding("import", f"{taken} of {root} is not for tools", line)


def names(code: str, tree: ast.Module, settings: GateSettings) -> Iterator[Finding]:
    """Forbidden built-ins, wherever they are meant: a parameter named `input` is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tables = [symtable.symtable(code, "tool", "exec")]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        yield Finding("syntax", f"the code is no Python: {error}", getattr(error, "lineno", 0) or 0)
        return
    meant = set()
    while tables:
        table = tables.pop()
        tables += table.get_children()
        meant |= {one.get_name() for one in table.get_symbols() if one.is_referenced() and one.is_global()}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            if node.id in settings.calls and node.id in meant:
                yield Finding("call", f"{node.id} is not for tools", node.lineno)
            elif DUNDER.fullmatch(node.id) and node.id not in PLAIN_DUNDERS:
                yield Finding("attribute", f"{node.id} is not for tools", node.lineno)


def reached(tree: ast.Module) -> Iterator[Finding]:
    """Attributes and texts that lead into the interpreter or into other modules."""
    docstrings = {id(node) for node in _docstrings(tree)}
    roots = _imported_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            private = node.attr.startswith("_") and _root(node) in roots
            dunder = DUNDER.fullmatch(node.attr) and node.attr not in PLAIN_DUNDERS
            if dunder or private or node.attr in ATTRIBUTES:
                yield Finding("attribute", f".{node.attr} is not for tools", node.lineno)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            if any(one not in PLAIN_DUNDERS for one in DUNDER.findall(node.value)):
                yield Finding("attribute", "a text names the interpreter's own attributes", node.lineno)
        elif isinstance(node, ast.Call) and _called(node) in ("getattr", "hasattr", "attrgetter", "methodcaller"):
            for value in node.args[1:] if _called(node) in ("getattr", "hasattr") else node.args:
                if value is node.args[-1] and _called(node) == "getattr" and len(node.args) == 3:
                    continue  # the default
                plain = isinstance(value, ast.Constant) and isinstance(value.value, str) and SAFE_GETATTR.match(value.value)
                if not plain:
                    yield Finding("attribute", f"{_called(node)} takes the plain name of a public attribute", node.lineno)


def patched(tree: ast.Module) -> Iterator[Finding]:
    """Changes to what is not the tool's own: attributes and items of modules and of what comes from them."""
    roots = _imported_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del) and _root(node) in roots:
            yield Finding("patch", f"it changes {_root(node)}, which is not its own", node.lineno)


def _imported_names(tree: ast.Module) -> set[str]:
    return {(alias.asname or alias.name).split(".")[0] for _, node in signature.imports(tree) for alias in node.names}


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.body:
            match node.body[0]:
                case ast.Expr(ast.Constant(str()) as text):
                    yield text
