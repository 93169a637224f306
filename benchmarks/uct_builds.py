"""Can this model build tools? The build loop alone, over tickets that a good agent would open.

    python benchmarks/uct_builds.py --policy vllm:http://127.0.0.1:8000 --seeds 4

One ticket for each of the eight families of `uct_stream.py`, with a problem of that family as its context, each several times.
Reported: how many became tools, where the attempts of the others fell, tokens a ticket, and how many of the tools pass tests of
ours, which the model has not seen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import uct_script
from uct_script import FAMILIES, Family
from uct_stream import drawn, stage

from toolreason.execution import open_sandbox
from toolreason.execution.base import Sandbox
from toolreason.graphs.build import BuildContext, build
from toolreason.policies import open_policy
from toolreason.policies.base import Policy
from toolreason.tools import gate_answer, trial
from toolreason.tools.library import open_library
from toolreason.tools.package import Status, Ticket, ToolPackage
from toolreason.tools.workshop import Workshop
from toolreason.types import Problem, Sampling


async def one(
    policy: Policy, sandbox: Sandbox, family: Family, problem: Problem, seed: int, options: argparse.Namespace
) -> dict[str, Any]:
    """One ticket, with a library of its own."""
    async with open_library("memory") as library:
        context = BuildContext(
            policy,
            Workshop(library, sandbox),
            Sampling(options.temperature if seed else 0.0, seed=seed),
            gate_answer.gold(problem.reference),
            attempts=options.attempts,
            critic=not options.no_critic,
        )
        ticket = Ticket(family.need, problem.question, problem.id)
        made = await build().compile().ainvoke({"ticket": ticket, "seed": seed}, context=context)
        kept = [package for head in await library.list() for package in await library.history(head.name)]
    package = made.get("package")
    return {
        "family": family.name,
        "made": package is not None,
        "attempts": made["attempts"],
        "fell": [stage(reason) for reason in made.get("reasons", [])[:1]],
        "candidates": [stage(one.reason) for one in kept if one.status is Status.CANDIDATE],
        "tokens": sum(one.spent for one in made["aside"]),
        "passes_ours": await passes(package, family, sandbox) if package else None,
    }


async def passes(package: ToolPackage, family: Family, sandbox: Sandbox) -> bool:
    """Whether it passes the family's own tests."""
    lines = family.tests.format(tool=package.name).split("\n")
    bodies = "\n\n".join(f"def test_{number}() -> None:\n    {line}" for number, line in enumerate(lines, 1))
    report = await trial.run(replace(package, tests=f"from toolbox import {package.name}\n\n{bodies}\n"), sandbox)
    return all(re.match("passed", test.outcome.value) for test in report.tests) and bool(report.tests)


async def builds(options: argparse.Namespace) -> dict[str, Any]:
    problems = {problem.id.partition("-")[0]: problem for problem in drawn(1, 31)}
    policy = uct_script.policy() if options.scripted else await open_policy(options.policy)
    turn = asyncio.Semaphore(options.concurrency)
    try:
        async with open_sandbox("docker", density="shared", max_sessions=options.concurrency + 4) as sandbox:

            async def bounded(family: Family, seed: int) -> dict[str, Any]:
                async with turn:
                    return await one(policy, sandbox, family, problems[family.name], seed, options)

            rows = await asyncio.gather(*(bounded(family, seed) for seed in range(options.seeds) for family in FAMILIES))
    finally:
        await policy.aclose()
    return {
        "policy": policy.name,
        "tickets": len(rows),
        "made": sum(row["made"] for row in rows),
        "made_by_attempt": dict(Counter(row["attempts"] for row in rows if row["made"])),
        "made_by_family": dict(Counter(row["family"] for row in rows if row["made"])),
        "pass_ours": sum(bool(row["passes_ours"]) for row in rows),
        "tokens_a_ticket": round(fmean(row["tokens"] for row in rows), 1),
        "last_attempt_fell_by": dict(Counter(fell for row in rows for fell in row["fell"]).most_common()),
        "kept_candidates_fell_by": dict(Counter(fell for row in rows for fell in row["candidates"]).most_common()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--policy", default="transformers:qwen2.5-coder-0.5b-instruct", help="who writes, as in `toolreason collect`"
    )
    parser.add_argument("--scripted", action="store_true", help="a scripted policy that can")
    parser.add_argument("--seeds", type=int, default=4, help="how often each ticket is opened; the first time greedily")
    parser.add_argument("--temperature", type=float, default=0.7, help="the other times")
    parser.add_argument("--attempts", type=int, default=3)
    parser.add_argument("--no-critic", action="store_true", help="without the critic")
    parser.add_argument("--concurrency", type=int, default=16)
    print(json.dumps(asyncio.run(builds(parser.parse_args()))))


if __name__ == "__main__":
    main()
