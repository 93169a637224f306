"""What a user gets: the built wheel, in an environment that has nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.timeout(900)  # the first test waits for an environment to be filled

SOLVE = """
import json, sys, toolreason
done = toolreason.solve("6*7?", answer="42", strategy="artist", policy=f"scripted:{sys.argv[1]}", sandbox="local")
print(json.dumps([done.stop, done.verdict.judgement, [segment.source for segment in done.segments]]))
"""
REPLIES = ["<think>I compute it.</think>\n<python>print(6*7)</python>", "<answer>\\boxed{42}</answer>"]


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=800)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    return next(out.glob("toolreason-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The directory of a new environment's programs, with the wheel and its core dependencies."""
    run(sys.executable, "-m", "venv", wheel.parent / "env", cwd=wheel.parent)
    programs = wheel.parent / "env" / "bin"
    constraints = ROOT / "constraints" / "cpu.txt"
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "-c", constraints]
    run(programs / "python", "-m", "pip", "install", *options, wheel, cwd=wheel.parent)
    return programs


def test_the_wheel_has_graphs_sandbox_and_data_once_each(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    expected = {str(file.relative_to(ROOT)) for room in ("graphs", "sandbox") for file in (ROOT / room).glob("*") if file.is_file()}
    assert {f"toolreason/{name}" for name in expected} <= set(names)
    data = {"toolreason/models.toml", "toolreason/hints.toml", "toolreason/execution/attacks.toml"}
    assert {"toolreason/py.typed", *data} <= set(names)
    assert len(names) == len(set(names))
    assert {name.split("/")[0].split("-")[0] for name in names} == {"toolreason"}
    assert not [name for name in names if "__pycache__" in name]


def test_the_command_works(installed: Path, tmp_path: Path) -> None:
    assert "collect" in run(installed / "toolreason", "--help", cwd=tmp_path)


def test_the_graphs_and_the_sandboxes_files_are_found(installed: Path, tmp_path: Path) -> None:
    code = """
from importlib.metadata import entry_points
from importlib.resources import files
for point in entry_points(group="toolreason.strategies"): point.load()
assert files("toolreason").joinpath("sandbox/Dockerfile").is_file()
assert files("toolreason").joinpath("sandbox/runner.py").is_file()
import toolreason.graphs.artist as artist
print(artist.__file__)
"""
    assert str(installed.parent) in run(installed / "python", "-c", code, cwd=tmp_path)


def test_a_scripted_rollout_runs_end_to_end(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "replies.json").write_text(json.dumps(REPLIES))
    (tmp_path / "solve.py").write_text(SOLVE)
    output = run(installed / "python", "solve.py", "replies.json", cwd=tmp_path)
    assert json.loads(output.splitlines()[-1]) == ["answered", "correct", ["prompt", "model", "tool", "model"]]
