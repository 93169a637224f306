"""The template of a package with a strategy: installed from its folder it is found by name, and its own test passes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).parent.parent / "examples" / "own_strategy"


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    where = tmp_path_factory.mktemp("site")
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(where),
        str(TEMPLATE),
    ]
    subprocess.run(install, check=True, timeout=120)
    return {**os.environ, "PYTHONPATH": str(where)}


def test_its_own_test_passes(env: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(TEMPLATE / "tests")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False, cwd=TEMPLATE)
    assert done.returncode == 0, done.stdout


def test_the_commands_find_it_by_its_name(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps(["It is \\boxed{41}.", " Ah, \\boxed{42}."]))
    command = [sys.executable, "-m", "toolreason", "solve", "6 times 7?", "--answer", "42", "--strategy", "second_look"]
    command += ["--policy", f"scripted:{tmp_path / 's.json'}", "--set", "looks=1", "--json"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"]["judgement"] == "correct"
