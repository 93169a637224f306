"""The script that brings an engine up: quick when one runs, plain about what is wrong when none can."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ENGINE = Path(__file__).parent.parent / "scripts" / "engine.sh"


def engine(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | environment
    return subprocess.run([ENGINE, *arguments], env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)


@pytest.mark.docker
def test_a_running_engine_is_used_and_nothing_is_started() -> None:
    done = engine()
    assert done.returncode == 0, done.stderr
    assert "using the one at" in done.stderr


@pytest.mark.docker
def test_the_environment_is_shell_code_or_nothing() -> None:
    done = engine("--env")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" or done.stdout.startswith("export DOCKER_HOST=")


def test_a_chosen_engine_that_is_silent_is_named_and_not_replaced(tmp_path: Path) -> None:
    done = engine(DOCKER_HOST=f"unix://{tmp_path}/nobody.sock")
    assert done.returncode == 1
    assert f"{tmp_path}/nobody.sock does not answer" in done.stderr
