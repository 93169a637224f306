"""How fast is a library of 10,000 tools, and what does it take?

    python benchmarks/tools.py [--quick] [--json] [--postgres ADDRESS] [--sandbox NAME]

All in one run, on one machine: retrieval by BM25 in a SQLite file, beside two peers that answer the same queries, in turns with it:
the search of LangGraph's own store (an equality filter on the category, which is all it offers without vectors), and a scan that
reads every tool from the store and counts common words. Then admission (version and event, one at a time and many together),
recording a use, opening with the first search, seeing what another process has written, and memory. In that library, too: the
whole way in (`admit`: gate, trial in the sandbox, library), and a consolidation, in a process of its own, that compares all tools
and plans (`consolidation_s`, `consolidation_mb`). What a consolidation runs in the sandbox is timed for some, and grows with their
number: a tool's tests run again with coverage (`rerun`), a merge of two copies tried (`merge`). Tools are made from lists of words,
with seeds. `hit_share` is how often a query that was made from a tool's description finds that tool among the first five.
`--postgres` measures the same in a database there (it is left with a library `bench-...`). `--json` prints one JSON object as its
last line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from toolreason.execution import open_sandbox
from toolreason.tools import gate, health, merging, signature
from toolreason.tools.admission import admit
from toolreason.tools.library import Library, open_library
from toolreason.tools.package import Status, ToolPackage, Use
from toolreason.tools.retrieval import words
from toolreason.tools.stores import hidden

VERBS, THINGS, KINDS, WAYS = (
    line.split()
    for line in (
        "count list find sort merge rotate parse format convert measure compare check solve simulate draw split join reverse",
        "primes divisors words letters grids graphs paths trees cards dice dates clocks coins boxes shapes angles matrices",
        "small large sorted distinct weighted directed binary decimal roman periodic nested circular missing shared first last",
        "greedy recursive dynamic linear exact random modular symbolic numeric iterative bounded lazy ordered stable sparse dense",
    )
)
CATEGORIES = ("number_theory", "text", "grids", "graphs", "games", "dates", "geometry", "algebra")
SYLLABLES = [a + b for a in "bcdfghklmnprstvz" for b in "aeiou"]


@dataclass(frozen=True)
class Plan:
    """How much of each is measured."""

    tools: int = 10_000
    sizes: tuple[int, ...] = (1_000, 10_000)
    queries: int = 400
    peer_queries: int = 20
    admissions: int = 200
    uses: int = 200
    trials: int = 30


QUICK = Plan(sizes=(10_000,), queries=120, peer_queries=6, admissions=40, uses=40, trials=4)


@dataclass
class Report:
    """Seconds by name, and the rest as it will be printed."""

    times: dict[str, list[float]] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)

    def p50(self, name: str) -> float:
        return round(statistics.median(self.times[name]) * 1e3, 3)

    def p99(self, name: str) -> float:
        ordered = sorted(self.times[name])
        return round(ordered[max(0, -(-len(ordered) * 99 // 100) - 1)] * 1e3, 3)

    def summary(self) -> dict[str, Any]:
        rows = {
            name: {"n": len(seconds), "p50_ms": self.p50(name), "p99_ms": self.p99(name)} for name, seconds in self.times.items()
        }
        return self.found | {"times": rows}


def make_tool(number: int) -> ToolPackage:
    """Tool `number`: words that many share, and one that few do, as in real libraries."""
    draw = random.Random(number)
    verb, thing, kind, way, other = (draw.choice(words) for words in (VERBS, THINGS, KINDS, WAYS, THINGS))
    rare = "".join(draw.choices(SYLLABLES, k=2))
    name = f"{verb}_{kind}_{thing}_{rare}_{number}"
    description = f"{verb.title()} the {kind} {thing} of a {rare} in a {way} way, and return the result as a list of {other}."
    code = f'def {name}({thing}: list[int], {rare}_limit: int = {number}) -> list[int]:\n    """{description}"""\n' + "".join(
        f"    step_{line} = [item * {draw.randrange(100)} for item in {thing}]\n" for line in range(20)
    )
    parameters = {
        "type": "object",
        "properties": {thing: {"type": "array"}, f"{rare}_limit": {"type": "integer"}},
        "required": [thing],
    }
    tests = f"from toolbox import {name}\n\n\ndef test_{name}():\n    assert {name}([]) == []\n"
    return ToolPackage(name, description, code, tests, parameters, category=draw.choice(CATEGORIES), status=Status.ADMITTED)


def make_query(number: int) -> str:
    """A need such as a model may write, for what tool `number` does: by the words that hundreds of tools share."""
    shared = {*VERBS, *THINGS, *KINDS, *WAYS}
    asked = [word for word in words(make_tool(number).description) if word in shared]
    random.Random(-number).shuffle(asked)
    return f"I need a function that can {' '.join(asked)} for the given input, and gives back the answer"


async def timed(report: Report, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
    began = time.perf_counter()
    result = await call()
    report.times.setdefault(name, []).append(time.perf_counter() - began)
    return result


async def scan(library: Library, query: str) -> list[str]:
    """A peer: every tool from the store, ranked by the number of words it shares with the query."""
    asked = set(words(query))
    items = await library._place.store.asearch((*library._root, "entries"), limit=1_000_000)
    scores = []
    for item in items:
        package = json.loads(item.value["json"])["package"]
        text = f"{package['name']} {package['description']} {package['category']}"
        scores.append((len(asked & set(words(text))), package["name"]))
    return [name for _, name in sorted(scores, reverse=True)[:5]]


async def retrieval(plan: Plan, report: Report, library: Library, size: int, prefix: str) -> None:
    draw = random.Random(7)
    hits = {"library": 0, "scan": 0}
    store = library._place.store
    for number in range(plan.queries):
        wanted = draw.randrange(size)
        query, package = make_query(wanted), make_tool(wanted)
        found = await timed(report, f"{prefix}retrieval_{size}", lambda query=query: library.search(query, 5))
        hits["library"] += package.name in [hit.package.name for hit in found]
        if number < plan.peer_queries and not prefix:
            filtered = {"category": package.category}
            await timed(report, f"store_filter_{size}", lambda only=filtered: store.asearch(("peer",), filter=only, limit=5))
            ranked = await timed(report, f"scan_{size}", lambda query=query: scan(library, query))
            hits["scan"] += package.name in ranked
    report.found[f"{prefix}hit_share_{size}"] = round(hits["library"] / plan.queries, 3)
    if not prefix:
        report.found[f"scan_hit_share_{size}"] = round(hits["scan"] / plan.peer_queries, 3)


OPEN = """
import asyncio, json, sys, time
from toolreason.tools.library import open_library
import aiosqlite, langgraph.store.base, langgraph.store.sqlite, psycopg_pool, langgraph.store.postgres.aio
def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS:"))
async def main():
    before, began = resident(), time.perf_counter()
    async with open_library(sys.argv[1], name=sys.argv[2]) as library:
        opened = time.perf_counter()
        await library.search("count the primes")
        searched = time.perf_counter()
        print(json.dumps([opened - began, searched - opened, (resident() - before) / 1024]))
