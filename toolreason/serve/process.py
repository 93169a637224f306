"""A service as a process: what it needs, where it listens, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

from toolreason.errors import SetupError

if TYPE_CHECKING:
    from fastapi import FastAPI

GRACE_S = 10  # for answers that are under way when the service ends


def check() -> None:
    """Raise SetupError, with the command that mends it, where a library is missing."""
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
        import uvloop  # noqa: F401
    except ImportError as error:
        raise SetupError(f"the service needs {error.name}: pip install 'toolreason[serve]'") from error


def run(service: Coroutine[Any, Any, None]) -> None:
    """Run it to its end in an event loop of its own, which is uvloop's: a request takes a quarter less of a core in it."""
    import uvloop

    uvloop.run(service)


def address(listener: socket.socket) -> str:
    """The URL of a socket that listens."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


@contextlib.contextmanager
def asked_to_end() -> Iterator[asyncio.Event]:
    """Set by SIGTERM or Ctrl-C. The second one cancels the work: containers end by themselves when their host does."""
    ending, loop, task = asyncio.Event(), asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    def asked() -> None:
        if ending.is_set():
            task.cancel()
        ending.set()

    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, asked)
    try:
        yield ending
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def until(ending: asyncio.Event, app: FastAPI, listener: socket.socket, end: Callable[[], Awaitable[None]]) -> None:
    """Run uvicorn until `ending`; then `end` what is under way, so that it is answered, and let the server finish."""
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="on",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE_S,
    )

    class Server(uvicorn.Server):
        def capture_signals(self) -> Any:
            return contextlib.nullcontext()  # its own way raises them again, before the containers are gone

    gc.collect()
    gc.freeze()  # what is loaded stays: looking through it for garbage would hold up everybody for a tenth of a second
    server = Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    asked = asyncio.ensure_future(ending.wait())
    try:
        await asyncio.wait((serving, asked), return_when=asyncio.FIRST_COMPLETED)
    finally:
        asked.cancel()
        server.should_exit = True
        await end()
    await serving
