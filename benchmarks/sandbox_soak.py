"""Does the sandbox hold up? Very many calls over very many sessions, one in a hundred of them hostile.

    python benchmarks/sandbox_soak.py [--calls 100000] [--sessions 200] [--density shared] [--json]

Each session carries a checksum in a variable and in a file of its work folder, which every good cell continues and prints; the
host knows what it must be. After a hostile cell the next good one shows that nothing of it stayed. Reported: calls lost (the
sandbox failed) and wrong, what became of the hostile cells, calls a second, and whether memory, descriptors and processes are
flat: late ones against early ones. Exit code 1 if anything was lost, wrong, or left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from rich.console import Console
from rich.progress import Progress

from sandbox import percentile, used_mb
from toolreason.errors import SandboxError
from toolreason.execution import Limits, Session, reaper
from toolreason.execution.docker import DockerSandbox
from toolreason.execution.engine import Engine

LIMITS = Limits(cell_timeout_s=20, memory_mb=128, disk_mb=8, processes=16, forks=0, undo_depth=1, output_hard_mb=2)
START = "total = 0\nopen('total', 'w').write('0')"
STEP = """
total = (total * 31 + {number}) % 1000003
kept = open('total').read()
open('total', 'w').write(str(total))
print(total, kept)
"""
SPOIL = "total = -1\nopen('total', 'w').write('spoilt')\nopen('more', 'w').write('x' * 1000)\n"
WRITE = "import os\nfor fd in range(3, 256):\n    try: os.write(fd, {})\n    except OSError: pass\nos._exit(3)"
DAEMON = "import os\nif os.fork() == 0:\n    os.setsid()\n    while True: open('total', 'w').write('daemon')\nos._exit(1)"
KILL = "import os\nfor pid in (1, -1, os.getppid()):\n    try: os.kill(pid, 9)\n    except OSError: pass\nos._exit(3)"
HOSTILE = {  # the cell, and its time limit
    "exit": ("import os\nos._exit(0)", 20.0),
    "sigkill": ("import os\nos.kill(os.getpid(), 9)", 20.0),
    "segfault": ("import ctypes\nctypes.string_at(0)", 20.0),
    "loop": ("while True: pass", 0.5),
    "memory": ("hog = []\nwhile True: hog.append(bytearray(10_000_000))", 20.0),
    "forks": ("import os\nwhile True: os.fork()", 5.0),
    "stubborn_forks": ("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", 0.5),
    "threads": ("import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,)).start()", 5.0),
    "flood": ("while True: print('y' * 1000)", 20.0),
    "kill_all": (KILL, 20.0),
    "scribble": (WRITE.format("b'[' * 4000"), 20.0),
    "forge": (WRITE.format(r"b'ok plain | 1 - -\n7'"), 20.0),  # says of itself that all is well, and dies
    "disk": ("with open('fill', 'wb') as file:\n    while True: file.write(b'x' * 100000)", 20.0),
    "inodes": ("for i in range(100000): open(f'i{i}', 'w').close()", 20.0),
    "deep": ("import os\nfor _ in range(200): os.mkdir('d'); os.chdir('d')", 20.0),
    "builtins": ("import builtins\nbuiltins.__dict__.clear()", 20.0),
    "daemon": (DAEMON, 20.0),
}


@dataclass
class Tally:
    """What was seen."""

    calls: int = 0
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    hostile: Counter[str] = field(default_factory=Counter)
    samples: list[dict[str, float]] = field(default_factory=list)


async def drive(session: Session, name: int, share: int, seed: int, tally: Tally, tick: Any) -> None:
    """One session's calls, one after the other."""
    rng = random.Random(seed * 100_003 + name)
    total = 0
    try:
        await session.run(START)
        for number in range(share):
            if rng.random() < 0.01:
                kind = rng.choice(list(HOSTILE))
                code, timeout = HOSTILE[kind]
                result = await session.run(SPOIL + code, timeout_s=timeout)
                tally.hostile[f"{kind}: {result.outcome}"] += 1
                if result.outcome.committed and kind != "forge":
                    tally.wrong.append(f"session {name}, call {number}: {kind} stayed, {result.outcome} {result.error}")
                    return
            else:
                began = time.perf_counter()
                result = await session.run(STEP.format(number=number))
                tally.times.append(time.perf_counter() - began)
                before, total = total, (total * 31 + number) % 1000003
                if not result.ok or result.stdout != f"{total} {before}\n":
                    tally.wrong.append(f"session {name}, call {number}: {result}"[:400])
                    return
            tally.calls += 1
            tick()
    except SandboxError as error:
        tally.lost.append(f"session {name}: {error}"[:400])


