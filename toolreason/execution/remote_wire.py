"""Requests to a sandbox service, sent again while the connection breaks, and its answers, bounded, with what their status means."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import suppress
from typing import Any

import httpx

from toolreason.errors import InputError, SandboxError, SessionLost, SettingsError
from toolreason.execution.wire import MAX_FRAME, plain

log = logging.getLogger(__name__)
TOKEN = "TOOLREASON_SANDBOX_TOKEN"
MAX_REPLY = MAX_FRAME + (1 << 20)
CONNECT_S = 10.0
RETRY_S, LONGEST_RETRY_S = 0.1, 2.0  # before the second try, doubled by each more


class Full(SandboxError):
    """The service has no place now."""

    retry_after_s = 1.0


class Client:
    """A client of one service. Requests that change something carry an id, by which the service does them once however often they
    are sent.
    """

    def __init__(self, url: str, token: str | None, reconnect_s: float, transport: httpx.AsyncBaseTransport | None = None) -> None:
        headers = {b"accept-encoding": b"identity"}  # so that what is counted is what is kept
        if token:
            headers[b"authorization"] = b"Bearer " + token.encode("utf-8", "surrogatepass")
        self._reconnect_s = reconnect_s
        self._client = httpx.AsyncClient(
            base_url=url,
            headers=list(headers.items()),
            timeout=httpx.Timeout(None, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=30.0),
            transport=transport,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """The object that a request is answered with, empty where there is no answer but yes. Takes and raises what `ask` does."""
        body = await self.ask(method, path, **options)
        try:
            value = json.loads(body) if body else {}
        except (ValueError, RecursionError) as error:
            raise SandboxError(f"the service sent what is no JSON: {body[:80]!r}") from error
        if not isinstance(value, dict):
            raise SandboxError("the service sent what is no object")
        return value

    async def ask(
        self,
        method: str,
        path: str,
        *,
        within_s: float,
        key: str | None = None,
        params: dict[str, str] | None = None,
        body: Any = None,
        most: int = MAX_REPLY,
    ) -> bytes:
        """The body of the answer. `body` is bytes, or what becomes JSON. Raises SessionLost when the service cannot be reached, and
        what a status other than success means: SettingsError, InputError, SessionLost, Full, SandboxError.
        """
        headers = {"Idempotency-Key": key} if key else {}
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if content is not body:
            headers["Content-Type"] = "application/json"
        try:
            async with asyncio.timeout(within_s):
                return await self._insist(method, path, most, headers=headers, params=params, content=content)
        except TimeoutError as error:
            raise SessionLost(f"the service did not answer within {within_s:g} s") from error

    async def _insist(self, method: str, path: str, most: int, **request: Any) -> bytes:
        """Send, again and again while the connection breaks, for `reconnect_s` after it first did."""
        pause, broken = RETRY_S, 0.0
        while True:
            try:
                return await self._send(self._client.build_request(method, path, **request), most)
            except httpx.TransportError as error:
                broken = broken or time.monotonic()
                if time.monotonic() - broken + pause > self._reconnect_s:
                    raise SessionLost(f"the service cannot be reached: {error or type(error).__name__}") from error
                log.debug("a %s broke, and is sent again: %r", method, error)
            except RuntimeError as error:  # httpx's word for a client that is closed
                raise SessionLost("the sandbox is closed") from error
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_RETRY_S)

    async def _send(self, request: httpx.Request, most: int) -> bytes:
        response = await self._client.send(request, stream=True)
        try:
            if "content-encoding" in response.headers:  # none was asked for; a few bytes may hold gigabytes
                raise SandboxError("the service's answer is compressed")
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > most:
                    raise SandboxError(f"the service's answer has more than {most} bytes")
        finally:
            await response.aclose()
        _check(response, bytes(body))
        return bytes(body)


def _check(response: httpx.Response, body: bytes) -> None:
    if response.is_success:
        return
    why = f"{response.status_code} from the service"
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        why = plain(str(json.loads(body)["error"]))[:1000]
    match response.status_code:
        case 401 | 403:
            raise SettingsError(f"the sandbox service refuses: {why}. Set {TOKEN}, or `token`, to what it was started with")
        case 413 | 422:
            raise InputError(why)
        case 410:
            raise SessionLost(why)
        case 503:
            full = Full(why)
            with suppress(ValueError):
                full.retry_after_s = min(max(float(response.headers.get("retry-after", "1")), 0.1), 60.0)
            raise full
        case _:
            raise SandboxError(why)
