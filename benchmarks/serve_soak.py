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
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import httpx
from rich.console import Console
from rich.progress import Progress

sys.path.insert(0, str(Path(__file__).parent))

from serve_soak_clients import HOSTILE, KEY, Soak, asking, client

from toolreason.execution import open_sandbox, reaper
from toolreason.execution.engine import Engine
from toolreason.policies.base import Completion, Policy
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.serve.openai import Model, Options, serve
from toolreason.strategies.base import changed, load
from toolreason.types import Sampling, Segment, Source

INSIDE = "/inside"
LEAKS = ("running", "waiting", "sessions", "rollouts")  # what must be 0 when all is answered
RUNNING, WAITING = 32, 8  # fewer than the clients: some are told to come again
GROWTH_MB = 40.0  # that memory may grow by, from the first quarter to the last
LAST = 4  # requests that are under way when it is told to end
KILL_S = 5.0  # a kill so often
KILL_ONE = """
import os, random
there = [int(name) for name in os.listdir('/proc') if name.isdigit() and os.stat('/proc/' + name).st_uid]
os.kill(random.choice(there), 9)  # fails, and is not counted, where no session has one
"""


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
    settings = changed(plan.settings(), {"format": "fenced", "stateful": True, "cell_timeout_s": 5.0})
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
