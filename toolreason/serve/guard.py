"""What stands before every route of a service: who may ask, and how much."""

from __future__ import annotations

import hmac
import ipaddress
import json
import os
import socket
from collections.abc import Awaitable, Callable, Collection, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from toolreason.errors import SettingsError
from toolreason.execution.remote_wire import TOKEN

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

SHORTEST = 16  # characters of a token
OPEN_TO_ALL = frozenset({"/health"})
MAKE_ONE = f"make one, `export {TOKEN}=$(openssl rand -hex 32)`, and give it to the clients too"


def token_of(given: str | None) -> str | None:
    """The token, given or from the environment. Raises SettingsError for one that can be guessed, or that a header cannot carry;
    never shows it.
    """
    token = given or os.environ.get(TOKEN) or None
    if token is not None and not all("!" <= sign <= "~" for sign in token):
        raise SettingsError(f"a token is of printable ASCII characters without blanks: {MAKE_ONE}")
    if token is not None and len(token) < SHORTEST:
        raise SettingsError(f"a token of {len(token)} characters can be guessed, the fewest are {SHORTEST}: {MAKE_ONE}")
    return token


def listen(host: str, port: int, *, token: bool) -> socket.socket:
    """A socket that listens there, for others than this machine only with a token. Raises SettingsError."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError, OverflowError) as error:
        raise SettingsError(
            f"there is no host {host!r}, port {port}, to listen on ({error}): give an address of this machine"
        ) from error
    if not token and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise SettingsError(
            f"{host or 'every address'} can be reached from other machines, and whoever reaches the service runs code: "
            f"listen on 127.0.0.1, or set a token ({MAKE_ONE})"
        )
    listener = socket.socket(family, kind, proto)  # with its protocol: asyncio sets TCP_NODELAY on no other, and answers wait 40 ms
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except (OSError, OverflowError) as error:
        listener.close()
        raise SettingsError(
            f"cannot listen on {host}, port {port} ({error}): choose another --port, or 0 for any free one"
        ) from error
    return listener


Shape = Callable[[int, str], dict[str, Any]]
"""What a refusal says, by status and reason."""


def plain(status: int, why: str) -> dict[str, Any]:
    return {"error": why}


class Guard:
    """ASGI middleware. With a token (or several), every other route wants one as `Authorization: Bearer`, compared in
    constant time; `open_to_all` are the routes that tell nothing.

    Without one the service is for this machine: a page in a browser, which can send requests here too, is told apart by its
    `Origin` and by the name it takes this machine for. A body of more than `most_bytes` is refused before it is read.
    """

    def __init__(
        self,
        app: App,
        token: str | Sequence[str] | None,
        most_bytes: int,
        shape: Shape = plain,
        open_to_all: Collection[str] = OPEN_TO_ALL,
    ) -> None:
        self._app, self._most, self._shape, self._open = app, most_bytes, shape, open_to_all
        tokens = [token] if isinstance(token, str) else token or ()
        self._wanted = [b"bearer " + one.encode() for one in tokens]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # the server's own start and end: it is told to speak no WebSocket
            return await self._app(scope, receive, send)
        headers = {name.lower(): value for name, value in scope["headers"]}
        if scope["path"] not in self._open:
            if self._wanted and not self._known(headers.get(b"authorization", b"")):
                why = "a bearer token is needed, and this is none or another"
                return await self._refuse(send, 401, why, [(b"www-authenticate", b"Bearer")])
            if not self._wanted and not from_here(headers):
                return await self._refuse(send, 403, "without a token the service answers programs on this machine only")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 18 or int(length) > self._most:
            return await self._refuse(send, 413, f"a body of more than {self._most} bytes")
        return await self._app(scope, bounded(receive, self._most), send)

    def _known(self, given: bytes) -> bool:
        shown = given[:7].lower() + given[7:]
        return sum(hmac.compare_digest(shown, wanted) for wanted in self._wanted) > 0  # all of them: the time tells nothing

    async def _refuse(self, send: Send, status: int, why: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        body = json.dumps(self._shape(status, why)).encode()
        head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *(headers or [])]
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": body})


def from_here(headers: dict[bytes, bytes]) -> bool:
    if b"origin" in headers:
        return False
    try:
        name = urlsplit("//" + headers.get(b"host", b"").decode("ascii")).hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def bounded(receive: Receive, most: int) -> Receive:
    """A body that does not say its length is counted as it comes."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            from starlette.exceptions import HTTPException

            raise HTTPException(413, f"a body of more than {most} bytes")
        return message

    return counted
