"""The house has floors: an import never points up."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "toolreason"

LAYERS = (
    {"types", "errors"},
    {"tokens", "durable", "options", "charts", "attachments", "tracing"},
    {"formats", "hints", "policies", "execution", "tools", "verify", "models", "modelfiles", "problems", "sources", "functions"},
    {"strategies"},
    {"graphs"},
    {
        "arithmetic",
        "narrative",
        "failures",
        "stats",
        "scaling",
        "render",
        "render_tables",
        "live_view",
        "engine_counters",
        "rollouts",
        "runs",
        "collect",
        "curate",
        "export",
        "adapters",
        "serve",
    },
    {"compare"},
    {"train"},
    {"view"},
    {"cli", "commands", "demo", "doctor", "__init__", "__main__"},  # `toolreason` itself hands out names from all floors
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def sources() -> list[Path]:
    """All modules of the package. graphs/ is reached through its link; sandbox/ is no part of the host's program."""
    graphs = sorted((PACKAGE / "graphs").glob("**/*.py"))
    rest = sorted(file for file in PACKAGE.glob("**/*.py") if file.relative_to(PACKAGE).parts[0] not in ("graphs", "sandbox"))
    return graphs + rest


def room(name: str) -> str:
    """`toolreason.policies.base` -> `policies`; the package itself, or a name that it hands out -> `__init__`."""
    part = name.split(".")[1] if "." in name else "__init__"
    return part if (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").is_file() else "__init__"


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of what is taken from toolreason, wherever in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("toolreason."))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "toolreason":
            if not node.attr.startswith("__"):  # `toolreason.__file__` is a fact, `toolreason.solve` is the roof
                yield f"toolreason.{node.attr}"
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they point"
            if node.module == "toolreason":
                yield from (f"toolreason.{alias.name}" for alias in node.names)
            elif node.module and node.module.startswith("toolreason."):
                yield node.module


def file_room(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", sources(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_import_points_up(file: Path) -> None:
    here = file_room(file)
    assert here in RANK, f"{here} has no floor: give it one in LAYERS"
    upward = [name for name in imported(ast.parse(file.read_text(encoding="utf-8"))) if RANK[room(name)] > RANK[here]]
    assert not upward


def test_the_floors_hold_every_file() -> None:
    assert len(sources()) > 20


def test_what_runs_in_the_container_knows_nothing_of_the_host() -> None:
    for file in (PACKAGE / "sandbox").glob("**/*.py"):
        assert not list(imported(ast.parse(file.read_text(encoding="utf-8")))), file
