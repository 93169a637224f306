"""Does a library of tools pay? A stream of problems, in which each may use what the ones before it left; then a test split.

    python benchmarks/uct_stream.py --scripted --out runs/stream
    python benchmarks/uct_stream.py --policy vllm:http://127.0.0.1:8000 --concurrency 8 --out runs/stream [--chart stream.svg]

Eight families of reasoning-gym, shuffled with the seed. Four runs, each resumable by the same command: `uct` over the stream, the
library growing; `uct` over other problems of the same families, the library frozen; and the same two without a library, several
rollouts a problem: what majority gives at the tokens that `uct` spent. Tokens are all that were sampled or inserted, those of the
builder included; a reuse is a call on another problem than the tool was made for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import uct_script
from rich.console import Console
from rich.progress import Progress

import toolreason
from toolreason import problems, runs
from toolreason.collect import collect
from toolreason.compare.matched import matched
from toolreason.compare.rows import row
from toolreason.execution import SessionBook, open_sandbox
from toolreason.policies import open_policy
from toolreason.runs import Manifest, RunWriter, problems_hash
from toolreason.stats import Rate
from toolreason.strategies.base import Settings, as_dict, load
from toolreason.tools.library import Library, open_library
from toolreason.tools.workshop import Workshops
from toolreason.types import Problem, Sampling, Trajectory
from toolreason.verify import Verifier

QUARTERS = 4


def drawn(each: int, seed: int) -> list[Problem]:
    """So many problems of each family, in a random order."""
    families = ",".join(family.name for family in uct_script.FAMILIES)
    found = list(problems.load(f"gym:{families}:{each}:{seed}").problems)
    random.Random(seed).shuffle(found)
    return found


async def stream(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    out: Path = options.out
    library = str(out / "tools.sqlite")
    out.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240
    first, second = drawn(options.each, options.seed), drawn(options.held_out, options.seed + 1)
    tools = {"library": library, "max_tokens": options.budget, "attempts": options.attempts, "critic": not options.no_critic}
    uct, alone = load("uct").settings, load("artist").settings(format="fenced", stateful=True, max_tokens=options.budget)
    jobs = (
        ("uct", "uct", uct(**tools), first, 1),
        ("alone", "artist", alone, first, options.samples),
        ("uct-held-out", "uct", uct(**tools, frozen=True), second, 1),
        ("alone-held-out", "artist", alone, second, options.samples),
    )
    policy = uct_script.policy() if options.scripted else await open_policy(options.policy)
    try:
        async with (
            open_sandbox("docker", density="shared", max_sessions=options.concurrency + 4) as box,
            Verifier(sandbox=box) as verifier,
            Workshops(box) as workshops,
        ):
            with Progress(console=console, transient=True) as progress:
                for name, strategy, settings, rows, samples in jobs:
                    task = progress.add_task(name, total=len(rows) * samples)
                    with RunWriter.open(out / name, manifest(options, policy.name, strategy, settings, rows, samples)) as writer:
                        await collect(
                            rows,
                            strategy=strategy,
                            policy=policy,
                            sessions=SessionBook(box),
                            verifier=verifier,
                            writer=writer,
                            sampling=sampling(options, samples),
                            settings=settings,
                            samples=samples,
                            concurrency=options.concurrency,
                            workshops=workshops,
                            on_progress=lambda tally, task=task: progress.update(task, completed=tally.finished + tally.aborted),
                        )
    finally:
        await policy.aclose()
    async with open_library(library) as opened:
        return await summary(options, first, opened)


def sampling(options: argparse.Namespace, samples: int) -> Sampling:
    return Sampling(options.temperature if samples > 1 else 0.0, seed=options.seed)


def manifest(
    options: argparse.Namespace, policy: str, strategy: str, settings: Settings, rows: Sequence[Problem], samples: int
) -> Manifest:
    version, content = toolreason.__version__, problems_hash(rows)
    return Manifest(strategy, as_dict(settings), policy, sampling(options, samples), "uct_stream", content, samples, version)


async def summary(options: argparse.Namespace, first: Sequence[Problem], library: Library) -> dict[str, Any]:
    """What the four runs and the library say."""
    done = {name: list(runs.read(options.out / name)) for name in ("uct", "alone", "uct-held-out", "alone-held-out")}
    order = {problem.id: place for place, problem in enumerate(first)}
    grown = sorted(done["uct"], key=lambda one: order[one.problem_id])
    made = await library.list()
    usages = await library.usages()
    found: dict[str, Any] = {
        "policy": grown[0].policy,
        "seed": options.seed,
        "stream": parts(grown),
        "by_quarter": [parts(quarter) for quarter in quarters(grown)],
        "library": {
            "by_status": dict(Counter(package.status.value for package in made)),
            "calls": sum(usage.calls for usage in usages.values()),
            "reused_tools": sum(usage.reuse > 0 for usage in usages.values()),
            "reuses": sum(usage.reuse for usage in usages.values()),
        },
        "tickets": tickets(grown),
        "held_out": parts(done["uct-held-out"]),
        "alone": parts([one for one in done["alone"] if one.sample == 0]),
        "alone_held_out": parts([one for one in done["alone-held-out"] if one.sample == 0]),
    }
    for name in ("uct", "uct-held-out"):
        other = name.replace("uct", "alone")
        pair = {key: [row(one) for one in done[key]] for key in (name, other)}
        found[f"{other}, majority at equal tokens"] = [plain(asdict(one)) for one in matched(pair)]
    if options.chart:
        draw(grown, options.chart)
    return found


def parts(rows: Sequence[Trajectory]) -> dict[str, Any]:
    """Rate, tokens and use of tools of some rollouts. `right` is Wilson's interval too."""
    rate = Rate.of(row(one).right for one in rows)
    told = [one.tooling for one in rows if one.tooling]
    return {
        "right": f"{rate.correct}/{rate.scored}",
        "low_high": [round(rate.low, 3), round(rate.high, 3)],
        "tokens": round(fmean(one.spent for one in rows), 1) if rows else 0,
        "tokens_of_the_builder": round(fmean(sum(side.spent for side in one.aside) for one in rows), 1) if rows else 0,
        "with_a_tool_call": sum(bool(one.used) for one in told),
    }


