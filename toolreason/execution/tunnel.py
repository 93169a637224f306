"""An engine on another machine, by way of `ssh`: a socket on this one, of which each connection is an ssh of its own.

The ssh client is the user's own, with their keys and settings; on the other machine it runs `docker system dial-stdio`.
"""

from __future__ import annotations

import atexit
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
from contextlib import suppress
from functools import cache
from urllib.parse import urlsplit

from toolreason.errors import SetupError

SSH = ["ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]  # no question is asked: nobody may be there to answer
TRY_S = 30


def command(host: str, *remote: str) -> list[str]:
    """How to run a command on the machine of `ssh://user@host:port`."""
    address = urlsplit(host)
    who = f"{address.username}@{address.hostname}" if address.username else str(address.hostname)
    return [*SSH, *(["-p", str(address.port)] if address.port else []), "--", who, *remote]


@cache
def open_tunnel(host: str) -> str:
    """The address of the socket on this machine, which lasts as long as this process. Raises SetupError with ssh's own words."""
    trial = command(host, "docker", "version")
    try:
        done = subprocess.run(trial, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TRY_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"{host}: {error}: install an ssh client, or forward the engine's socket yourself") from error
    if done.returncode:
        raise SetupError(f"{host}: `{shlex.join(trial)}` says: {done.stderr.strip()[-500:]}")
    folder = tempfile.mkdtemp(prefix="toolreason-ssh-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{folder}/docker.sock")
    listener.listen(64)
    threading.Thread(target=_serve, args=(listener, command(host, "docker", "system", "dial-stdio")), daemon=True).start()
    return f"unix://{folder}/docker.sock"


def _serve(listener: socket.socket, dial: list[str]) -> None:
    running: list[subprocess.Popen[bytes]] = []
    while True:
        connection, _ = listener.accept()
        running = [process for process in running if process.poll() is None]
        with connection, suppress(OSError):  # an ssh that can't be started is a connection that ends
            end = connection.fileno()
            # a session of its own: Ctrl-C is for us, and ssh ends when its connection does
            running.append(subprocess.Popen(dial, stdin=end, stdout=end, stderr=subprocess.DEVNULL, start_new_session=True))