asyncio.run(main())
"""


async def opened_elsewhere(spec: str, name: str) -> tuple[float, float, float]:
    """Seconds to open and for the first search, and MiB, in a process of its own."""
    command = [sys.executable, "-c", OPEN, spec, name]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True, timeout=300)
    opening, first, mb = json.loads(done.stdout)
    return opening, first, mb


async def changes(plan: Plan, report: Report, library: Library, spec: str, name: str, prefix: str) -> None:
    """One at a time, with a second reader that has to see each."""
    async with open_library(spec, name=name) as other:
        await other.search("warm up")
        for number in range(plan.admissions):
            package = make_tool(10_000_000 + number)
            added = await timed(report, f"{prefix}admission", lambda package=package: library.add(package))
            query = package.name
            found = await timed(report, f"{prefix}search_after_other_wrote", lambda query=query: other.search(query, 1))
            assert found[0].package == added, "the other reader must see what was just written"
        for number in range(plan.uses):
            use = Use(f"{make_tool(number).name}@1", f"p{number}", True, 0.1, 10)
            await timed(report, f"{prefix}record_use", lambda use=use: library.record(use))


def small_tool(number: int, twin: str = "") -> ToolPackage:
    """A tool that passes the gate and its trial; its `twin` is the same under another name."""
    name = f"weigh_{SYLLABLES[number % len(SYLLABLES)]}_{number}{twin}"
    code = f'''def {name}(values: list[int], weight: int = {number + 2}) -> int:
    """The weighted sum of the values, number {number}."""
    total = 0
    for place, value in enumerate(values):
        total += value * weight + place * {number}
    return total
'''
    tests = f"from toolbox import {name}\n\n\ndef test_one():\n    assert {name}([1], weight=3) == 3\n\n\n"
    tests += f"def test_two():\n    assert {name}([1, 2], 4) == {12 + number}\n"
    return signature.package(code, tests, category="algebra")


async def in_the_sandbox(plan: Plan, report: Report, library: Library, sandbox: Any) -> None:
    """What of admission and consolidation runs tools: one at a time."""
    for number in range(plan.trials):
        package = small_tool(number)
        report.times.setdefault("gate", []).append(seconds(lambda package=package: gate.check(package)))
        admission = await timed(report, "admit", lambda package=package: admit(library, package, sandbox))
        assert admission.admitted, admission.reasons
        twin = (await admit(library, small_tool(number, "_too"), sandbox)).package
        seen = await timed(report, "rerun", lambda package=twin: health.run(library, package, sandbox))
        assert seen.ok, seen.reason
        maker = merging.Maker(library, sandbox)
        pair = [admission.package, twin]
        made = await timed(report, "merge", lambda pair=pair, maker=maker: merging.merge(pair, maker))
        assert made.package is not None, made.reasons


def seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


CONSOLIDATE = """
import asyncio, json, resource, sys, time
from toolreason.execution import ScriptedSandbox
from toolreason.graphs.consolidate import ConsolidateContext, build
from toolreason.tools.consolidation import ConsolidationSettings
from toolreason.tools.library import open_library
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
async def main():
    async with open_library(sys.argv[1], name=sys.argv[2]) as library:
        await library.search("count the primes")
        before, began, used = peak(), time.perf_counter(), time.process_time()
        context = ConsolidateContext(library, ScriptedSandbox(), settings=ConsolidationSettings(tests=False, merge=False))
        plan = (await build().compile().ainvoke({}, context=context))["plan"]
        print(json.dumps([time.perf_counter() - began, time.process_time() - used, peak() - before, plan.before.redundancy]))
