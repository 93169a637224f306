"""How fast is a call in the sandbox, and what does a session cost?

    python benchmarks/sandbox.py [--quick] [--json] [--chart docs/sandbox-speed.svg]

All in one run, on one machine, with the same image: both densities of ours, llm-sandbox, `docker exec`, `docker run`, a Jupyter
kernel in a container (not with `--quick`), and the limit, a bare fork of a process with the same imports that runs the same cell
with nothing around it. Every cell is `print(i * 7)`, every answer is checked. What is compared is measured in turns, so that
whatever else the machine does meets all alike. `--json` prints one JSON object as its last line.

Ratios: `warm_call_over_bare_fork` and `speedup_over_llm_sandbox` are of medians, ours in the default density;
`rate_share_of_bare_fork_64` is calls a second of 64 sessions (the better density) over those of the bare fork with as many parents
in parallel as there are cores. `shared_mb_per_session` is what one more fresh session adds to its container's memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import statistics
import sys
import time
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import sandbox_peers as peers
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from toolreason.execution import Limits, Session
from toolreason.execution.docker import DockerSandbox
from toolreason.execution.engine import Engine
from toolreason.execution.image import find, source

SMALL = Limits(memory_mb=128, disk_mb=8, forks=0)  # for many sessions at a time
WORK = "import sympy, numpy\nx = sympy.symbols('x')\nroots = sympy.solve(x**3 - x - 1, x)\nkept = numpy.arange(10_000)"


@dataclass(frozen=True)
class Plan:
    """How much of each is measured."""

    rounds: int = 8
    calls: int = 50
    slow_calls: int = 4
    rate_s: float = 4.0
    sessions: tuple[int, ...] = (1, 8, 64, 256)
    container_sessions: tuple[int, ...] = (1, 8, 64)
    memory_sessions: int = 64
    leases: int = 10
    peers: tuple[str, ...] = ("llm_sandbox", "docker_exec", "docker_run", "jupyter")


QUICK = Plan(3, 40, 2, 1.5, (1, 8, 64), (8,), 24, 4, ("llm_sandbox", "docker_exec", "docker_run"))


@dataclass
class Report:
    """What was measured: seconds of calls by name, and the rest as it will be printed."""

    calls: dict[str, list[float]] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, seconds: list[float]) -> None:
        self.calls.setdefault(name, []).extend(seconds)

    def median_ms(self, name: str) -> float:
        return statistics.median(self.calls[name]) * 1e3

    def summary(self) -> dict[str, Any]:
        times = {}
        for name, seconds in self.calls.items():
            p99 = percentile(seconds, 99) * 1e3
            times[name] = {"n": len(seconds), "median_ms": round(self.median_ms(name), 3), "p99_ms": round(p99, 3)}
        ratios: dict[str, Any] = {"warm_call_over_bare_fork": self.ratio("container", "bare_fork")}
        ratios["speedup_over_llm_sandbox"] = self.ratio("llm_sandbox", "container")
        return ratios | self.found | {"calls": times}

    def ratio(self, above: str, below: str) -> float | None:
        if above not in self.calls or below not in self.calls:
            return None
        return round(self.median_ms(above) / self.median_ms(below), 3)


def percentile(values: list[float], percent: float) -> float:
    """The smallest value that at least so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100).__int__() - 1)]


async def timed(session: Session, count: int) -> list[float]:
    times = []
    for number in range(count):
        began = time.perf_counter()
        result = await session.run(f"print({number} * 7)")
        times.append(time.perf_counter() - began)
        assert result.stdout == f"{number * 7}\n", result
    return times


async def latencies(plan: Plan, report: Report, client: Any, image: str, bare: peers.BareFork, tick: Any) -> None:
    """One call at a time, of everything, in turns."""
    reasons: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        with ExitStack() as open_peers:
            sessions: dict[str, Session] = {}
            for density in ("container", "shared"):
                sandbox = await stack.enter_async_context(DockerSandbox(density=density, pool=1))
                sessions[density] = await sandbox.session()
            calls = {}
            for name in plan.peers:
                call, reason = await asyncio.to_thread(open_peers.enter_context, peers.opened(name, client, image))
                calls[name] = call
                reasons |= {name: reason} if reason else {}
            for _ in range(plan.rounds):
                report.add("bare_fork", await asyncio.to_thread(bare.ask, f"calls {plan.calls}"))
                for name, session in sessions.items():
                    report.add(name, await timed(session, plan.calls))
                for name, call in calls.items():
                    if call is not None:
                        count = plan.calls if name == "jupyter" else plan.slow_calls
                        report.add(name, await asyncio.to_thread(peers.measure, call, count))
                tick()
    report.found["not_measured"] = reasons


