"""What the engine says of itself while a collection runs: a vLLM server's own counters, and the GPUs of this machine.

It is asked beside the work and never waited for; where there is nothing to ask, or no answer, there is nothing to show.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time

from toolreason.render import percent

ASK_S = 2.0  # between two questions
COUNTERS = {  # of a vLLM server: how they are called there, and here
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    "vllm:kv_cache_usage_perc": "cache",
    "vllm:gpu_cache_usage_perc": "cache",
    "vllm:generation_tokens_total": "tokens",
}


class Engine:
    """Asks a vLLM server, and the GPUs of this machine if there are any, in a thread of its own; says what they answered last."""

    def __init__(self, policy: str) -> None:
        named = policy.removeprefix("vllm:").split(",") if policy.startswith("vllm:http") else []
        self._urls = [url.strip().rstrip("/").removesuffix("/v1") for url in named]
        self._gpus = shutil.which("nvidia-smi")
        self._said, self._before = "", (0.0, 0.0)
        self._ended = threading.Event()

    def __call__(self) -> str:
        return self._said

    def __enter__(self) -> Engine:
        if self._urls or self._gpus:
            threading.Thread(target=self._work, name="engine-counters", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _work(self) -> None:
        while not self._ended.wait(ASK_S if self._said else 0.1):
            self._said = ", ".join(filter(None, (self._server(), self._cards())))
            if not self._said and self._ended.wait(ASK_S):
                return

    def _server(self) -> str:
        found = counters("\n".join(map(_metrics, self._urls)))
        if "running" not in found:
            return ""
        now, tokens = time.monotonic(), found.get("tokens", 0.0)
        (then, before), self._before = self._before, (now, tokens)
        speed = f", {(tokens - before) / (now - then):.0f} tokens/s" if then and tokens >= before else ""
        cache = f", cache {percent(found['cache'])}" if "cache" in found else ""
        return f"{found['running']:.0f} run, {found.get('waiting', 0):.0f} wait{speed}{cache}"

    def _cards(self) -> str:
        if not self._gpus:
            return ""
        query = "--query-gpu=utilization.gpu,memory.used,memory.total"
        try:
            asked = subprocess.run(
                [self._gpus, query, "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=2, check=True
            )
            cards = [line.split(",") for line in asked.stdout.splitlines() if line.count(",") == 2]
            return ", ".join(f"GPU {int(used)} % ({int(mb) >> 10}/{int(of) >> 10} GiB)" for used, mb, of in cards[:8])
        except (OSError, ValueError, subprocess.SubprocessError):
            return ""


def _metrics(url: str) -> str:
    """What a server says of itself; nothing where it does not answer soon."""
    import httpx

    try:
        return httpx.get(f"{url}/metrics", timeout=1).text
    except (httpx.HTTPError, httpx.InvalidURL):
        return ""


def counters(text: str) -> dict[str, float]:
    """A vLLM server's own, out of Prometheus's format; of several engines the sum, for shares the largest."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        name = COUNTERS.get(line.split("{")[0].split(" ")[0])
        if name is None:
            continue
        with contextlib.suppress(ValueError):
            value = float(line.rsplit(" ", 1)[-1])
            found[name] = max(found.get(name, 0.0), value) if name == "cache" else found.get(name, 0.0) + value
    return found
