"""Code of tools never runs on the host: what runs code is what the sandbox is sent, and the host imports none of it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import toolreason

PACKAGE = Path(toolreason.__file__).parent
SENT = {"trial_cell", "core_cell", "coverage_cell", "toolbox", "pictures"}  # their text goes into the sandbox
RUNS = {
    "exec",
    "eval",
    "compile",
    "__import__",
    "import_module",
    "run_path",
    "run_module",
    "exec_module",
    "spec_from_file_location",
}
HOST = sorted(file for folder in ("tools", "graphs") for file in (PACKAGE / folder).glob("*.py") if file.stem not in SENT)


def called(tree: ast.AST) -> list[str]:
    """Names that are called, plain or as attributes; `re.compile` and a graph's `compile` are no Python's."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            names.append(node.func.id)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr != "compile":
            names.append(node.func.attr)
    return names


@pytest.mark.parametrize("file", HOST, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_the_host_runs_no_code_and_imports_nothing_that_the_sandbox_is_sent(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert not RUNS & set(called(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            imported = {(node.module or "").split(".")[-1], *(alias.name for alias in node.names)}
            if (node.module or "").startswith("toolreason.tools"):
                assert not SENT & imported
        elif isinstance(node, ast.Import):
            assert not any(alias.name.rpartition(".")[2] in SENT for alias in node.names if "toolreason" in alias.name)


def test_what_the_sandbox_is_sent_is_there() -> None:
    for name in SENT:
        assert (PACKAGE / "tools" / f"{name}.py").is_file()
