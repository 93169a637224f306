"""Importing is cheap, and the public names are a short list."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

HEAVY = {"torch", "transformers", "vllm", "trl", "docker", "fastapi", "datasets", "math_verify", "sympy", "reasoning_gym"}

PUBLIC = [
    "Cell",
    "CellResult",
    "Judgement",
    "Outcome",
    "Problem",
    "Reference",
    "ReferenceKind",
    "Sampling",
    "Segment",
    "SessionBook",
    "Source",
    "StopReason",
    "Trajectory",
    "Verdict",
    "Verifier",
    "open_policy",
    "open_sandbox",
    "reasoner",
    "rollout",
    "runs",
    "solve",
]


def loaded_by(statement: str) -> set[str]:
    code = f"import json, sys; {statement}; print(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return set(json.loads(run.stdout))


@pytest.mark.parametrize("module", ["toolreason", "toolreason.cli", "toolreason.graphs.artist", "toolreason.doctor"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    assert not loaded_by(f"import {module}") & HEAVY


def test_importing_the_package_does_not_even_load_langgraph() -> None:
    assert not loaded_by("import toolreason") & {"langgraph", "langchain_core", "typer"}


def test_public_names() -> None:
    import toolreason

    assert sorted(toolreason.__all__) == PUBLIC
    assert sorted(name for name in PUBLIC if isinstance(getattr(toolreason, name), ModuleType)) == ["runs"]


def test_a_public_name_stays_what_it_is_when_the_module_of_that_name_is_imported() -> None:
    import toolreason

    for info in pkgutil.iter_modules(toolreason.__path__):
        if info.name in PUBLIC:
            importlib.import_module(f"toolreason.{info.name}")
    assert sorted(name for name in PUBLIC if isinstance(getattr(toolreason, name), ModuleType)) == ["runs"]


def test_strategies_are_found_by_their_entry_points() -> None:
    found = {point.name: point.load() for point in importlib.metadata.entry_points(group="toolreason.strategies")}
    assert {"plain", "artist", "hint_infer"} <= set(found)
    assert all(strategy.name == name for name, strategy in found.items())
