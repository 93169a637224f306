"""Does the endpoint hold up? Many clients for half an hour, of whom some hang up, some write nonsense and some run hostile code.

    python benchmarks/serve_soak.py [--minutes 30] [--clients 48] [--quick] [--json]

The real service runs in a process of its own, with keys, a bounded queue and the real sandbox; a script is its policy, which writes
the code that the question asks for, reads its output and answers. Each honest question has numbers of its own, so that an answer
from another's session shows. Every few seconds a session's process, or the service's whole container, is killed from outside; an
honest request that this hits may end as 502 or without a number, and these are counted; a number that is not its own is always
wrong. Watched: memory, descriptors, threads and tasks of the service, its containers, sessions in use, what it says that runs and
waits. Exit code 1 if an answer was wrong, a request got a status that it should not get, memory grew, or anything was left.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import httpx
from rich.console import Console
from rich.progress import Progress

from toolreason.execution import open_sandbox, reaper
from toolreason.execution.engine import Engine
from toolreason.policies.base import Completion, Policy
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.serve.openai import Model, Options, serve
from toolreason.strategies.base import changed, load
from toolreason.types import Sampling, Segment, Source

INSIDE = "/inside"
LEAKS = ("running", "waiting", "sessions", "rollouts")  # what must be 0 when all is answered
KEY = "soak-" + "k" * 32
RUNNING, WAITING = 32, 8  # fewer than the clients: some are told to come again
GROWTH_MB = 40.0  # that memory may grow by, from the first quarter to the last
LAST = 4  # requests that are under way when it is told to end
KILL_S, RECOVERY_S = 5.0, 5.0  # a kill so often; so long after its container's a request may still fail for it
BOXED = re.compile(r"So \\boxed\{(.*?)\}\.")
KILL_ONE = """
import os, random
there = [int(name) for name in os.listdir('/proc') if name.isdigit() and os.stat('/proc/' + name).st_uid]
os.kill(random.choice(there), 9)  # fails, and is not counted, where no session has one
"""
HOSTILE = {
    "exit": "import os\nos._exit(1)",
    "kill": "import os, signal\nos.kill(os.getppid(), 9)\nos.kill(os.getpid(), 9)",
    "memory": "x = []\nwhile True: x.append(bytearray(10_000_000))",
    "loop": "while True: pass",
    "forks": "import os\nwhile True: os.fork()",
    "flood": "while True: print('y' * 1000)",
}


class Answering(ScriptedPolicy):
    """Writes the code that was asked for, then answers with what came of it."""

    def __init__(self) -> None:
        super().__init__([], name="soak")

    async def sample(self, segments: Sequence[Segment], sampling: Sampling, **how: Any) -> Completion:
        told = [segment for segment in segments if segment.source is Source.TOOL]
        asked = segments[0].text.rsplit("ask:", 1)[-1].split("<", 1)[0].split()
        if told and told[-1].cell is not None:
            return await ScriptedPolicy([f"So \\boxed{{{told[-1].cell.result.stdout.strip() or 'nothing'}}}."]).sample(
                segments, sampling, **how
            )
        code = HOSTILE.get(asked[0], "")
        if asked[0] == "product":
            code = f"kept = {asked[1]}\nprint(kept * {asked[2]})"
        thought = "Let me think about that for a while. " * (30 if asked[0] == "long" else 1)
        reply = f"{thought}\n```python\n{code or 'print(1)'}\n```\n"
        return await ScriptedPolicy([reply], delay_s=0.002).sample(segments, sampling, **how)


@dataclass
class Watch:
    """What was seen, every so many seconds."""

    pid: int
    rows: list[dict[str, float]] = field(default_factory=list)

    def look(self, began: float, said: dict[str, float]) -> None:
        status = Path(f"/proc/{self.pid}/status").read_text()
        values = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith(("VmRSS", "Threads"))}
        row = {"s": round(time.monotonic() - began, 1), "rss_mb": int(values["VmRSS"]) / 1024, "threads": float(values["Threads"])}
        self.rows.append(row | {"descriptors": float(len(os.listdir(f"/proc/{self.pid}/fd")))} | said)

    def growth(self, name: str) -> float:
        """From the first quarter (after the warm-up) to the last, by medians."""
        rows = self.warm()
        quarter = max(1, len(rows) // 4)
        first, last = ([row[name] for row in part] for part in (rows[:quarter], rows[-quarter:]))
        return statistics.median(last) - statistics.median(first)

    def slope(self, name: str) -> float:
        """An hour's growth at the pace of what was seen after the warm-up, by least squares."""
        rows = self.warm()
        if len({row["s"] for row in rows}) < 2:
            return 0.0
        return 3600 * statistics.linear_regression([row["s"] for row in rows], [row[name] for row in rows]).slope

    def warm(self) -> list[dict[str, float]]:
        """Without the warm-up: three minutes, or a fifth. Nor the last row, where nothing runs any more."""
        rows = self.rows[:-1] or self.rows
        return [row for row in rows if row["s"] >= min(180.0, 0.2 * rows[-1]["s"])]


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
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(draw.choice([0.001, 0.02, 0.1, 0.5])):
                async with http.stream("POST", path, json=body) as answer:
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
    limits = httpx.Limits(max_connections=2, max_keepalive_connections=1)
    async with httpx.AsyncClient(base_url=soak.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=90, limits=limits) as http:
        while time.monotonic() < until:
            kind = draw.choices([one for one, _ in KINDS], [weight for _, weight in KINDS])[0]
            try:
                await kind(soak, http, draw)
            except (httpx.HTTPError, OSError, ValueError, IndexError) as error:
                soak.fault(f"{kind.__name__}: {type(error).__name__} {error}")


