"""An engine on another machine, reached by the user's own `ssh`: keys, names and jump hosts are those of its settings.

Each connection is a process, `ssh HOST docker system dial-stdio`, as Docker's command line does it. Its standard input and output
are one end of a pair of sockets; the other end is used like a connection to the engine's own socket.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import shlex
import signal
import socket
import subprocess
import tempfile
import threading
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit

import docker
import urllib3.connection
import urllib3.connectionpool
from docker.transport.basehttpadapter import BaseHTTPAdapter

from toolreason.errors import SetupError

OPTIONS = {
    "BatchMode": "yes",  # no question that nobody is there to answer
    "ConnectTimeout": "10",
    "ServerAliveInterval": "15",  # a machine that is gone is noticed
    "ControlMaster": "no",  # other connections through one of ours would end with it; those of the user are used
}
LAST_WORDS = 2000  # bytes of standard error
END_S = 5.0  # how long a process may take to end before it is killed
POOLED = 10  # control connections that are kept for the next call


def command(host: str) -> list[str]:
    """What connects to the engine at `ssh://[user@]name[:port][/path/of/its/socket]`. Raises SetupError."""
    address = urlsplit(host)
    user, _, place = address.netloc.rpartition("@")
    name = place[1:].partition("]")[0] if place.startswith("[") else place.partition(":")[0]
    try:
        port = address.port
    except ValueError:
        port = -1
    if not name or port == -1 or ":" in user or address.query or address.fragment:
        raise SetupError(f"{host} is no engine's address: use ssh://[user@]host[:port][/path/of/its/socket], without a password")
    words = ["ssh", "-T", *(f"-o{name}={value}" for name, value in OPTIONS.items())]
    words += ["-l", unquote(user)] if user else []
    words += ["-p", str(port)] if port else []
    socket_path = unquote(address.path.rstrip("/"))
    there = ["--host", shlex.quote(f"unix://{socket_path}")] if socket_path else []
    return [*words, "--", name, " ".join(["docker", *there, "system", "dial-stdio"])]


class Line:
    """A connection to the engine: the process, and our end of its standard input and output. Whoever uses `socket` closes it."""

    def __init__(self, host: str) -> None:
        words = command(host)
        self._let_go = False
        # no pipe: a shared connection that ssh leaves in the background would hold it open
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self.socket, theirs = socket.socketpair()
        try:
            # a session of its own: Ctrl-C is for this program, which ends its sessions in order
            self.process = subprocess.Popen(
                words, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=self._errors, start_new_session=True
            )
        except OSError as error:
            self.socket.close()
            self._errors.close()
            raise SetupError(f"{host} can't be reached: ssh can't be started here ({error})") from error
        finally:
            theirs.close()

    def last_words(self) -> str:
        """What ssh, or the engine's command line on the other machine, said before the line ended. Blocks for a moment."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(1)
        if self._errors.closed:
            return ""
        size = os.fstat(self._errors.fileno()).st_size
        text = os.pread(self._errors.fileno(), LAST_WORDS, max(0, size - LAST_WORDS)).decode(errors="replace").strip()
        code = self.process.returncode
        if code is None:  # it goes on: the trouble is another's
            return ""
        return text or f"ssh ended with exit code {code}"

    def hang_up(self) -> None:
        """End the process, and what it has started. Does not wait."""
        self._signal(signal.SIGTERM)

    def end(self) -> None:
        """End it and wait for that: an instant as a rule, `END_S` at the most."""
        self.hang_up()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self.process.wait()
        self._errors.close()

    def let_go(self) -> None:
        """End it in the background, from within an event loop, which at its own end waits for that. Safe to call twice."""
        if not self._let_go:
            self._let_go = True
            self.hang_up()
            asyncio.get_running_loop().run_in_executor(None, self.end)

    def _signal(self, number: int) -> None:
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)


class _Connection(urllib3.connection.HTTPConnection):
    """HTTP over a line."""

    def __init__(self, *args: Any, lines: Lines, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lines = lines

    def connect(self) -> None:
        self._line = self._lines.new()
        self.sock = self._line.socket
        self.sock.settimeout(self.timeout)

    def getresponse(self) -> Any:
        try:
            return super().getresponse()
        except TimeoutError:
            raise
        except (http.client.HTTPException, OSError) as error:
            raise OSError(self._line.last_words() or str(error)) from error


class _Pool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = _Connection


class Lines:
    """Those of one client. Ended ones are let go of whenever there is a new one."""

    def __init__(self, host: str) -> None:
        self.host, self._lock = host, threading.Lock()
        self._lines: list[Line] = []

    def new(self) -> Line:
        line = Line(self.host)
        with self._lock:
            ended = [line for line in self._lines if line.process.poll() is not None]
            self._lines = [line for line in self._lines if line not in ended] + [line]
        for old in ended:
            old.end()
        return line

    def last_words(self) -> str:
        with self._lock:
            last = self._lines[-1:]
        return last[0].last_words() if last else ""

    def end(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
        for line in lines:
            line.hang_up()
        for line in lines:
            line.end()


class _Adapter(BaseHTTPAdapter):  # type: ignore[misc]
    """Sends all of a client's requests over its lines, which are used again. (docker-py's own starts a process for each call and
    leaves it, and needs a second implementation of SSH to be there.)
    """

    def __init__(self, lines: Lines, timeout_s: float) -> None:
        super().__init__()
        self.lines = lines
        self._pool = _Pool("localhost", timeout=timeout_s, maxsize=POOLED, lines=lines)

    def get_connection(self, *_: Any, **__: Any) -> Any:
        return self._pool

    def request_url(self, request: Any, proxies: Any) -> str:
        return str(request.path_url)

    def close(self) -> None:
        super().close()
        self._pool.close()
        self.lines.end()


def client(host: str, timeout_s: float) -> Any:
    """A docker-py client that has spoken to the engine. No process is left when it is closed. Raises SetupError."""
    command(host)  # an address that is none is said first
    lines = Lines(host)
    # a given version, since asking for it here would ask docker-py's own adapter
    made = docker.DockerClient(base_url="unix:///ssh", version=docker.constants.MINIMUM_DOCKER_API_VERSION, timeout=timeout_s)
    made.api.mount("http+docker://", _Adapter(lines, timeout_s))
    try:
        made.api._version = made.api.version(api_version=False)["ApiVersion"]
    except SetupError:
        made.close()
        raise
    except (docker.errors.DockerException, OSError, KeyError) as error:
        words = lines.last_words() or str(error)
        made.close()
        trial = shlex.join([*command(host)[:-1], "docker version"])
        raise SetupError(f"no container engine answers at {host}: {words}\nThis must work without a question: {trial}") from error
    except BaseException:
        made.close()
        raise
    return made
