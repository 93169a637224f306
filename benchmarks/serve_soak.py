"""Does the endpoint hold up? Many clients for half an hour, of whom some hang up, some write nonsense and some run hostile code.

    python benchmarks/serve_soak.py [--minutes 30] [--clients 48] [--quick] [--json]

The real service runs in a process of its own, with keys, a bounded queue and the real sandbox; a script is its policy, which writes
the code that the question asks for, reads its output and answers. Each honest question has numbers of its own, so that an answer
from another's session shows. Every few seconds one of the service's containers is killed from outside; an honest request may then
end as 502, and these are counted. Watched: memory, descriptors and threads of the service, its containers, what it says that runs
and waits. Exit code 1 if an answer was wrong, a request got a status that it should not get, memory grew, or anything was left.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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

KEY = "soak-" + "k" * 32
RUNNING, WAITING = 32, 16
GROWTH_MB = 40.0  # that memory may grow by, from the first quarter to the last
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
        """From the first quarter (after the warm-up, a tenth) to the last, by medians."""
        rows = self.rows[len(self.rows) // 10 :]
        quarter = max(1, len(rows) // 4)
        first, last = ([row[name] for row in part] for part in (rows[:quarter], rows[-quarter:]))
        return statistics.median(last) - statistics.median(first)


@dataclass
class Soak:
    url: str
    ends: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    kills: int = 0
    last_kill: float = -100.0
    honest: list[float] = field(default_factory=list)  # seconds

    def fault(self, what: str) -> None:
        self.ends["fault"] += 1
        if len(self.faults) < 20:
            self.faults.append(what[:300])

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
        allowed = [200, 429] + ([502] if began - self.last_kill < 5 or self.last_kill > began else [])
        self.count("honest", answer.status_code, allowed)
        if answer.status_code != 200:
            return
        self.honest.append(time.monotonic() - began)
        wanted = f"{{{left * right}}}"
        if wanted in answer.text or wanted in told(answer.text):
            self.ends["right"] += 1
        elif self.last_kill > began - 5:
            self.ends["after a kill"] += 1
        else:
            self.fault(f"wrong: {left} * {right}, {answer.text[-300:]}")

    async def hostile(self, http: httpx.AsyncClient, draw: random.Random) -> None:
        body = {"model": "reasoner", "messages": [{"role": "user", "content": f"ask: {draw.choice(list(HOSTILE))}"}]}
        answer = await http.post("/v1/chat/completions", json=body)
        self.count("hostile", answer.status_code, [200, 429, 502])

    async def leaving(self, http: httpx.AsyncClient, draw: random.Random) -> None:
        """Goes away before the first text, in the middle, or while its code runs."""
        question = draw.choice(["ask: long", "ask: loop", "ask: product 3 4"])
        body = {"model": "reasoner", "stream": draw.random() < 0.7, "messages": [{"role": "user", "content": question}]}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(draw.choice([0.001, 0.02, 0.1, 0.5])):
                async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
                    async for _ in answer.aiter_bytes():
                        pass
        self.ends["left"] += 1

    async def nonsense(self, http: httpx.AsyncClient, draw: random.Random) -> None:
        """What is no request. Each gets what it deserves, and none a 5xx."""
        path, content, headers, status = draw.choice(NONSENSE)
        answer = await http.post(path, content=content, headers={**http.headers, **headers})
        self.count(f"nonsense {status}", answer.status_code, [status])

    async def half(self, http: httpx.AsyncClient, draw: random.Random) -> None:
        """Half a request, and away."""
        host, port = self.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 500\r\nAuthorization: Bearer "
            + KEY.encode()
            + b"\r\n\r\n{"
        )
        await asyncio.sleep(draw.random() * 0.2)
        writer.close()
        self.ends["half"] += 1


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


def told(text: str) -> str:
    """All text of a stream's deltas."""
    found = []
    for line in text.splitlines():
        if line.startswith("data: {"):
            data = json.loads(line[6:])
            found += [choice["delta"].get("content") or "" for choice in data.get("choices", [])]
            found.append(data["delta"] if data.get("type") == "response.output_text.delta" else "")
    return "".join(found)


Kind = Callable[[Soak, httpx.AsyncClient, random.Random], Awaitable[None]]
KINDS: list[tuple[Kind, int]] = [(Soak.product, 70), (Soak.leaving, 12), (Soak.nonsense, 10), (Soak.hostile, 5), (Soak.half, 3)]


async def client(soak: Soak, number: int, until: float) -> None:
    draw = random.Random(number)
    limits = httpx.Limits(max_connections=2, max_keepalive_connections=1)
    async with httpx.AsyncClient(base_url=soak.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=90, limits=limits) as http:
        while time.monotonic() < until:
            kind = draw.choices([one for one, _ in KINDS], [weight for _, weight in KINDS])[0]
            try:
                await kind(soak, http, draw)
            except httpx.HTTPError as error:
                soak.fault(f"{kind.__name__}: {type(error).__name__} {error}")


