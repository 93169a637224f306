"""A collection as it runs, in a terminal: how far, how fast, how right, what the engine says, and what has ended last.

`collect` shows it over the rollouts that it makes, `watch` over a run directory that another process writes.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from toolreason import runs
from toolreason.render import JUDGEMENTS, percent, visible
from toolreason.stats import Tally, wilson
from toolreason.types import Judgement, Outcome, StopReason, Trajectory, from_json

NARROWEST, LOWEST = 60, 14  # columns and lines below which a bar is all that fits
RECENT_S = 60.0  # over which the rate of now is taken
ASK_S = 2.0  # between two questions to the engine
SIGNS = {Judgement.CORRECT: "✓", Judgement.WRONG: "✗", Judgement.UNSCORED: "?"}
COUNTERS = {  # of a vLLM server: how they are called there, and here
    "vllm:num_requests_running": "running",
    "vllm:num_requests_waiting": "waiting",
    "vllm:kv_cache_usage_perc": "cache",
    "vllm:gpu_cache_usage_perc": "cache",
    "vllm:generation_tokens_total": "tokens",
}


def fits(console: Console) -> bool:
    """Whether there is a terminal that can show it."""
    return console.is_terminal and not console.is_dumb_terminal and console.width >= NARROWEST and console.height >= LOWEST


class Board:
    """What is shown. Call it with the tally as it grows; `engine` says what the engine says of itself."""

    def __init__(self, title: str, console: Console, *, at_once: int = 0, engine: Callable[[], str] = lambda: "") -> None:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, TimeRemainingColumn(), console=console)
        self._task = self._bar.add_task(visible(title), total=None)
        self._console, self._at_once, self._engine = console, at_once, engine
        self._tally: Tally | None = None
        self._seen: deque[tuple[float, int, int]] = deque()

    def tell(self, what: str) -> None:
        self._bar.update(self._task, description=visible(what))

    def __call__(self, tally: Tally) -> None:
        self._tally = tally
        done = tally.finished + tally.aborted
        self._bar.update(self._task, completed=done, total=tally.total or None)
        now = time.monotonic()
        self._seen.append((now, done, tally.sampled))
        while len(self._seen) > 2 and now - self._seen[0][0] > RECENT_S:
            self._seen.popleft()

    def __rich__(self) -> RenderableType:
        tally = self._tally
        if tally is None:
            return self._bar
        facts = Table.grid(padding=(0, 2))
        facts.add_column(style="dim", no_wrap=True)
        facts.add_column(overflow="ellipsis", no_wrap=True)
        for name, told in self._facts(tally):
            facts.add_row(name, told)
        rows = max(0, min(len(tally.recent), self._console.height - LOWEST + 4))
        last = [_line(one, self._console.width) for one in list(tally.recent)[len(tally.recent) - rows :]]
        return Group(self._bar, facts, *last)

    def _facts(self, tally: Tally) -> Iterator[tuple[str, Text]]:
        right = tally.judgements[Judgement.CORRECT]
        scored = right + tally.judgements[Judgement.WRONG]
        low, high = wilson(right, scored)
        yield (
            "right",
            Text(
                f"{right}/{scored} = {percent(right / scored)} ({percent(low)} to {percent(high)})"
                if scored
                else "nothing scored yet"
            ),
        )
        yield "speed", Text(self._speed(tally))
        left = tally.total - tally.finished - tally.aborted
        if self._at_once and left > 0:
            yield "at work", Text(f"{min(left, self._at_once)} rollouts, {max(0, left - self._at_once)} wait")
        cells = tally.outcomes.total()
        if cells:
            failed = cells - tally.outcomes[Outcome.OK.value]
            yield "calls", Text(f"{cells / max(tally.finished, 1):.1f} a rollout, {percent(failed / cells)} failed")
        stops = [f"{name} {count}" for name, count in tally.stops.most_common(5)] + [f"aborted {tally.aborted}"] * bool(
            tally.aborted
        )
        yield "ended", Text(", ".join(stops), "red" if tally.aborted else "")
        if said := self._engine():
            yield "engine", Text(visible(said))

    def _speed(self, tally: Tally) -> str:
        (first, done, tokens), (now, *_) = self._seen[0], self._seen[-1]
        lately = max(now - first, 1e-3)
        rate = 60 * (self._seen[-1][1] - done) / lately
        return (
            f"{rate:.1f} rollouts/min, {(tally.sampled - tokens) / lately:.0f} tokens/s lately; {tally.speed:.0f} tokens/s in all"
        )


def _line(one: Trajectory, width: int) -> Text:
    """A trajectory that has ended, on one line."""
    judgement = one.verdict.judgement if one.verdict else Judgement.UNSCORED
    out = Text(no_wrap=True, overflow="ellipsis")
    out.append("! " if one.stop is StopReason.ABORTED else f"{SIGNS[judgement]} ", JUDGEMENTS[judgement])
    answer = (one.verdict.answer if one.verdict else None) or one.error or one.stop.value
    out.append(_fit(f"{one.problem_id} #{one.sample}", max(12, width // 3)).ljust(max(12, width // 3)))
    out.append(f" {len(one.cells):>2} calls {one.tokens():>6} tokens  ", "dim")
    return out.append(_fit(answer, max(8, width - width // 3 - 30)))


def _fit(text: str, most: int) -> str:
    text = visible(" ".join(text.split()))
    return text if len(text) <= most else text[: most - 1] + "…"


class Engine:
    """Asks a vLLM server, and the GPUs of this machine if there are any, in a thread of its own; says what they answered last."""

    def __init__(self, policy: str) -> None:
        self._url = policy.removeprefix("vllm:").split(",")[0].rstrip("/") if policy.startswith("vllm:http") else ""
        self._gpus = shutil.which("nvidia-smi")
        self._said, self._before = "", (0.0, 0.0)
        self._ended = threading.Event()

    def __call__(self) -> str:
        return self._said

    def __enter__(self) -> Engine:
        if self._url or self._gpus:
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
        import httpx

        if not self._url:
            return ""
        try:
            text = httpx.get(f"{self._url.removesuffix('/v1')}/metrics", timeout=1).text
        except httpx.HTTPError:
            return ""
        found = counters(text)
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


class Follower:
    """A run directory that grows: each `read` takes what is new. Of two lines for one rollout both count, as they are written."""

    def __init__(self, directory: Path) -> None:
        self.manifest = runs.manifest(directory)
        self._file = directory / runs.TRAJECTORIES
        self._done = 0
        self.tally = Tally(0)

    def read(self) -> Tally:
        """Raises InputError for a line that is damaged; one that is not whole yet is waited for."""
        first = self._done == 0
        with contextlib.suppress(FileNotFoundError), self._file.open("rb") as lines:
            lines.seek(self._done)
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                self._done += len(line)
                with contextlib.suppress(ValueError):
                    self.tally.add(from_json(Trajectory, line), resumed=first)
        return self.tally
