"""Do concurrent rollouts keep their policy busy?

    python benchmarks/rollouts.py [--policy SPEC] [--concurrency 32] [--rollouts 64] [--quick] [--json]

Two measurements in one run, of one policy:

1. The limit: the policy alone. As many requests in flight as there are rollouts, each a plain continuation; model tokens a second.
2. The same number of `hint_infer` rollouts in flight, whole: graph, sandbox (a real container each), results fed back.

Reported: `idle_share`, the share of wall time in which no request is in flight at the policy, and `rate_over_bare_policy`, model
tokens a second of 2 over 1. Without `--policy` it is a scripted one that takes 10 ms a token, so that only our own cost is
measured. `--json` prints one JSON object as its last line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time

from toolreason import Problem, Sampling, SessionBook, Verifier, open_policy, open_sandbox
from toolreason.collect import collect
from toolreason.execution import Sandbox
from toolreason.policies import Policy, ScriptedPolicy
from toolreason.runs import Manifest, RunWriter
from toolreason.stats import Summary
from toolreason.strategies.hint_infer import HintInferSettings

TOKEN_S = 0.01


def problems(count: int) -> list[Problem]:
    return [Problem(f"p{i}", f"What is {1234 + i} * {9876 - i}?") for i in range(count)]


def reply(prompt: str, index: int) -> str:
    """A call of 60 tokens, and an answer of 60: the scripted tokenizer takes about one token a character."""
    if "```output" in prompt:
        return "So it is \\boxed{1}." + "." * 40
    return "print(1234 * 9876)" + " " * 40 + "\n```\n"


async def bare(policy: Policy, count: int, concurrency: int, tokens: int) -> float:
    """Model tokens a second of plain requests, `concurrency` in flight."""
    slots = asyncio.Semaphore(concurrency)

    async def one(problem: Problem) -> int:
        prompt = policy.prompt([{"role": "user", "content": problem.question}])
        async with slots:
            return len((await policy.sample([prompt], Sampling(), max_tokens=tokens)).token_ids)

    started = time.perf_counter()
    drawn = sum(await asyncio.gather(*map(one, problems(count))))
    return drawn / (time.perf_counter() - started)


async def whole(policy: Policy, sandbox: Sandbox, count: int, concurrency: int, tokens: int) -> Summary:
    """The same number of rollouts, each with its own session."""
    settings = HintInferSettings(max_tokens=tokens)
    with tempfile.TemporaryDirectory() as directory:
        writer = RunWriter.open(directory, Manifest("hint_infer", {}, policy.name, Sampling(), "benchmark", ""))
        try:
            async with Verifier() as verifier:
                return await collect(
                    problems(count), strategy="hint_infer", policy=policy, sessions=SessionBook(sandbox), verifier=verifier,
                    writer=writer, settings=settings, concurrency=concurrency,
                )  # fmt: skip
        finally:
            writer.close()


async def measure(options: argparse.Namespace) -> dict[str, float | int | str]:
    policy = await open_policy(options.policy) if options.policy else ScriptedPolicy(reply, delay_s=TOKEN_S)
    try:
        limit = await bare(policy, options.rollouts, options.concurrency, tokens=options.tokens)
        async with open_sandbox("docker", max_sessions=options.concurrency, pool=options.pool) as sandbox:
            await whole(policy, sandbox, 1, 1, options.tokens)  # imports, and a first container
            summary = await whole(policy, sandbox, options.rollouts, options.concurrency, options.tokens)
    finally:
        await policy.aclose()
    return {
        "policy": policy.name, "concurrency": options.concurrency, "rollouts": summary.finished, "aborted": summary.aborted,
        "idle_share": round(summary.idle_share or 0.0, 4), "calls": summary.cells, "wall_s": round(summary.wall_s, 2),
        "model_tokens_per_s": round(summary.tokens_per_s, 1), "bare_tokens_per_s": round(limit, 1),
        "rate_over_bare_policy": round(summary.tokens_per_s / limit, 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", help="a policy spec, e.g. vllm:http://127.0.0.1:8000")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--rollouts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=256, help="the most tokens a rollout may have")
    parser.add_argument("--pool", type=int, default=8, help="warm sessions")
    parser.add_argument("--quick", action="store_true", help="as many rollouts as are in flight")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.rollouts = options.concurrency
    result = asyncio.run(measure(options))
    for name, value in result.items():
        print(f"{name:24} {value}")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
