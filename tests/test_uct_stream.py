"""A library of tools from end to end: the stream's benchmark with a policy that can do all of it, a real engine and SQLite file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from toolreason import runs

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "uct_stream.py"
COMMAND = [sys.executable, BENCHMARK, "--scripted", "--each", "2", "--held-out", "1", "--samples", "2"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stream")


@pytest.fixture(scope="module")
def found(out: Path) -> Any:
    done = subprocess.run([*COMMAND, "--out", out], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.docker
def test_each_tool_is_made_once_and_used_on_other_problems(found: Any) -> None:
    assert found["stream"]["right"] == "16/16"
    assert found["tickets"]["made"] == 8
    assert found["tickets"]["refused"] == {}
    assert found["library"] == {"by_status": {"admitted": 8}, "calls": 16, "reused_tools": 8, "reuses": 8}


@pytest.mark.docker
def test_a_frozen_library_serves_the_test_split_at_fewer_tokens_than_none(found: Any) -> None:
    assert found["held_out"]["right"] == "8/8"
    assert found["held_out"]["with_a_tool_call"] == 8
    assert found["held_out"]["tokens_of_the_builder"] == 0
    assert found["held_out"]["tokens"] < found["alone_held_out"]["tokens"]


@pytest.mark.docker
def test_the_baseline_gets_the_tokens_that_the_builder_spent(found: Any) -> None:
    (one,) = found["alone, majority at equal tokens"]
    assert one["limit"] == pytest.approx(found["stream"]["tokens"], abs=0.1)
    assert 1 <= one["rollouts"] <= 2


@pytest.mark.docker
def test_a_second_run_does_nothing_again(found: Any, out: Path) -> None:
    before = [one.id for one in runs.read(out / "uct")]
    done = subprocess.run([*COMMAND, "--out", out], capture_output=True, text=True, timeout=250)
    assert json.loads(done.stdout.splitlines()[-1]) == found
    assert [one.id for one in runs.read(out / "uct")] == before