def sample(sandbox: DockerSandbox) -> dict[str, float]:
    """What the host and the containers use now."""
    status = Path("/proc/self/status").read_text()
    containers = list(sandbox._containers)
    found = {"host_rss_mb": int(status.split("VmRSS:")[1].split()[0]) / 1e3}
    found["host_descriptors"] = float(len(os.listdir("/proc/self/fd")))
    found["containers_mb"] = sum(used_mb(container) for container in containers)
    found["processes"] = float(sum(1 for name in os.listdir("/proc") if name.isdigit()))
    return found


async def watch(sandbox: DockerSandbox, tally: Tally, calls: int) -> None:
    """A sample each fiftieth of the way."""
    due = 0.05
    while True:
        await asyncio.sleep(0.2)
        if tally.calls >= due * calls:
            tally.samples.append(await asyncio.to_thread(sample, sandbox) | {"at": tally.calls / calls})
            due = tally.calls / calls + 0.02


async def soak(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    tally, share = Tally(), options.calls // options.sessions
    slots = {"slots": options.sessions} if options.density == "shared" else {}
    began = time.monotonic()
    async with DockerSandbox(LIMITS, density=options.density, max_sessions=options.sessions, pool=0, **slots) as sandbox:
        sessions = await asyncio.gather(*(sandbox.session() for _ in range(options.sessions)))
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task(f"{options.calls} calls", total=options.calls)
            watching = asyncio.ensure_future(watch(sandbox, tally, options.calls))
            began = time.monotonic()
            work = [drive(s, n, share, options.seed, tally, lambda: progress.advance(task)) for n, s in enumerate(sessions)]
            try:
                await asyncio.gather(*work)
            except asyncio.CancelledError:
                console.print("interrupted: this is what was seen so far")
            finally:
                watching.cancel()
        seconds = time.monotonic() - began
    client = Engine.find().client()
    left = len(client.api.containers(all=True, filters={"label": f"{reaper.LABEL}={sandbox.id}"}))
    client.close()
    return report(tally, seconds, left) | {"command": " ".join(sys.argv), "sessions": options.sessions, "seed": options.seed}


def report(tally: Tally, seconds: float, left: int) -> dict[str, Any]:
    """The figures; of those that should be flat, the mean of the last tenth over that of the first."""
    early = [s for s in tally.samples if s["at"] <= 0.2] or tally.samples[:1]
    late = [s for s in tally.samples if s["at"] >= 0.9] or tally.samples[-1:]
    flat = {}
    for name in ("host_rss_mb", "host_descriptors", "containers_mb", "processes"):
        if early and late:
            first, last = (statistics.mean(s[name] for s in part) for part in (early, late))
            flat[name] = {"first": round(first, 1), "last": round(last, 1), "ratio": round(last / first, 3)}
    found: dict[str, Any] = {"calls": tally.calls, "calls_per_s": round(tally.calls / seconds, 1), "seconds": round(seconds)}
    if tally.times:
        found |= {"p50_ms": round(statistics.median(tally.times) * 1e3, 1), "p99_ms": round(percentile(tally.times, 99) * 1e3, 1)}
    found |= {"lost": len(tally.lost), "wrong": len(tally.wrong), "containers_left": left, "flat": flat}
    return found | {"hostile": dict(sorted(tally.hostile.items())), "trouble": (tally.wrong + tally.lost)[:10]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--density", choices=("shared", "container"), default="shared")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    console = Console(stderr=True)
    found = asyncio.run(soak(options, console))
    for name, value in found.items():
        console.print(f"{name}: {value}")
    if options.json:
        print(json.dumps(found))
    raise SystemExit(bool(found["lost"] or found["wrong"] or found["containers_left"]))


if __name__ == "__main__":
    main()