async def said(http: httpx.AsyncClient) -> dict[str, float]:
    """What /metrics says that runs and waits."""
    text = (await http.get("/metrics")).text
    names = {"toolreason_running": "running", "toolreason_waiting": "waiting"}
    return {names[line.split()[0]]: float(line.split()[1]) for line in text.splitlines() if line.split(" ")[0] in names}


def containers(engine: Any, pid: int) -> list[str]:
    label = f"{reaper.LABEL}.pid={pid}"
    return [one["Id"] for one in engine.api.containers(all=True, filters={"label": label})]


async def watching(soak: Soak, watch: Watch, engine: Any, began: float, until: float, progress: Progress) -> None:
    """Looks every few seconds, and kills a container in every third of them."""
    bar, turn = progress.add_task("soak", total=until - began), 0
    async with httpx.AsyncClient(base_url=soak.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as http:
        while (now := time.monotonic()) < until:
            there = await asyncio.to_thread(containers, engine, watch.pid)
            watch.look(began, {**await said(http), "containers": float(len(there))})
            turn += 1
            if turn % 3 == 0 and there:
                soak.last_kill = time.monotonic()
                soak.kills += await asyncio.to_thread(reaper.kill, engine, random.Random(turn).choice(there))
                soak.last_kill = time.monotonic()
            progress.update(
                bar, completed=now - began, description=f"soak: {soak.ends['right']} right, {soak.ends['fault']} faults"
            )
            await asyncio.sleep(max(1.0, min(10.0, (until - began) / 60)))


async def load_it(url: str, pid: int, engine: Any, clients: int, seconds: float) -> tuple[Soak, Watch]:
    soak, watch, began = Soak(url), Watch(pid), time.monotonic()
    with Progress(console=Console(stderr=True)) as progress:
        looking = asyncio.ensure_future(watching(soak, watch, engine, began, began + seconds, progress))
        await asyncio.gather(*(client(soak, number, began + seconds) for number in range(clients)))
        await looking
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as http:
        for _ in range(100):  # all is answered, and clients that left are noticed
            after = await said(http)
            if not any(after.values()):
                break
            await asyncio.sleep(0.1)
        watch.look(began, {**after, "containers": float(len(containers(engine, pid)))})
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

    toolreason.policies.open_policy = ours  # type: ignore[assignment]
    plan = load("artist")
    settings = changed(plan.settings(), {"format": "fenced", "stateful": True, "cell_timeout_s": 2.0})
    serve(
        [Model("reasoner", plan, settings)],
        "soak",
        lambda sessions: open_sandbox("docker", density="shared", max_sessions=sessions),
        port=0,
        keys=(KEY,),
        options=Options(RUNNING, WAITING, 60.0, 4096, 30.0, out),
    )


def summary(soak: Soak, watch: Watch, code: int, left: int, minutes: float, clients: int) -> dict[str, Any]:
    last, ends = watch.rows[-1], soak.ends
    honest = sorted(soak.honest) or [0.0]
    report: dict[str, Any] = {
        "minutes": minutes,
        "clients": clients,
        "requests": sum(count for name, count in ends.items() if name not in ("right", "fault", "after a kill")),
        "right": ends["right"],
        "kills": soak.kills,
        "hit_by_a_kill": ends["after a kill"] + ends["honest 502"],
        "faults": ends["fault"],
        "first_faults": soak.faults,
        "ends": dict(sorted(ends.items())),
        "honest_s_p50": round(honest[len(honest) // 2], 3),
        "honest_s_p99": round(honest[min(len(honest) - 1, int(0.99 * len(honest)))], 3),
        "rss_growth_mb": round(watch.growth("rss_mb"), 1),
        "descriptor_growth": watch.growth("descriptors"),
        "thread_growth": watch.growth("threads"),
        "at_the_end": last,
        "exit_code": code,
        "containers_left": left,
        "rows": watch.rows[:: max(1, len(watch.rows) // 30)],
    }
    report["ok"] = (
        not ends["fault"]
        and ends["right"] > 0
        and report["rss_growth_mb"] < GROWTH_MB
        and not last["running"]
        and not last["waiting"]
        and code == 0
        and left == 0
    )
    return report


def main(minutes: float, clients: int) -> dict[str, Any]:
    engine = Engine.find().client()
    with tempfile.TemporaryDirectory() as folder, service(Path(folder)) as (url, process):
        soak, watch = asyncio.run(load_it(url, process.pid, engine, clients, 60 * minutes))
        process.send_signal(signal.SIGTERM)
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