asyncio.run(main())
"""


async def consolidated_elsewhere(report: Report, spec: str, name: str) -> None:
    """All tools compared and a plan made, in a process of its own; nothing runs in a sandbox."""
    command = [sys.executable, "-c", CONSOLIDATE, spec, name]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True, timeout=900)
    wall, cpu, mb, redundancy = json.loads(done.stdout)
    report.found |= {
        "consolidation_s": round(wall, 2),
        "consolidation_cpu_s": round(cpu, 2),
        "consolidation_mb": round(mb, 1),
        "redundancy": round(redundancy, 4),
    }


async def measure(plan: Plan, report: Report, spec: str, prefix: str, tick: Callable[[], None], sandbox: Any) -> None:
    done, name = 0, f"bench-{uuid.uuid4().hex[:8]}"
    async with open_library(spec, name=name) as library:
        for size in plan.sizes:
            began = time.perf_counter()
            await library.add_all([make_tool(number) for number in range(done, size)])
            report.found[f"{prefix}admission_together_ms_each"] = round((time.perf_counter() - began) / (size - done) * 1e3, 3)
            if not prefix:
                await peer_items(library, done, size)
            done = size
            await library.search("warm up")
            await retrieval(plan, report, library, size, prefix)
            tick()
        await changes(plan, report, library, spec, name, prefix)
        tick()
        if not prefix:
            await in_the_sandbox(plan, report, library, sandbox)
            tick()
    if not prefix:
        await consolidated_elsewhere(report, spec, name)
        tick()
    opening, first, mb = await opened_elsewhere(spec, name)
    report.found |= {
        f"{prefix}open_s": round(opening, 3),
        f"{prefix}first_search_s": round(first, 3),
        f"{prefix}memory_mb": round(mb, 1),
    }
    tick()


async def peer_items(library: Library, start: int, end: int) -> None:
    """The same tools as plain items, for the store's own search."""
    from langgraph.store.base import PutOp

    for first in range(start, end, 500):
        packages = [make_tool(number) for number in range(first, min(first + 500, end))]
        values = [
            {"name": p.name, "description": p.description, "category": p.category, "code": p.code, "tests": p.tests}
            for p in packages
        ]
        await library._place.store.abatch([PutOp(("peer",), value["name"], value) for value in values])


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    facts = {"cores": os.cpu_count(), "cpu": models[0] if models else platform.machine(), "python": platform.python_version()}
    return facts | {
        "load": round(os.getloadavg()[0], 1),
        "date": date.today().isoformat(),
        "command": " ".join(map(hidden, sys.argv)),
    }