def tickets(rows: Sequence[Trajectory]) -> dict[str, Any]:
    """What became of the tickets, and where the refused ones fell."""
    told = [one.tooling for one in rows if one.tooling]
    refused = [reason for one in told for reason in one.refused]
    return {
        "opened": sum(one.tickets for one in told),
        "made": sum(len(one.made) for one in told),
        "repaired": sum(len(one.repaired) for one in told),
        "refused": dict(Counter(stage(reason) for reason in refused).most_common()),
        "examples": [reason[:200] for reason in refused[:8]],
    }


def stage(reason: str) -> str:
    """Where a ticket fell, by its last reason."""
    for mark, name in (
        ("critic", "critic"),
        ("no closed", "no code block"),
        ("the tests pass for wrong", "tests that notice nothing"),
        ("enough tickets", "too many tickets"),
        ("tokens are used", "tokens"),
        (" failed:", "its tests failed"),
        (" error:", "its tests ended in an error"),
        ("public function", "no one typed function"),
        ("no type of", "no one typed function"),
        ("no Python", "no one typed function"),
        ("[", "gate"),
    ):
        if mark in reason:
            return name
    return "other"


def quarters(rows: Sequence[Trajectory]) -> list[Sequence[Trajectory]]:
    size = -(-len(rows) // QUARTERS)
    return [rows[at : at + size] for at in range(0, len(rows), size)]


def draw(rows: Sequence[Trajectory], path: Path) -> None:
    """The stream: the share right so far, tokens a problem (mean of the last ten), tools made."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from toolreason.charts import COLOURS, STYLE

    right = [bool(row(one).right) for one in rows]
    spent = [one.spent for one in rows]
    made = [len(one.tooling.made) if one.tooling else 0 for one in rows]
    x = range(1, len(rows) + 1)
    lines = (
        ("right so far", [fmean(right[:n]) for n in x]),
        ("tokens a problem", [fmean(spent[max(0, n - 10) : n]) for n in x]),
        ("tools made", [sum(made[:n]) for n in x]),
    )
    with rc_context(STYLE):
        figure = Figure(figsize=(7, 6), layout="constrained")
        for place, ((name, values), colour) in enumerate(zip(lines, COLOURS[2:], strict=False), 1):
            axes = figure.add_subplot(3, 1, place)
            axes.plot(x, values, color=colour)
            axes.set_ylabel(name)
            axes.set_ylim(bottom=0)
        axes.set_xlabel("problems of the stream")
        figure.savefig(path, format="svg", metadata={"Date": None})


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the directory of the runs and the library; the same one goes on")
    parser.add_argument(
        "--policy", default="transformers:qwen2.5-coder-0.5b-instruct", help="who samples, as in `toolreason collect`"
    )
    parser.add_argument("--scripted", action="store_true", help="a scripted policy that can do all of it")
    parser.add_argument("--each", type=int, default=15, help="problems of each family in the stream")
    parser.add_argument("--held-out", type=int, default=8, help="and in the test split")
    parser.add_argument("--samples", type=int, default=4, help="rollouts a problem of the baseline")
    parser.add_argument("--temperature", type=float, default=0.7, help="of the baseline's rollouts")
    parser.add_argument("--budget", type=int, default=4096, help="the most tokens of a rollout")
    parser.add_argument("--attempts", type=int, default=3, help="at a tool")
    parser.add_argument("--no-critic", action="store_true", help="without the critic")
    parser.add_argument("--concurrency", type=int, default=1, help="rollouts at a time: 1 is a stream in the strict sense")
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--chart", type=Path, help="draw the stream as an SVG file")
    options = parser.parse_args()
    console = Console(stderr=True)
    print(json.dumps(asyncio.run(stream(options, console))))


if __name__ == "__main__":
    main()
