"""Where a library lies: a SQLite file, a PostgreSQL database, memory, or a LangGraph store of the caller's.

A store has no compare-and-swap, so whoever changes the library takes a lock first, which is what its place offers: a lock file
beside the SQLite file, an advisory lock of PostgreSQL, a thread lock in memory. All are given back when their holder dies.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from toolreason.errors import InfrastructureError, InputError, SetupError

if TYPE_CHECKING:
    from langgraph.store.base import BaseStore
    from psycopg_pool import AsyncConnectionPool

DEFAULT = "~/.toolreason/tools.sqlite"
WAIT_S = 60.0  # for other writers, before giving up

Turn = Callable[[], AbstractAsyncContextManager[None]]
_locks: WeakKeyDictionary[BaseStore, threading.Lock] = WeakKeyDictionary()


@dataclass(frozen=True)
class Place:
    """An open store. `turn` is held while changing it; `exclusive` tells whether it keeps out all other processes and hosts."""

    store: BaseStore
    turn: Turn
    exclusive: bool


@asynccontextmanager
async def open_place(spec: str | BaseStore, name: str, embed: Any = None) -> AsyncIterator[Place]:
    """Open what `spec` names (see `toolreason.tools.library.open_library`). Raises InputError and SetupError."""
    async with AsyncExitStack() as stack:
        if not isinstance(spec, str):
            yield Place(spec, lambda: _thread_lock(spec), exclusive=False)
        elif spec == "memory":
            from langgraph.store.memory import InMemoryStore

            index: Any = await _index(embed)
            memory = InMemoryStore(index=index)
            yield Place(memory, lambda: _thread_lock(memory), exclusive=True)
        elif spec.startswith(("postgresql://", "postgres://")):
            yield await stack.enter_async_context(_postgres(spec, name, embed))
        elif "://" in spec or not spec:
            raise InputError(f"{spec!r} is no place of a tool library: give a file, postgresql://..., or memory")
        else:
            yield await stack.enter_async_context(_sqlite(sqlite_file(spec), embed))


def sqlite_file(spec: str) -> Path:
    """The file that a spec names. The default one lies under `$TOOLREASON_HOME` where that is set."""
    if spec == DEFAULT and (home := os.environ.get("TOOLREASON_HOME")):
        return Path(home).expanduser().absolute() / "tools.sqlite"
    return Path(spec.removeprefix("sqlite:")).expanduser().absolute()


@asynccontextmanager
async def _sqlite(file: Path, embed: Any) -> AsyncIterator[Place]:
    try:
        import aiosqlite
        from langgraph.store.sqlite import AsyncSqliteStore
    except ImportError as error:
        raise SetupError(f"a library in a file needs more: pip install 'toolreason[sqlite]' ({error})") from None
    from filelock import FileLock

    if embed is not None and not hasattr(sqlite3.Connection, "enable_load_extension"):
        text = "vector search in a SQLite file needs a Python whose sqlite3 loads extensions, as Debian's and python.org's do"
        raise SetupError(
            f"{text} (pyenv: PYTHON_CONFIGURE_OPTS=--enable-loadable-sqlite-extensions); or use PostgreSQL, or no embed"
        )
    index: Any = await _index(embed)
    lock = FileLock(f"{file}.lock", thread_local=False)
    async with AsyncExitStack() as stack:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.open("ab").close()  # what is no file, or not ours, says so here: aiosqlite's thread may outlive the event loop
            connection = await stack.enter_async_context(aiosqlite.connect(file, isolation_level=None, timeout=WAIT_S))
            store = AsyncSqliteStore(connection, index=index)
            async with _polled(lambda: _try_file(lock), lock.release, lock.lock_file):  # set-ups of two processes collide
                await connection.execute("PRAGMA journal_mode=WAL")  # readers and one writer do not wait for each other
                await store.setup()
        except (OSError, aiosqlite.Error) as error:
            raise InputError(f"{file} cannot be opened as a tool library: {error}") from error
        yield Place(store, lambda: _polled(lambda: _try_file(lock), lock.release, lock.lock_file), exclusive=True)


@asynccontextmanager
async def _postgres(url: str, name: str, embed: Any) -> AsyncIterator[Place]:
    try:
        import psycopg
        from langgraph.store.postgres.aio import AsyncPostgresStore
        from psycopg.rows import dict_row
        from psycopg_pool import AsyncConnectionPool, PoolTimeout
    except ImportError as error:
        raise SetupError(f"a library in PostgreSQL needs more: pip install 'toolreason[postgres]' ({error})") from None
    index: Any = await _index(embed)
    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    check = AsyncConnectionPool.check_connection  # a server that was started again is found again
    pool: Any = AsyncConnectionPool(url, kwargs=options, min_size=1, max_size=4, open=False, check=check, timeout=WAIT_S)
    try:
        async with await psycopg.AsyncConnection.connect(url, connect_timeout=10):
            pass  # which says why it cannot: a pool only tries again until its time is over
        await pool.open(wait=True)
        store = AsyncPostgresStore(pool, index=index)
        async with _advisory_lock(pool, "set-up"):
            await store.setup()
    except (psycopg.Error, PoolTimeout) as error:
        await pool.close()
        if embed is not None and isinstance(error, psycopg.errors.FeatureNotSupported | psycopg.errors.UndefinedFile):
            text = "vector search in PostgreSQL needs its extension pgvector on the server (Debian: postgresql-15-pgvector)"
            raise SetupError(f"{text}: {error}") from error
        raise SetupError(f"{hidden(url)} cannot be opened as a tool library: {error}. Is the server running?") from error
    async with pool:
        yield Place(store, lambda: _advisory_lock(pool, name), exclusive=True)


def hidden(url: str) -> str:
    """The address without user, password and options, for messages; what is no address stays as it is."""
    scheme, mark, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}" if mark else url


@asynccontextmanager
async def _advisory_lock(pool: AsyncConnectionPool[Any], name: str) -> AsyncIterator[None]:
    """A session's lock on the server. It is tried for, not waited for: one who waits holds a snapshot, and set-up builds an index
    that waits for all snapshots.
    """
    key = (f"toolreason tools {name}",)
    async with pool.connection() as connection:
        end = time.monotonic() + WAIT_S
        while True:
            cursor = await connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0)) AS got", key)
            row = await cursor.fetchone()
            if row and row["got"]:
                break
            await _pause(end, f"the tool library {name!r}")
        try:
            yield
        finally:
            if not connection.closed:
                await connection.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", key)


@asynccontextmanager
async def _thread_lock(store: BaseStore) -> AsyncIterator[None]:
    lock = _locks.setdefault(store, threading.Lock())
    async with _polled(lambda: lock.acquire(blocking=False), lock.release, "the store"):
        yield


@asynccontextmanager
async def _polled(take: Callable[[], bool], give: Callable[[], None], what: str) -> AsyncIterator[None]:
    """Hold a lock that knows nothing of asyncio."""
    end = time.monotonic() + WAIT_S
    while not take():
        await _pause(end, what)
    try:
        yield
    finally:
        give()


async def _pause(end: float, what: str) -> None:
    if time.monotonic() > end:
        raise InfrastructureError(f"{what} was being changed by others for {WAIT_S:.0f} s")
    await asyncio.sleep(random.uniform(0.001, 0.006))


def _try_file(lock: Any) -> bool:
    from filelock import Timeout

    if lock.is_locked:  # by another task with this object; the lock itself would count up
        return False
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


async def _index(embed: Any) -> Any:
    """LangGraph's index settings for an embedding function; its dimensions are asked of it."""
    if embed is None:
        return None
    from langgraph.store.base import ensure_embeddings

    embeddings = ensure_embeddings(embed)
    return {"dims": len(await embeddings.aembed_query("dimensions")), "embed": embeddings, "fields": ["text"]}