async def run(plan: Plan, postgres: str | None, console: Console, sandbox: str = "local") -> Report:
    report = Report(found={"machine": machine(), "tools": plan.tools, "sandbox": sandbox})
    with tempfile.TemporaryDirectory() as folder, Progress(console=console, transient=True) as progress:
        task = progress.add_task("measuring", total=(len(plan.sizes) + 2) * (2 if postgres else 1) + 2)
        tick = lambda: progress.advance(task)  # noqa: E731
        file = Path(folder) / "tools.sqlite"
        async with open_sandbox("docker", density="shared") if sandbox == "shared" else open_sandbox(sandbox) as box:
            await measure(plan, report, str(file), "", tick, box)
        report.found["file_mb"] = round(file.stat().st_size / 1e6, 1)
        if postgres:
            await measure(plan, report, postgres, "postgres_", tick, None)
    report.found["peak_rss_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    report.found["retrieval_ms_p50_10k"] = report.p50(f"retrieval_{plan.tools}")
    report.found["retrieval_ms_p99_10k"] = report.p99(f"retrieval_{plan.tools}")
    report.found["admission_ms_p50"] = report.p50("admission")
    report.found |= {f"{name}_ms_p50": report.p50(name) for name in ("gate", "admit", "rerun", "merge")}
    report.found["speedup_over_store_filter"] = round(
        report.p50(f"store_filter_{plan.tools}") / report.p50(f"retrieval_{plan.tools}"), 2
    )
    report.found["speedup_over_scan"] = round(report.p50(f"scan_{plan.tools}") / report.p50(f"retrieval_{plan.tools}"), 2)
    return report


def show(summary: dict[str, Any], console: Console) -> None:
    table = Table("one at a time", "n", "p50 ms", "p99 ms")
    for name, row in summary["times"].items():
        table.add_row(name, str(row["n"]), f"{row['p50_ms']:.2f}", f"{row['p99_ms']:.2f}")
    console.print(table)
    for name, value in summary.items():
        if name != "times":
            console.print(f"{name}: {value}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="within a minute: fewer repeats, 10,000 tools only")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--postgres", metavar="ADDRESS", help="postgresql://... of a database to measure too")
    parser.add_argument(
        "--sandbox", default="local", choices=["local", "docker", "shared"], help="where tools run (default: local)"
    )
    options = parser.parse_args()
    console = Console(stderr=options.json)
    summary = asyncio.run(run(QUICK if options.quick else Plan(), options.postgres, console, options.sandbox)).summary()
    show(summary, console)
    if options.json:
        print(json.dumps(summary))


if __name__ == "__main__":
    main()
