"""A tool's typed signature, read from its code by `ast` alone: the JSON schema of its arguments, what it imports, its docstring."""

from __future__ import annotations

import ast
import sys
import warnings
from dataclasses import dataclass, replace
from typing import Any

from toolreason.errors import InputError
from toolreason.tools.package import Status, Ticket, ToolPackage
from toolreason.tools.typehints import json_value, schema

TOOLBOX = "toolbox"


@dataclass(frozen=True, slots=True)
class Signature:
    """What the code of a tool says of it. `requirements` are imported modules beyond Python's own, `tools` other tools."""

    name: str
    parameters: dict[str, Any]
    description: str
    requirements: tuple[str, ...]
    tools: tuple[str, ...]


def parse(code: str, what: str = "the code") -> ast.Module:
    """The tree of a module that a model may have written. Raises InputError with the line where it is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in literals
            return ast.parse(code)
    except SyntaxError as error:
        raise InputError(f"{what} is no Python: {error.msg} in line {error.lineno}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise InputError(f"{what} is no Python that can be read: {error or type(error).__name__}") from error


def functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The public functions at the top."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]


def read(code: str, name: str | None = None) -> Signature:
    """The signature of the one public function in `code`. Raises InputError that says all that is missing."""
    tree = parse(code)
    found = functions(tree)
    if len(found) != 1:
        there = ", ".join(node.name for node in found) or "none"
        raise InputError(f"a tool defines one public function (helpers begin with _): there is {there}")
    (function,) = found
    if name is not None and function.name != name:
        raise InputError(f"the tool is named {name}, and its function {function.name}: give both one name")
    if faults := missing(function):
        raise InputError(f"the signature of {function.name}: {'; '.join(faults)}")
    return Signature(
        function.name,
        parameters(function),
        (ast.get_docstring(function) or ast.get_docstring(tree) or "").strip(),
        requirements(tree),
        other_tools(tree, function.name),
    )


def missing(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """What the signature lacks, or has too much, to be called by name with JSON."""
    arguments, faults = function.args, []
    if isinstance(function, ast.AsyncFunctionDef):
        faults.append("async def: a tool is a plain function")
    if arguments.posonlyargs:
        faults.append("positional-only parameters: tools are called by name")
    for star, sign in ((arguments.vararg, "*"), (arguments.kwarg, "**")):
        if star is not None:
            faults.append(f"{sign}{star.arg}: name each parameter")
    bare = [one.arg for one in (*arguments.args, *arguments.kwonlyargs) if one.annotation is None]
    if bare:
        faults.append(f"no type for {', '.join(bare)}")
    if function.returns is None:
        faults.append("no type of the result (-> ...)")
    return faults


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, Any]:
    """The JSON schema of the arguments. A parameter with a default is optional."""
    properties, required = {}, []
    for parameter, default in _with_defaults(function.args):
        properties[parameter.arg] = schema(parameter.annotation)
        if default is None:
            required.append(parameter.arg)
            continue
        known, value = json_value(default)
        if known:
            properties[parameter.arg]["default"] = value
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def annotated(code: str) -> dict[str, ast.expr | None]:
    """The annotations of the tool's parameters by name."""
    (function,) = functions(parse(code))
    return {parameter.arg: parameter.annotation for parameter, _ in _with_defaults(function.args)}


def requirements(tree: ast.Module) -> tuple[str, ...]:
    """Top-level modules that are imported beyond Python's own and other tools, sorted."""
    roots = {name.split(".")[0] for name, _ in imports(tree)}
    return tuple(sorted(roots - set(sys.stdlib_module_names) - {TOOLBOX, ""}))


def imports(tree: ast.AST) -> list[tuple[str, ast.Import | ast.ImportFrom]]:
    """Every module that is imported, wherever in the code; "" for a relative one."""
    found: list[tuple[str, ast.Import | ast.ImportFrom]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(("" if node.level else node.module or "", node))
    return found


def other_tools(tree: ast.AST, name: str) -> tuple[str, ...]:
    """The tools taken by `from toolbox import other`, sorted, without `name` itself."""
    named = {
        alias.name
        for module, node in imports(tree)
        if module == TOOLBOX and isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return tuple(sorted(named - {name}))


def package(
    code: str,
    tests: str,
    *,
    description: str | None = None,
    category: str = "general",
    author: str = "human",
    ticket: Ticket | None = None,
    parents: tuple[str, ...] = (),
) -> ToolPackage:
    """A candidate of what a person or a model wrote: name, schema and requirements are the code's. The docstring is the description
    where none is given. Raises InputError.
    """
    code, tests = tidy(code), tidy(tests)
    found = read(code)
    return ToolPackage(
        name=found.name,
        description=(found.description if description is None else description).strip(),
        code=code,
        tests=tests,
        parameters=found.parameters,
        category=category,
        requirements=found.requirements,
        parents=parents,
        ticket=ticket,
        author=author,
    )


def edited(old: ToolPackage, code: str, tests: str, *, description: str | None = None, author: str = "human") -> ToolPackage:
    """A candidate that follows `old`, made from other code or tests. Raises InputError, also where the name is another."""
    code = tidy(code)
    found = read(code, old.name)
    return replace(
        old,
        description=old.description if description is None else description,
        code=code,
        tests=tidy(tests),
        parameters=found.parameters,
        requirements=found.requirements,
        parents=(old.identity,),
        author=author,
        status=Status.CANDIDATE,
        reason="",
        created="",
    )


def tidy(source: str) -> str:
    """One form of line ends, and one at the end."""
    return source.replace("\r\n", "\n").strip("\n") + "\n"


def _with_defaults(arguments: ast.arguments) -> list[tuple[ast.arg, ast.expr | None]]:
    plain = arguments.args
    defaults: list[ast.expr | None] = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    return [*zip(plain, defaults, strict=False), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=False)]