async def leases(plan: Plan, report: Report, tick: Any) -> None:
    """How long a caller waits for a session: out of the pool, and without one."""
    for density in ("container", "shared"):
        async with DockerSandbox(density=density, pool=2, max_sessions=4) as sandbox:
            waited = []
            for _ in range(plan.leases):
                while not any(session.alive for session in sandbox._warm):  # noqa: ASYNC110 (nobody tells)
                    await asyncio.sleep(0.01)
                began = time.perf_counter()
                session = await sandbox.session()
                waited.append(time.perf_counter() - began)
                assert (await session.run("1")).ok
                await session.close()
            key = "lease_ms_p50" if density == "container" else "lease_ms_p50_shared"
            report.found[key] = round(statistics.median(waited) * 1e3, 3)
        async with DockerSandbox(density=density, pool=0, slots=64) as sandbox:
            cold = []
            for _ in range(3):
                began = time.perf_counter()
                await sandbox.session()
                cold.append(time.perf_counter() - began)
            report.found[f"cold_start_ms_{density}"] = round(cold[0] * 1e3, 1)
            if density == "shared":
                report.found["next_session_in_a_container_ms"] = round(statistics.median(cold[1:]) * 1e3, 1)
        tick()


async def rate(sessions: list[Session], seconds: float) -> tuple[float, list[float]]:
    """Calls a second of all sessions together, and the seconds of each call."""
    times: list[float] = []
    end = time.monotonic() + seconds

    async def one(session: Session) -> None:
        while time.monotonic() < end:
            times.extend(await timed(session, 1))

    began = time.monotonic()
    await asyncio.gather(*map(one, sessions))
    return len(times) / (time.monotonic() - began), times


async def rates(plan: Plan, report: Report, bare: peers.BareFork, tick: Any) -> None:
    """Calls a second, with the bare fork's before and after each."""
    cores = os.cpu_count() or 1
    shares, table = {}, {}
    for density, counts in (("shared", plan.sessions), ("container", plan.container_sessions)):
        for count in counts:
            options = {"slots": count, "max_sessions": count} if density == "shared" else {"max_sessions": count}
            async with DockerSandbox(SMALL, density=density, pool=0, **options) as sandbox:
                sessions = await asyncio.gather(*(sandbox.session() for _ in range(count)))
                await rate(sessions, 0.3)
                per_s, limit = [], []
                for _ in range(2):
                    limit.append((await asyncio.to_thread(bare.ask, f"rate {cores} {plan.rate_s / 2}")) / (plan.rate_s / 2))
                    got, times = await rate(sessions, plan.rate_s / 2)
                    per_s.append(got)
                share = statistics.mean(per_s) / statistics.mean(limit)
            row = {"per_s": statistics.mean(per_s), "bare_fork_per_s": statistics.mean(limit), "share": share}
            row |= {"p50_ms": statistics.median(times) * 1e3, "p99_ms": percentile(times, 99) * 1e3}
            table[f"{density}_{count}"] = {name: round(value, 3) for name, value in row.items()}
            shares[density, count] = share
            tick()
    report.found["rates"] = table
    report.found["rate_share_of_bare_fork_64"] = round(max(share for (_, count), share in shares.items() if count == 64), 3)


async def memory(plan: Plan, report: Report, tick: Any) -> None:
    """What sessions of one container take, fresh and after work."""
    count = plan.memory_sessions
    async with DockerSandbox(density="shared", slots=count + 8, max_sessions=count + 8, pool=0) as sandbox:
        sessions = [await sandbox.session() for _ in range(8)]
        (container,) = sandbox._containers
        first = used_mb(container)
        sessions += [await sandbox.session() for _ in range(count)]
        fresh = used_mb(container)
        for session in sessions[8:]:
            assert (await session.run(WORK)).ok
        worked = used_mb(container)
    report.found["shared_mb_per_session"] = round((fresh - first) / count, 3)
    report.found["shared_mb_per_session_after_work"] = round((worked - first) / count, 3)
    tick()


