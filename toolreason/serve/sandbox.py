"""`toolreason sandbox serve`: a sandbox for rollouts on another machine."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from toolreason.execution import Limits, open_sandbox
from toolreason.serve.guard import listen, token_of
from toolreason.serve.process import address, asked_to_end, check, run, until

PORT = 8700


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
    check()
    most = max_sessions or (256 if options.get("density") == "shared" else 32)
    if sandbox == "docker":
        options.setdefault("idle_s", None)  # the service ends the idle ones
    opened = open_sandbox(sandbox, limits, max_sessions=most, **options)
    with listen(host, port, token=token is not None) as listener:
        run(_serve(opened, listener, tell, token=token, max_sessions=most, wait_s=wait_s, idle_s=idle_s, max_file_mb=max_file_mb))


async def _serve(sandbox: Any, listener: socket.socket, tell: Callable[[str], Any], **options: Any) -> None:
    from toolreason.serve.app import application

    with asked_to_end() as ending:
        async with sandbox:
            app = application(sandbox, **options)
            tell(f"the sandbox service listens on {address(listener)} ({'with' if options['token'] else 'without'} a token)")
            await until(ending, app, listener, app.state.leases.aclose)
