"""What does the endpoint add to its policy? Time to the first token and to the last, at 1, 16 and 128 clients, in one run.

    python benchmarks/serve.py [--clients 1 16 128] [--requests N] [--policy SPEC] [--quick] [--json]

The policy waits a given time for its first token and between tokens (so that only our cost is measured), or is a real one. It is
asked twice: bare, in this process, by so many callers at once; and through the endpoint, which runs in a process of its own, by as
many streaming HTTP clients. What is added is the difference of the medians (and of the 99th percentiles). Every answer is compared
with the bare one's. `--json` prints one JSON object as its last line, with `added_ttft_ms_p50_16`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from toolreason.policies.base import Completion, Finish, Policy
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.serve.process import run
from toolreason.strategies import prompts
from toolreason.types import Problem, Sampling, Segment

FIRST_S, NEXT_S, SPREAD_S = 0.05, 0.004, 0.2
TEXT = "".join(f"word{number} " for number in range(40))
QUESTION = "What is six times seven?"


class Timed(ScriptedPolicy):
    """Says its text a word at a time, at a fixed pace."""

    def __init__(self) -> None:
        super().__init__([])

    async def sample(self, segments: Sequence[Segment], sampling: Sampling, **how: Any) -> Completion:
        clock, on_text = asyncio.get_running_loop().time, how.get("on_text") or (lambda text: None)
        due = clock() + FIRST_S
        for word in TEXT.split(" ")[:-1]:
            await asyncio.sleep(max(0.0, due - clock()))
            on_text(f"{word} ")
            due += NEXT_S
        return Completion(TEXT, self.encode(TEXT), None, Finish.END)


class Timing(NamedTuple):
    """Seconds to the first piece of text and to the end."""

    first: float
    last: float


async def bare(policy: Policy, number: int, tokens: int) -> Timing:
    """One caller of the policy itself."""
    began, first = time.perf_counter(), []
    prompt = policy.prompt(prompts.messages(Problem(str(number), QUESTION), "plain"))
    done = await policy.sample(
        [prompt], Sampling(), max_tokens=tokens, on_text=lambda text: first.append(time.perf_counter()) if not first else None
    )
    assert done.text
    return Timing(first[0] - began, time.perf_counter() - began)


async def asked(url: str, text: str | None, tokens: int) -> Timing:
    """One client of the endpoint, on a bare socket: what a client's library costs is not ours. `text`: what it has to say."""
    host, port = url.removeprefix("http://").split(":")
    body = {"model": "plain", "messages": [{"role": "user", "content": QUESTION}], "stream": True, "max_tokens": tokens}
    content, first = json.dumps(body).encode(), 0.0
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    began, received = time.perf_counter(), b""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    while piece := await reader.read(1 << 16):
        received += piece
        if not first and b'"content"' in received:
            first = time.perf_counter()
    ended = time.perf_counter()
    writer.close()
    assert first, received[:300]
    assert text in (None, said(received))
    return Timing(first - began, ended - began)


def said(received: bytes) -> str:
    """The text in a stream of chunks."""
    found = [json.loads(line[6:]) for line in received.decode().splitlines() if line.startswith("data: {")]
    return "".join(choice["delta"].get("content", "") for chunk in found for choice in chunk["choices"]).strip()


async def load(
    one: Callable[[int], Awaitable[Timing]], clients: int, requests: int, spread: float = 0.0
) -> tuple[list[Timing], float]:
    """All timings, and requests a second: so many clients, each asking again as soon as it has its answer. They begin
    spread over so many seconds (the time that an answer takes), so that they do not go on in step.
    """
    left = iter(range(requests))

    async def client(place: int) -> list[Timing]:
        await asyncio.sleep(place / clients * spread)
        return [await one(number) for number in left]

    began = time.perf_counter()
    found = await asyncio.gather(*(client(place) for place in range(clients)))
    return [timing for several in found for timing in several], requests / (time.perf_counter() - began)


def percentile(values: Sequence[float], share: int) -> float:
    return sorted(values)[min(len(values) - 1, round(share / 100 * (len(values) - 1)))]


async def measured(policy: Policy, url: str, clients: int, requests: int, spread: float, tokens: int) -> dict[str, float]:
    text = TEXT.strip() if isinstance(policy, Timed) else None
    await load(lambda number: asked(url, text, tokens), clients, clients)  # all is loaded
    ours, rate = await load(lambda number: asked(url, text, tokens), clients, requests, spread)
    plain, bare_rate = await load(lambda number: bare(policy, number, tokens), clients, requests, spread)
    added = {
        f"added_{name}_ms_p{share}": 1e3
        * (percentile([one[at] for one in ours], share) - percentile([one[at] for one in plain], share))
        for at, name in enumerate(("ttft", "total"))
        for share in (50, 99)
    }
    found = {"requests_per_s": rate, "bare_requests_per_s": bare_rate, **added}
    found["bare_ttft_ms_p50"] = 1e3 * statistics.median(one.first for one in plain)
    return {name: round(value, 2) for name, value in found.items()}


async def serve(spec: str | None) -> None:
    """The endpoint, in a process of its own, until it is asked to end."""
    from toolreason.policies import open_policy
    from toolreason.serve.desk import Desk, Served
    from toolreason.serve.guard import listen
    from toolreason.serve.openai_app import application
    from toolreason.serve.process import address, asked_to_end, until
    from toolreason.strategies.base import load as load_strategy

    policy = Timed() if spec is None else await open_policy(spec)
    plan = load_strategy("plain")
    desk = Desk({"plain": Served("plain", plan, plan.settings())}, policy, None, running=128, waiting=512)
    with listen("127.0.0.1", 0, token=False) as listener, asked_to_end() as ending:
        print(address(listener), flush=True)
        await until(ending, application(desk), listener, lambda: desk.drain(0))


@contextlib.contextmanager
def endpoint(spec: str | None) -> Any:
    command = [sys.executable, __file__, "--serve", *(["--policy", spec] if spec else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


async def main(options: argparse.Namespace) -> dict[str, Any]:
    from toolreason.policies import open_policy

    found: dict[str, Any] = {}
    policy = Timed() if options.policy is None else await open_policy(options.policy)
    with endpoint(options.policy) as url:
        for clients in options.clients:
            requests = max(options.requests, 2 * clients)
            found[str(clients)] = await measured(policy, url, clients, requests, options.spread, options.tokens)
            print(f"{clients} clients: {found[str(clients)]}", file=sys.stderr)
    await policy.aclose()
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "date": datetime.date.today().isoformat()}
    summary = {"clients": found, "policy": options.policy or f"scripted: {FIRST_S} s, then {NEXT_S} s a word", "machine": machine}
    if "16" in found:
        summary["added_ttft_ms_p50_16"] = found["16"]["added_ttft_ms_p50"]
    return summary


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 128])
    parser.add_argument("--requests", type=int, default=400, help="of each number of clients; twice the clients at least")
    parser.add_argument("--spread", type=float, default=SPREAD_S, help="seconds over which clients begin; 0: all at once, in step")
    parser.add_argument("--tokens", type=int, default=256, help="of an answer at most")
    parser.add_argument("--policy", help="a real policy instead, as for the commands")
    parser.add_argument("--quick", action="store_true", help="fewer requests")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        run(serve(given.policy))
        sys.exit()
    if given.quick:
        given.requests = 100
    report = asyncio.run(main(given))
    if given.json:
        print(json.dumps(report))
