"""The real service on a real socket: in a process of its own, or over a sandbox of the test's in this event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from toolreason.execution import Sandbox
from toolreason.serve import process
from toolreason.serve.app import application
from toolreason.serve.guard import listen

TOKEN = "a-token-of-the-tests-0123456789"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PROGRAM = """
import json, sys
from toolreason.execution import Limits
from toolreason.serve.sandbox import serve
options = json.loads(sys.argv[1])
serve(limits=Limits(**options.pop("limits", {})), **options)
"""


@dataclass
class Service:
    """`url` is where it listens, `errors` what it has written to its standard error so far."""

    process: subprocess.Popen[bytes]
    url: str
    errors: bytearray = field(default_factory=bytearray)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def running(**options: Any) -> Iterator[Service]:
    """A service with these options of `serve`, on a free port, ended afterwards."""
    command = [sys.executable, "-c", PROGRAM, json.dumps({"port": 0, "token": TOKEN} | options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    try:
        line = process.stdout.readline().decode()
        assert "listens on http://" in line, process.stderr.read().decode()
        service = Service(process, next(word for word in line.split() if word.startswith("http://")))
        reader = threading.Thread(target=_collect, args=(process.stderr, service.errors))
        reader.start()
        try:
            yield service
        finally:
            with suppress(subprocess.TimeoutExpired, ProcessLookupError):
                service.end()
            if process.poll() is None:
                process.kill()
                process.wait()
            reader.join()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def _collect(stream: Any, into: bytearray) -> None:
    while chunk := stream.read1(1 << 16):
        into += chunk


@contextlib.asynccontextmanager
async def served(sandbox: Sandbox, token: str | None = TOKEN, **options: Any) -> AsyncIterator[str]:
    """The address of a service over this sandbox, with these options of `application`."""
    app, ending = application(sandbox, token=token, **options), asyncio.Event()
    with listen("127.0.0.1", 0, token=token is not None) as listener:
        serving = asyncio.create_task(process.until(ending, app, listener, app.state.leases.aclose))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            ending.set()
            await serving


async def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Poll what nobody tells of."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