def used_mb(container: str) -> float:
    """A container's memory by its cgroup's counter, version 2 or 1."""
    places = (
        f"/sys/fs/cgroup/system.slice/docker-{container}.scope/memory.current",
        f"/sys/fs/cgroup/docker/{container}/memory.current",
        f"/sys/fs/cgroup/memory/docker/{container}/memory.usage_in_bytes",
    )
    for place in places:
        if Path(place).exists():
            return int(Path(place).read_text()) / 1e6
    client = Engine.find().client()
    try:
        return float(client.api.stats(container, stream=False)["memory_stats"]["usage"]) / 1e6
    finally:
        client.close()


def machine(client: Any) -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    facts = {"cores": os.cpu_count(), "cpu": models[0] if models else "", "kernel": platform.release()}
    return facts | {"engine": client.version()["Version"], "date": date.today().isoformat(), "command": " ".join(sys.argv)}


async def run(plan: Plan, console: Console) -> Report:
    sys.path.insert(0, str(source()))
    from runner_zygote import PRELOAD

    report = Report()
    client = Engine.find().client()
    image = find(client)
    report.found["machine"] = machine(client)
    bare = peers.BareFork(client, image, PRELOAD)
    steps = plan.rounds + 2 + len(plan.sessions) + len(plan.container_sessions) + 1
    try:
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("measuring", total=steps)
            tick = lambda: progress.advance(task)  # noqa: E731
            await latencies(plan, report, client, image, bare, tick)
            await leases(plan, report, tick)
            await rates(plan, report, bare, tick)
            await memory(plan, report, tick)
    finally:
        bare.close()
        client.close()
    return report


def show(summary: dict[str, Any], console: Console) -> None:
    table = Table("one call at a time", "n", "median ms", "p99 ms", "times the bare fork")
    limit = summary["calls"]["bare_fork"]["median_ms"]
    for name, row in sorted(summary["calls"].items(), key=lambda item: item[1]["median_ms"]):
        table.add_row(name, str(row["n"]), f"{row['median_ms']:.2f}", f"{row['p99_ms']:.2f}", f"{row['median_ms'] / limit:.2f}")
    console.print(table)
    table = Table("many sessions", "calls/s", "bare forks/s", "share", "p50 ms", "p99 ms")
    for name, row in summary["rates"].items():
        table.add_row(name, *(f"{row[key]:.2f}" for key in ("per_s", "bare_fork_per_s", "share", "p50_ms", "p99_ms")))
    console.print(table)
    for name, value in summary.items():
        if name not in ("calls", "rates"):
            console.print(f"{name}: {value}")


LABELS = {"container": "toolreason", "shared": "toolreason (shared)", "bare_fork": "bare fork (the limit)"}


def chart(summary: dict[str, Any]) -> str:
    """The medians as bars of an SVG picture, on a logarithmic scale."""
    rows = sorted(((row["median_ms"], name) for name, row in summary["calls"].items()))
    lines = []
    for number, (ms, name) in enumerate(rows):
        y, width = 46 + 26 * number, max(2.0, 130 * (math.log10(ms) + 0.3))
        fill = "#2a7de1" if name in ("container", "shared") else "#888" if name != "bare_fork" else "#3a3"
        label = LABELS.get(name, name.replace("_", " "))
        lines.append(f'<text x="150" y="{y + 13}" text-anchor="end">{label}</text>')
        lines.append(f'<rect x="158" y="{y}" width="{width:.0f}" height="18" fill="{fill}"/>')
        lines.append(f'<text x="{166 + width:.0f}" y="{y + 13}">{ms:.1f} ms</text>')
    facts = summary["machine"]
    title = f"A warm call of print(i * 7), median ({facts['cores']} cores, {facts['date']}; bars are logarithmic)"
    size = f'width="640" height="{60 + 26 * len(rows)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">'
    paper = '<rect width="100%" height="100%" fill="white"/>'
    return "\n".join([head, paper, f'<text x="12" y="26">{title}</text>', *lines, "</svg>\n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="within a minute: fewer repeats, no Jupyter, no 256 sessions")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--chart", type=Path, help="write the medians as an SVG picture")
    options = parser.parse_args()
    console = Console(stderr=options.json)
    summary = asyncio.run(run(QUICK if options.quick else Plan(), console)).summary()
    if options.chart:
        options.chart.write_text(chart(summary))
    show(summary, console)
    if options.json:
        print(json.dumps(summary))


if __name__ == "__main__":
    main()
