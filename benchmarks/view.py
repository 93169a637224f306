"""Is the viewer's list quick with many trajectories? Milliseconds of its requests, against `grep` over the run file.

    python benchmarks/view.py [--rollouts 100000] [--quick] [--json]

A run of so many synthetic trajectories (about 4 KB each) is written, taken into the list as requests do, and asked as the page:
first page, last page, a filter, an order, a search for what stands once and for what stands everywhere. The peers are `grep` for
the same text, and reading the file once. `--json` prints one JSON object as its last line, with `search_over_grep`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolreason.runs import Manifest
from toolreason.types import (
    Cell,
    CellResult,
    Judgement,
    Outcome,
    Sampling,
    Segment,
    Source,
    StopReason,
    Trajectory,
    Verdict,
    to_json,
)
from toolreason.view.index import Index
from toolreason.view.rows import Filters

WORDS = ("let", "compute", "the", "sum", "of", "all", "primes", "below", "and", "check", "it", "in", "python", "then", "print")
RARE = "a needle in the hay"


def write(run: Path, rollouts: int) -> int:
    """The run file's size in bytes."""
    run.mkdir()
    manifest = Manifest("artist", {}, "scripted", Sampling(), "problems.jsonl", "none")
    (run / "run.json").write_text(to_json(manifest))
    draw = random.Random(0)
    with (run / "trajectories.jsonl").open("w") as file:
        for number in range(rollouts):
            said = " ".join(draw.choices(WORDS, k=120)) + (f" {RARE} " if number == rollouts // 2 else "")
            cell = Cell(
                "c0", f"print(sum(range({number})))", CellResult(Outcome.OK if number % 7 else Outcome.ERROR, f"{number}\n")
            )
            segments = (
                Segment(Source.PROMPT, f"What is {number}?", tuple(range(60))),
                Segment(Source.MODEL, said, tuple(range(150)), (-0.123456,) * 150),
                Segment(Source.TOOL, f"```output\n{number}\n```\n", tuple(range(12)), None, cell),
                Segment(Source.MODEL, f"\\boxed{{{number}}}", tuple(range(8)), (-0.5,) * 8),
            )
            verdict = Verdict(Judgement.CORRECT if draw.random() < 0.6 else Judgement.WRONG, str(number))
            one = Trajectory(
                f"{number:032x}",
                f"p{number // 4}",
                "artist",
                "scripted",
                segments,
                StopReason.ANSWERED,
                number % 4,
                verdict=verdict,
            )
            file.write(to_json(one) + "\n")
    return (run / "trajectories.jsonl").stat().st_size


def timed(work: Callable[[], Any], times: int) -> float:
    """Milliseconds, the median."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(1e3 * (time.perf_counter() - began))
    return round(statistics.median(found), 2)


def measured(rollouts: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        size = write(run, rollouts)
        file = run / "trajectories.jsonl"
        index = Index(run, Path(folder) / "cache")
        began, requests = time.perf_counter(), 0
        while (progress := index.refresh()).done < progress.size:
            requests += 1
        took = time.perf_counter() - began
        questions = {
            "first page": lambda: index.page(Filters()),
            "last page": lambda: index.page(Filters(), rollouts - 100),
            "failed calls": lambda: index.page(Filters(errors=True)),
            "wrong, by tokens": lambda: index.page(Filters(verdict="wrong", sort="tokens", down=True)),
            "search, one hit": lambda: index.page(Filters(text=RARE)),
            "search, all hits": lambda: index.page(Filters(text="python")),
            "facets": index.facets,
            "nothing new": index.refresh,
        }
        asked = {name: timed(question, 5) for name, question in questions.items()}
        assert index.page(Filters(text=RARE))[0] == 1
        grep = timed(lambda: subprocess.run(["grep", "-ci", RARE, str(file)], check=True, capture_output=True), 5)
        index.close()
        return {
            "rollouts": rollouts,
            "megabytes": round(size / 1e6, 1),
            "index_s": round(took, 2),
            "index_mb_per_s": round(size / 1e6 / took, 1),
            "read_once_ms": timed(file.read_bytes, 3),
            "ms": asked,
            "grep_ms": grep,
            "search_over_grep": round(asked["search, one hit"] / grep, 2),
            "list_megabytes": round(sum(one.stat().st_size for one in (Path(folder) / "cache").iterdir()) / 1e6, 1),
            "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "date": datetime.date.today().isoformat()},
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=100_000)
    parser.add_argument("--quick", action="store_true", help="5,000 of them")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    given = parser.parse_args()
    report = measured(5_000 if given.quick else given.rollouts)
    print(f"{report['rollouts']} rollouts, {report['megabytes']} MB: in the list after {report['index_s']} s", file=sys.stderr)
    for name, took in report["ms"].items():
        print(f"  {name}: {took} ms", file=sys.stderr)
    print(f"  grep: {report['grep_ms']} ms", file=sys.stderr)
    if given.json:
        print(json.dumps(report))