async def said(http: httpx.AsyncClient) -> dict[str, float]:
    """What /metrics says that runs and waits, and what is in use inside."""
    text = (await http.get("/metrics")).text
    names = {"toolreason_running": "running", "toolreason_waiting": "waiting"}
    found = {names[line.split()[0]]: float(line.split()[1]) for line in text.splitlines() if line.split(" ")[0] in names}
    inside: dict[str, float] = (await http.get(f"{INSIDE}/")).json()
    return found | inside


def containers(engine: Any, pid: int) -> list[str]:
    """The service's own: others of this engine have other labels."""
    marks = [f"{reaper.LABEL}.pid={pid}", f"{reaper.LABEL}.host={reaper.host_id()}"]
    return [one["Id"] for one in engine.api.containers(all=True, filters={"label": marks})]


def asking(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60)


async def watching(soak: Soak, watch: Watch, engine: Any, began: float, until: float, progress: Progress) -> None:
    """Looks every few seconds."""
    bar = progress.add_task("soak", total=until - began)
    async with asking(soak.url) as http:
        while (now := time.monotonic()) < until:
            there = await asyncio.to_thread(containers, engine, watch.pid)
            watch.look(began, {**await said(http), "containers": float(len(there))})
            told = f"soak: {soak.ends['right']} right, {soak.ends['fault']} faults"
            progress.update(bar, completed=now - began, description=told)
            await asyncio.sleep(max(1.0, min(10.0, (until - began) / 60)))


async def killing(soak: Soak, engine: Any, pid: int, until: float) -> None:
    """A process of one of the sessions every few seconds, and each fourth time the whole container."""
    draw, turn = random.Random(pid), 0
    while time.monotonic() + KILL_S < until:
        await asyncio.sleep(KILL_S)
        there = await asyncio.to_thread(containers, engine, pid)
        if not there:
            continue
        turn += 1
        whole = turn % 4 == 1
        await asyncio.to_thread(kill, soak, engine, draw.choice(there), whole)


def kill(soak: Soak, engine: Any, container: str, whole: bool) -> None:
    soak.last_kill = time.monotonic()
    if whole:
        soak.kills["container"] += reaper.kill(engine, container)
        soak.last_container = time.monotonic()
    else:
        with contextlib.suppress(docker.errors.APIError):  # the container has gone in the meantime
            made = engine.api.exec_create(container, ["python3", "-c", KILL_ONE], user="0")
            engine.api.exec_start(made["Id"])
            soak.kills["process"] += engine.api.exec_inspect(made["Id"])["ExitCode"] == 0
    soak.last_kill = time.monotonic()


async def load_it(url: str, pid: int, engine: Any, clients: int, seconds: float) -> tuple[Soak, Watch]:
    soak, watch, began = Soak(url), Watch(pid), time.monotonic()
    with Progress(console=Console(stderr=True)) as progress:
        looking = asyncio.ensure_future(watching(soak, watch, engine, began, began + seconds, progress))
        killer = asyncio.ensure_future(killing(soak, engine, pid, began + seconds))
        await asyncio.gather(*(client(soak, number, began + seconds) for number in range(clients)))
        await asyncio.gather(looking, killer)
    async with asking(url) as http:
        for _ in range(100):  # all is answered, and clients that left are noticed
            after = await said(http)
            if not any(after[name] for name in LEAKS):
                break
            await asyncio.sleep(0.1)
        watch.look(began, {**after, "containers": float(len(containers(engine, pid)))})
        lasts = [asyncio.ensure_future(soak.last(http)) for _ in range(LAST)]
        while (await said(http))["running"] < LAST and not any(one.done() for one in lasts):  # noqa: ASYNC110 (nothing tells)
            await asyncio.sleep(0.05)
        os.kill(pid, signal.SIGTERM)
        for error in await asyncio.gather(*lasts, return_exceptions=True):
            if error is not None:
                soak.fault(f"last: {type(error).__name__} {error}")
    return soak, watch


