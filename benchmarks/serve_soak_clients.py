"""Who the soak of the endpoint (`serve_soak.py`) sends: honest ones, who know what they have to get, and all the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

KEY = "soak-" + "k" * 32
RECOVERY_S = 5.0  # so long after a container was killed a request may still fail for it
BOXED = re.compile(r"So \\boxed\{(.*?)\}\.")
HOSTILE = {
    "exit": "import os\nos._exit(1)",
    "kill": "import os, signal\nos.kill(os.getppid(), 9)\nos.kill(os.getpid(), 9)",
    "memory": "x = []\nwhile True: x.append(bytearray(10_000_000))",
    "loop": "while True: pass",
    "forks": "import os\nwhile True: os.fork()",
    "flood": "while True: print('y' * 1000)",
}


def asking(url: str) -> httpx.AsyncClient:
    """A client with its key and two connections at most."""
    limits = httpx.Limits(max_connections=2, max_keepalive_connections=1)
    head = {"Authorization": f"Bearer {KEY}"}
    return httpx.AsyncClient(base_url=url, headers=head, timeout=90, limits=limits, verify=False)  # no certificates are loaded


@dataclass
class Soak:
    url: str
    ends: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    last_kill: float = -100.0
    last_container: float = -100.0
    honest: list[float] = field(default_factory=list)  # seconds
    wrong: int = 0
    hit: int = 0  # by a kill

    def fault(self, what: str) -> None:
        self.ends["fault"] += 1
        if len(self.faults) < 20:
            self.faults.append(what[:300])

    def excused(self, began: float) -> bool:
        """Whether a kill may have hit what began then: while it ran, or a container's shortly before."""
        return self.last_kill > began or self.last_container > began - RECOVERY_S

    def count(self, kind: str, status: int, allowed: Sequence[int]) -> None:
        self.ends[f"{kind} {status}"] += 1
        if status not in allowed:
            self.fault(f"{kind} got {status}")

    async def product(self, http: httpx.AsyncClient, draw: random.Random) -> None:
        """An honest question, streamed or not, by either API."""
        left, right = draw.randrange(10**6), draw.randrange(10**6)
        stream, responses, began = draw.random() < 0.6, draw.random() < 0.3, time.monotonic()
        question = f"ask: product {left} {right}"
        body: dict[str, Any] = {"model": "reasoner", "stream": stream}
        body |= {"input": question} if responses else {"messages": [{"role": "user", "content": question}]}
        answer = await http.post("/v1/responses" if responses else "/v1/chat/completions", json=body)
        self.judge("honest", answer.status_code, answer.text, left * right, began)
        if answer.status_code == 429:
            if not answer.headers.get("retry-after", "").isdigit():
                self.fault("a full queue did not say when to come again")
            await asyncio.sleep(draw.random())

    def judge(self, kind: str, status: int, text: str, wanted: int, began: float) -> None:
        """An honest answer. Another's number is wrong, whatever was killed; none at all is what a kill may do."""
        excused = self.excused(began)
        self.count(kind, status, [200, 429, 502] if excused else [200, 429])
        if status != 200:
            self.hit += status == 502 and excused
            return
        self.honest.append(time.monotonic() - began)
        found = BOXED.findall(told(text))
        if found == [str(wanted)]:
            self.ends["right"] += 1
        elif any(one.lstrip("-").isdigit() for one in found):
            self.wrong += 1
            self.fault(f"wrong: {wanted} wanted, {found} found, {text[-200:]}")
        elif excused:
            self.hit += 1
        else:
            self.ends["unanswered"] += 1
            self.fault(f"unanswered: {wanted} wanted, {found} found, {text[-200:]}")

    async def last(self, http: httpx.AsyncClient) -> None:
        """One that is under way when the service is told to end: it is answered."""
        began = time.monotonic()
        body = {"model": "reasoner", "max_tokens": 4000, "messages": [{"role": "user", "content": "ask: long"}]}
        answer = await http.post("/v1/chat/completions", json=body)
        self.judge("last", answer.status_code, answer.text, 1, began)

    async def hostile(self, http: httpx.AsyncClient, draw: random.Random) -> None:
        body = {"model": "reasoner", "messages": [{"role": "user", "content": f"ask: {draw.choice(list(HOSTILE))}"}]}
        answer = await http.post("/v1/chat/completions", json=body)
        self.count("hostile", answer.status_code, [200, 429, 502])

    async def leaving(self, http: httpx.AsyncClient, draw: random.Random) -> None:
        """Goes away before the first text, in the middle, or while its code runs."""
        question = draw.choice(["ask: long", "ask: loop", "ask: product 3 4"])
        body: dict[str, Any] = {"model": "reasoner", "stream": draw.random() < 0.7}
        responses = draw.random() < 0.3
        body |= {"input": question} if responses else {"messages": [{"role": "user", "content": question}]}
        path = "/v1/responses" if responses else "/v1/chat/completions"
        # a client of its own: one that is cancelled while it connects loses a place of its pool for good
        async with asking(self.url) as own:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(draw.choice([0.001, 0.02, 0.1, 0.5])), own.stream("POST", path, json=body) as answer:
                    async for _ in answer.aiter_bytes():
                        pass
        self.ends["left"] += 1

    async def nonsense(self, http: httpx.AsyncClient, draw: random.Random) -> None:
        """What is no request. Each gets what it deserves, and none a 5xx."""
        path, content, headers, status = draw.choice(NONSENSE)
        given = unmeasured(content) if status == 413 and draw.random() < 0.5 else content
        answer = await http.post(path, content=given, headers={**http.headers, **headers})
        self.count(f"nonsense {status}", answer.status_code, [status])
        if "error" not in answer.text:
            self.fault(f"nonsense {status} got no reason: {answer.text}")

    async def half(self, http: httpx.AsyncClient, draw: random.Random) -> None:
        """Half a request, and away."""
        _, writer = await self.written(500, b"{")
        await asyncio.sleep(draw.random() * 0.2)
        writer.close()
        self.ends["half"] += 1

    async def slow(self, http: httpx.AsyncClient, draw: random.Random) -> None:
        """An honest question, written a few bytes at a time."""
        left, right = draw.randrange(10**6), draw.randrange(10**6)
        body = json.dumps({"model": "reasoner", "input": f"ask: product {left} {right}"}).encode()
        reader, writer = await self.written(len(body))
        for at in range(0, len(body), 8):
            await asyncio.sleep(0.1)
            writer.write(body[at : at + 8])
        began = time.monotonic()
        head, _, text = (await asyncio.wait_for(reader.read(), 90)).partition(b"\r\n\r\n")
        writer.close()
        self.judge("slow", int(head.split()[1]), text.decode(), left * right, began)

    async def written(self, length: int, body: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A request of so many bytes, of which these are sent."""
        host, port = self.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /v1/responses HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {length}\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode() + body)
        return reader, writer


GOOD = {"content-type": "application/json"}
NONSENSE: list[tuple[str, bytes, dict[str, str], int]] = [
    ("/v1/chat/completions", b"{nonsense", GOOD, 400),
    ("/v1/chat/completions", b"\xff\xfe\x00", GOOD, 400),
    ("/v1/chat/completions", b'{"model": 3, "messages": "x"}', GOOD, 400),
    ("/v1/chat/completions", b'{"model": "no such", "messages": [{"role": "user", "content": "x"}]}', GOOD, 404),
    ("/v1/chat/completions", b'{"model": "reasoner", "messages": [{"role": "user", "content": "x"}], "n": 5}', GOOD, 400),
    ("/v1/responses", b"[" * 100_000, GOOD, 400),
    ("/v1/chat/completions", b"{}", GOOD | {"authorization": "Bearer wrong"}, 401),
    ("/v1/chat/completions", b" " * (9 << 20), GOOD, 413),
    ("/v1/nothing", b"{}", GOOD, 404),
]


async def unmeasured(content: bytes) -> AsyncIterator[bytes]:
    """A body whose length no header tells."""
    for at in range(0, len(content), 1 << 16):
        yield content[at : at + (1 << 16)]


def told(text: str) -> str:
    """All text of an answer: a stream's deltas, or what is not streamed."""
    if text.startswith("{"):
        whole = json.loads(text)
        said = [choice["message"].get("content") or "" for choice in whole.get("choices", [])]
        return "".join(said + [part["text"] for item in whole.get("output", []) for part in item.get("content") or []])
    found: list[str] = []
    for line in text.splitlines():
        if line.startswith("data: {"):
            data = json.loads(line[6:])
            found += [choice["delta"].get("content") or "" for choice in data.get("choices", [])]
            found.append(data["delta"] if data.get("type") == "response.output_text.delta" else "")
    return "".join(found)


Kind = Callable[[Soak, httpx.AsyncClient, random.Random], Awaitable[None]]
KINDS: list[tuple[Kind, int]] = [
    (Soak.product, 70),
    (Soak.leaving, 12),
    (Soak.nonsense, 10),
    (Soak.hostile, 5),
    (Soak.half, 2),
    (Soak.slow, 1),
]


async def client(soak: Soak, number: int, until: float) -> None:
    draw = random.Random(number)
    async with asking(soak.url) as http:
        while time.monotonic() < until:
            kind = draw.choices([one for one, _ in KINDS], [weight for _, weight in KINDS])[0]
            try:
                await kind(soak, http, draw)
            except (httpx.HTTPError, OSError, ValueError, IndexError) as error:
                soak.fault(f"{kind.__name__}: {type(error).__name__} {error}")
