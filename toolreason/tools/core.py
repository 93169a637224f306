"""The core tools of a problem with pictures or files: the module `pictures`, in the sandbox beside them (UCT, arXiv 2602.01983).

All of it gets there by a cell, so that whoever runs cells by a `SessionBook` has them again where a session is built anew.
"""

from __future__ import annotations

import ast
import base64
from collections.abc import Sequence
from functools import cache
from importlib import resources

from toolreason import attachments
from toolreason.errors import SandboxError
from toolreason.execution.base import Sessions

MODULE = "pictures"


def install_code(paths: Sequence[str]) -> str:
    """The cell that writes these files and the module `pictures` into the session's work folder. The same files give the same code,
    and it may run again. Raises ProblemError for a file that cannot be read or taken.
    """
    files = {one.name: one.data for one in attachments.read(paths)} | {f"{MODULE}.py": _source(f"{MODULE}.py").encode()}
    packed = {name: base64.b64encode(data).decode() for name, data in files.items()}
    return f"(lambda names: (exec({_source('core_cell.py')!r}, names), names['install']({packed!r}), None))({{}})[2]"


async def install(sessions: Sessions, key: str, paths: Sequence[str]) -> list[tuple[str, str]]:
    """Have the files in the session of `key` before its next cell: the (call id, code) with which the history of that cell begins.

    Runs once in a session, however often it is called; with no files nothing runs. Raises ProblemError, and SandboxError where the
    session does not take them.
    """
    if not paths:
        return []
    call_id, code = f"{key}:files", install_code(paths)
    result = await sessions.run(key, call_id, code)
    if not result.ok:
        raise SandboxError(f"the problem's files could not be put into the session: {result.error or result.outcome}")
    return [(call_id, code)]


@cache
def functions(*, pictures: bool = True) -> list[tuple[str, str]]:
    """The module's functions, as a prompt names them: each call, and the first line of what it does. Without `pictures` those for
    other files only.
    """
    tree = ast.parse(_source(f"{MODULE}.py"))
    found: list[tuple[str, str]] = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and (pictures or node.name == "read"):
            found.append((_call(node), (ast.get_docstring(node) or "").partition("\n")[0]))
    return found


def _call(node: ast.FunctionDef) -> str:
    """The signature without types."""
    names = [one.arg for one in node.args.args]
    defaults = [ast.unparse(one) for one in node.args.defaults]
    bare = len(names) - len(defaults)
    return f"{node.name}({', '.join([*names[:bare], *map('='.join, zip(names[bare:], defaults, strict=True))])})"


@cache
def _source(file: str) -> str:
    return (resources.files("toolreason.tools") / file).read_text(encoding="utf-8")