@contextlib.contextmanager
def service(out: Path) -> Any:
    command = [sys.executable, __file__, "--serve", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = ""
        for line in process.stdout:
            if "http://" in line:
                url = "http://" + line.split("http://")[1].split("/v1")[0]
                break
        try:
            yield url, process
        finally:
            process.kill()


def serving(out: Path) -> None:
    import toolreason.policies

    async def ours(spec: str) -> Policy:
        return Answering()

    boxes: list[Any] = []

    def opened(sessions: int) -> Any:
        boxes.append(open_sandbox("docker", density="shared", max_sessions=sessions))
        return boxes[-1]

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        """What no route tells: how much of it is in use."""
        book = scope["app"].state.desk._sessions
        found = {"tasks": len(asyncio.all_tasks()), "sessions": len(boxes[0]._leased), "rollouts": len(book._entries)}
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(found).encode()})

    toolreason.policies.open_policy = ours  # type: ignore[assignment]
    plan = load("artist")
    settings = changed(plan.settings(), {"format": "fenced", "stateful": True, "cell_timeout_s": 2.0})
    serve(
        [Model("reasoner", plan, settings)],
        "soak",
        opened,
        port=0,
        keys=(KEY,),
        options=Options(RUNNING, WAITING, 60.0, 4096, 30.0, out, {INSIDE: inside}),
    )


def summary(soak: Soak, watch: Watch, code: int, left: int, minutes: float, clients: int) -> dict[str, Any]:
    last, ends = watch.rows[-1], soak.ends
    honest = sorted(soak.honest) or [0.0]
    report: dict[str, Any] = {
        "minutes": minutes,
        "clients": clients,
        "requests": sum(count for name, count in ends.items() if name not in ("right", "fault", "unanswered")),
        "right": ends["right"],
        "wrong": soak.wrong,
        "kills": dict(soak.kills),
        "hit_by_a_kill": soak.hit,
        "other_5xx": sum(count for name, count in ends.items() if re.search(r" 5(?!0[234])\d\d$", name)),
        "faults": ends["fault"],
        "first_faults": soak.faults,
        "ends": dict(sorted(ends.items())),
        "honest_s_p50": round(honest[len(honest) // 2], 3),
        "honest_s_p99": round(honest[min(len(honest) - 1, int(0.99 * len(honest)))], 3),
        "rss_growth_mb": round(watch.growth("rss_mb"), 1),
        "rss_slope_mb_per_hour": round(watch.slope("rss_mb"), 1),
        "descriptor_growth": watch.growth("descriptors"),
        "thread_growth": watch.growth("threads"),
        "task_growth": watch.growth("tasks"),
        "leaked": {name: last[name] for name in LEAKS if last[name]},
        "at_the_end": last,
        "exit_code": code,
        "containers_left": left,
        "rows": watch.rows,
    }
    report["ok"] = (
        not ends["fault"]
        and ends["right"] > 0
        and report["rss_growth_mb"] < GROWTH_MB
        and not report["leaked"]
        and code == 0
        and left == 0
    )
    return report


def main(minutes: float, clients: int) -> dict[str, Any]:
    engine = Engine.find().client()
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as (url, process):
        soak, watch = asyncio.run(load_it(url, process.pid, engine, clients, 60 * minutes))
        code = process.wait(60)
        return summary(soak, watch, code, len(containers(engine, process.pid)), minutes, clients)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=48)
    parser.add_argument("--quick", action="store_true", help="one minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve is not None:
        serving(given.serve)
        sys.exit()
    found = main(1.0 if given.quick else given.minutes, given.clients)
    for name, value in found.items():
        if name not in ("rows", "first_faults"):
            print(f"{name}: {value}", file=sys.stderr)
    for fault in found["first_faults"]:
        print(fault, file=sys.stderr)
    if given.json:
        print(json.dumps(found))
    sys.exit(not found["ok"])
