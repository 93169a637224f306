"""Tools that are the same code: equal once all that does not change what a call gives back is taken away.

What counts for nothing: layout, comments, docstrings, annotations, imports that nothing uses, the order of imports, the tool's own
name, the names of its helpers and of local variables. Parameters keep their names: a tool is called by them.
"""

from __future__ import annotations

import ast
from collections.abc import Container, Iterable

from toolreason.errors import InputError
from toolreason.tools import signature
from toolreason.tools.package import ToolPackage

Function = ast.FunctionDef | ast.AsyncFunctionDef


def normal_form(package: ToolPackage) -> str:
    """Equal for two tools that are the same code. The code itself where it cannot be read."""
    try:
        return dumped(package.code)
    except (InputError, RecursionError):
        return package.code


def exact_groups(forms: dict[str, str]) -> list[list[str]]:
    """The names of tools with the same form, in the order given; groups of two or more. `forms`: by name, anything that
    is equal where the code is the same."""
    groups: dict[str, list[str]] = {}
    for name, form in forms.items():
        groups.setdefault(form, []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def dumped(code: str) -> str:
    """The normalised tree of a module as text. Raises InputError where it is no Python, RecursionError where it is too deep."""
    tree = signature.parse(code)
    tree.body = _stripped(tree.body)
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    tree.body = [node for node in tree.body if node not in imports]
    names = _numbered(_module_names(tree))
    used: set[str] = set()
    for node in tree.body:
        inside = list(ast.walk(node))
        used |= {one.id for one in inside if isinstance(one, ast.Name)}
        known = names | _numbered(_locals(node, inside, names), "$") if isinstance(node, Function | ast.ClassDef) else names
        for one in inside:
            _rename(one, known)
    return "\n".join([*sorted(_used(imports, used)), ast.dump(tree, annotate_fields=False)])


def _stripped(body: list[ast.stmt], in_class: bool = False) -> list[ast.stmt]:
    """Statements without docstrings, annotations and constants that stand alone. The fields of a class stay fields."""
    kept: list[ast.stmt] = []
    for node in body:
        match node:
            case ast.Expr(value=ast.Constant()):
                continue
            case ast.AnnAssign(value=None) if not in_class:
                continue
            case ast.AnnAssign(target=target, value=ast.expr() as value) if not in_class:
                node = ast.Assign([target], value)
            case ast.AnnAssign():
                node.annotation = ast.Constant(None)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                node.returns = None
                for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg):
                    if one is not None:
                        one.annotation = None
        for part in ("body", "orelse", "finalbody"):
            if isinstance(inner := getattr(node, part, None), list) and inner:
                setattr(node, part, _stripped(inner, isinstance(node, ast.ClassDef)) or [ast.Pass()])
        for clause in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            clause.body = _stripped(clause.body) or [ast.Pass()]
        kept.append(node)
    return kept


def _rename(node: ast.AST, names: dict[str, str]) -> None:
    match node:
        case ast.Name():
            node.id = names.get(node.id, node.id)
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            node.name = names.get(node.name, node.name)
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            node.name = names.get(name, name)
        case ast.MatchMapping(rest=str(name)):
            node.rest = names.get(name, name)
        case ast.Global() | ast.Nonlocal():
            node.names = [names.get(one, one) for one in node.names]


def _numbered(names: Iterable[str], mark: str = "@") -> dict[str, str]:
    return {name: f"{mark}{number}" for number, name in enumerate(dict.fromkeys(names))}


def _module_names(tree: ast.Module) -> list[str]:
    """What the module itself defines, the tool first."""
    found = [node.name for node in signature.functions(tree)]
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef):
            found.append(node.name)
        else:
            found += [one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)]
    return found


def _locals(top: ast.AST, inside: list[ast.AST], known: Container[str]) -> list[str]:
    """Names that are bound inside, but parameters, class members and what the module knows by that name."""
    bound: list[str] = []
    fixed: set[str] = set()
    for node in inside:
        if isinstance(node, ast.arg):
            fixed.add(node.arg)
        elif isinstance(node, ast.Global):
            fixed |= set(node.names)
        elif isinstance(node, ast.ClassDef):
            fixed |= {one.name for one in node.body if isinstance(one, Function)}
            fixed |= {one.id for part in node.body for one in ast.walk(part) if isinstance(one, ast.Name)}
        if node is not top:
            bound += _binds(node)
    return [name for name in bound if name not in fixed and name not in known]


def _binds(node: ast.AST) -> list[str]:
    match node:
        case ast.Name(id=name, ctx=ast.Store()):
            return [name]
        case ast.FunctionDef(name=name) | ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
            return [name]
        case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
            return [name]
    return []


def _used(imports: list[ast.Import | ast.ImportFrom], names: set[str]) -> set[str]:
    """The imports that bind one of the names."""
    found = set()
    for node in imports:
        module = f"{'.' * node.level}{node.module or ''}" if isinstance(node, ast.ImportFrom) else ""
        for alias in node.names:
            if (alias.asname or alias.name).split(".")[0] in names:
                found.add(f"{module} {alias.name} {alias.asname or ''}")
    return found
