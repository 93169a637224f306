"""Where the container engine listens, and a raw stream to a container's standard input and output.

docker-py does the control calls. The streams of running sessions do not go through it: it reads with blocking sockets, so each
session would need a thread. `attach` speaks the engine's HTTP upgrade itself, on asyncio streams.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from toolreason.errors import SandboxError, SetupError, ToolreasonError
from toolreason.execution.tunnel import open_tunnel

NO_ENGINE = (
    "no container engine answers{where}: start Docker (Debian: `apt-get install docker.io && service docker start`; "
    "Docker Desktop or rootless Docker work too), or set DOCKER_HOST"
)
MAX_PAYLOAD = 16 << 20


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine's address: `unix:///path` or `tcp://host:port`, with TLS where DOCKER_TLS_VERIFY asks for it.

    An `ssh://user@host` is reached through a tunnel, and is then a `unix://` too.
    """

    host: str
    cert_path: str | None = None

    @classmethod
    def find(cls) -> Engine:
        """The engine that `docker` on this machine would use: DOCKER_HOST, the current context, the usual sockets."""
        certs = None
        if os.environ.get("DOCKER_TLS_VERIFY"):
            certs = os.environ.get("DOCKER_CERT_PATH") or str(Path.home() / ".docker")
        host = os.environ.get("DOCKER_HOST") or _context_host() or next((f"unix://{p}" for p in _sockets() if p.exists()), "")
        if not host:
            raise SetupError(NO_ENGINE.format(where=""))
        if host.startswith("ssh://"):
            return cls(open_tunnel(host))
        if not host.startswith(("unix://", "tcp://", "http://", "https://")):
            raise SetupError(f"DOCKER_HOST {host} is not supported: use unix://, tcp:// or ssh://")
        return cls(host, certs)

    def client(self, timeout_s: float = 60) -> Any:
        """A docker-py client that has spoken to the engine. Raises SetupError."""
        import docker

        tls = None
        if self.cert_path:
            cert, key, ca = (str(Path(self.cert_path) / f"{name}.pem") for name in ("cert", "key", "ca"))
            tls = docker.tls.TLSConfig(client_cert=(cert, key), ca_cert=ca, verify=True)
        try:
            if self.host.startswith("unix://"):  # asked first: docker-py leaves the socket open that it could not connect
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(self.host.removeprefix("unix://"))
            return docker.DockerClient(base_url=self.host, tls=tls or False, timeout=timeout_s, version="auto")
        except (docker.errors.DockerException, OSError) as error:
            raise SetupError(f"{NO_ENGINE.format(where=f' at {self.host}')} ({error})") from error

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A byte stream to the engine."""
        if self.host.startswith("unix://"):
            return await asyncio.open_unix_connection(self.host.removeprefix("unix://"))
        address = urlsplit(self.host)
        context = None
        if self.cert_path or address.scheme == "https":
            folder = Path(self.cert_path) if self.cert_path else None
            context = ssl.create_default_context(cafile=str(folder / "ca.pem") if folder else None)
            if folder:
                context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        return await asyncio.open_connection(address.hostname, address.port or (2376 if context else 2375), ssl=context)


@contextmanager
def asking(what: str, error: type[ToolreasonError] = SetupError) -> Iterator[None]:
    """What the client library raises inside, an engine that refuses or is gone, as one of ours: "WHAT: the engine's words"."""
    import docker
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (docker.errors.DockerException, HTTPError, OSError) as trouble:  # the latter two: no connection
        raise error(f"{what}: {trouble}") from trouble


class Attached:
    """The standard streams of one container, demultiplexed. Closing it closes the container's standard input."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.stderr = b""  # the last of it: what the runner says when it dies

    @property
    def ended(self) -> bool:
        return self._reader.at_eof()

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self) -> bytes:
        """The next piece of standard output; empty at its end. Raises SandboxError on a malformed stream."""
        while True:
            try:
                header = await self._reader.readexactly(8)
                stream, size = header[0], int.from_bytes(header[4:], "big")
                if stream > 2 or header[1:4] != b"\0\0\0" or size > MAX_PAYLOAD:
                    raise SandboxError(f"the engine's stream is malformed: header {header.hex()}")
                payload = await self._reader.readexactly(size)
            except asyncio.IncompleteReadError:
                return b""
            if stream == 1 and payload:
                return payload
            self.stderr = (self.stderr + payload)[-4000:]

    def close(self) -> None:
        self._writer.close()


async def attach(engine: Engine, container: str, version: str) -> Attached:
    """Take over the standard streams of a created container. Raises SandboxError, or OSError when the engine is gone."""
    reader, writer = await engine.connect()
    path = f"/v{version}/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1"
    head = "Host: docker\r\nUpgrade: tcp\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n"
    try:
        writer.write(f"POST {path} HTTP/1.1\r\n{head}".encode())
        answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status = answer.split(" ", 2)[1]
        if status not in ("101", "200"):
            raise SandboxError(f"the engine would not attach to the container: {answer.splitlines()[0]}")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, IndexError) as error:
        writer.close()
        raise SandboxError("the engine's answer to an attach is not HTTP") from error
    except BaseException:
        writer.close()
        raise
    return Attached(reader, writer)


def _context_host() -> str:
    """The address in docker's current context (Docker Desktop, rootless), or nothing."""
    try:
        from docker.context import ContextAPI

        context = ContextAPI.get_current_context()
        return str(context.Host or "") if context and context.Name != "default" else ""
    except Exception:  # an unreadable ~/.docker is no reason to fail
        return ""


def _sockets() -> list[Path]:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "/nonexistent")
    home = Path.home() / ".docker"
    return [Path("/var/run/docker.sock"), Path(runtime) / "docker.sock", home / "run/docker.sock", home / "desktop/docker.sock"]
