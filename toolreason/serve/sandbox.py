"""`toolreason sandbox serve`: a sandbox for rollouts on another machine."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from toolreason.errors import SetupError
from toolreason.execution import Limits, open_sandbox
from toolreason.serve.guard import listen, token_of

if TYPE_CHECKING:
    from fastapi import FastAPI

PORT = 8700
GRACE_S = 10  # for answers that are under way when the service ends


def serve(
    host: str = "127.0.0.1",
    port: int = PORT,
    token: str | None = None,
    *,
    sandbox: str = "docker",
    limits: Limits | None = None,
    max_sessions: int | None = None,
    wait_s: float = 20.0,
    idle_s: float = 600.0,
    max_file_mb: int = 64,
    tell: Callable[[str], Any] = lambda what: print(what, flush=True),
    **options: Any,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then end every session and return. Call it in the main thread, outside any event loop.

    `token`, else the environment's TOOLREASON_SANDBOX_TOKEN, is what clients must show. `port` 0 takes a free one; `tell` gets the
    address. At most `max_sessions` (32, with density `shared` 256) are open, forks included; a request waits `wait_s` seconds for
    a place, a session is ended after `idle_s` seconds without a call, a file that is put has at most `max_file_mb` MiB. `options`
    are those of `open_sandbox`. A second SIGTERM or Ctrl-C does not wait for the clearing up. Raises SettingsError for a host
    beyond this machine without a token, or one that cannot be listened on; SetupError when the sandbox or a package is missing.
    """
    token = token_of(token)
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise SetupError("the service needs FastAPI and uvicorn: pip install 'toolreason[serve]'") from error
    most = max_sessions or (256 if options.get("density") == "shared" else 32)
    if sandbox == "docker":
        options.setdefault("idle_s", None)  # the service ends the idle ones
    opened = open_sandbox(sandbox, limits, max_sessions=most, **options)
    with listen(host, port, token=token is not None) as listener:
        asyncio.run(
            _serve(opened, listener, tell, token=token, max_sessions=most, wait_s=wait_s, idle_s=idle_s, max_file_mb=max_file_mb)
        )


async def _serve(sandbox: Any, listener: socket.socket, tell: Callable[[str], Any], **options: Any) -> None:
    from toolreason.serve.app import application

    with _asked_to_end() as ending:
        async with sandbox:
            app = application(sandbox, **options)
            host, port = listener.getsockname()[:2]
            where = f"[{host}]" if ":" in host else host
            tell(f"the sandbox service listens on http://{where}:{port} ({'with' if options['token'] else 'without'} a token)")
            await _until(ending, app, listener)


@contextlib.contextmanager
def _asked_to_end() -> Iterator[asyncio.Event]:
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


async def _until(ending: asyncio.Event, app: FastAPI, listener: socket.socket) -> None:
    """Run uvicorn until `ending`; then end the sessions, so that calls under way are answered at once, and let it finish."""
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

    server = Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    asked = asyncio.ensure_future(ending.wait())
    try:
        await asyncio.wait((serving, asked), return_when=asyncio.FIRST_COMPLETED)
    finally:
        asked.cancel()
        server.should_exit = True
        await app.state.leases.aclose()
    await serving
