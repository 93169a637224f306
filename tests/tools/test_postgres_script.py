"""scripts/postgres.sh: a server for the tests that leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from tests.tools.conftest import SCRIPT


def script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | environment
    return subprocess.run([SCRIPT, *arguments], env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=180)


def folder(address: str) -> Path:
    return Path(address.rpartition("host=")[2]).parent


def test_a_server_starts_answers_and_stops_without_a_trace() -> None:
    address = script("start").stdout.strip()
    with psycopg.connect(address) as connection:
        assert connection.execute("SELECT 6 * 7").fetchone() == (42,)
    assert folder(address).is_dir()
    assert script("stop", address).returncode == 0
    assert not folder(address).exists()
    assert script("stop", address).returncode == 0, "twice is no error"
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(address)


def test_it_ends_with_the_process_that_it_was_started_for() -> None:
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    address = script("start", str(owner.pid)).stdout.strip()
    assert folder(address).is_dir()
    owner.kill()
    owner.communicate()
    end = time.monotonic() + 60
    while folder(address).exists() and time.monotonic() < end:
        time.sleep(0.2)
    assert not folder(address).exists()


def test_what_is_wrong_is_said_plainly(tmp_path: Path) -> None:
    done = script("install", TOOLREASON_PG_BIN=str(tmp_path))
    assert done.returncode == 1
    assert f"{tmp_path} has no initdb" in done.stderr
    assert script("stop", "postgresql://x@/y?host=/home/me/socket").returncode == 1, "it removes only what it made"
    assert script("stop", "/tmp/toolreason-pg.abc/..").returncode == 1
    assert script().returncode == 2
    assert script("install").returncode == 0
