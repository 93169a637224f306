"""A collection as it runs, in a terminal: how far, how fast, how right, what the engine says, and what has ended last.

`collect` shows it over the rollouts that it makes, `watch` over a run directory that another process writes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from toolreason import runs
from toolreason.render import ERROR, JUDGEMENTS, percent, short, visible
from toolreason.runs import Key
from toolreason.stats import Tally, wilson
from toolreason.types import Judgement, Outcome, Source, StopReason, Trajectory, from_json

NARROWEST, LOWEST = 60, 14  # columns and lines below which a bar is all that fits
RECENT_S = 60.0  # over which the rate of now is taken
AHEAD_S = 900.0  # over which the time left is estimated: a rollout may take minutes
SIGNS = {Judgement.CORRECT: "✓", Judgement.WRONG: "✗", Judgement.UNSCORED: "?"}


def fits(console: Console) -> bool:
    """Whether there is a terminal that can show it."""
    return console.is_terminal and not console.is_dumb_terminal and console.width >= NARROWEST and console.height >= LOWEST


class Board:
    """What is shown. Call it with the tally as it grows; `engine` says what the engine says of itself."""

    def __init__(self, title: str, console: Console, *, at_once: int = 0, engine: Callable[[], str] = lambda: "") -> None:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, TimeRemainingColumn(), console=console, speed_estimate_period=AHEAD_S)
        self._title = short(title, NARROWEST // 2)
        self._task = self._bar.add_task(self._title, total=None)
        self._console, self._at_once, self._engine = console, at_once, engine
        self._tally: Tally | None = None
        self._seen: deque[tuple[float, int, int]] = deque()
        self._before = 0  # rollouts that had ended when this view began

    def tell(self, what: str) -> None:
        self._title = short(what, NARROWEST // 2)
        self._bar.update(self._task, description=self._title)

    def __call__(self, tally: Tally) -> None:
        done = tally.finished + tally.aborted
        if self._tally is None:
            self._before = done
        self._tally = tally
        self._bar.update(self._task, completed=done, total=tally.total or None)
        now = time.monotonic()
        self._seen.append((now, done, tally.sampled))
        while len(self._seen) > 1 and now - self._seen[1][0] >= RECENT_S:
            self._seen.popleft()  # only here: what draws is another thread

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
        last = [line(one, self._console.width) for one in list(tally.recent)[len(tally.recent) - rows :]]
        known = tally.total > 0  # a run directory does not say how many there will be
        top = self._bar if known else Text(f"{self._title}, {tally.finished + tally.aborted} rollouts", "bold")
        return Group(top, facts, *last)

    def _facts(self, tally: Tally) -> Iterator[tuple[str, Text]]:
        right = tally.judgements[Judgement.CORRECT]
        scored = right + tally.judgements[Judgement.WRONG]
        low, high = wilson(right, scored)
        between = f"({percent(low)} to {percent(high)})"
        yield "right", Text(f"{right}/{scored} = {percent(right / scored)} {between}" if scored else "nothing scored yet")
        yield "speed", Text(self._speed(tally))
        left = tally.total - tally.finished - tally.aborted
        if self._at_once and left > 0:
            yield "at work", Text(f"{min(left, self._at_once)} rollouts, {max(0, left - self._at_once)} wait")
        cells = tally.outcomes.total()
        if cells:
            failed = cells - tally.outcomes[Outcome.OK.value]
            yield "calls", Text(f"{cells / max(tally.finished, 1):.1f} a rollout, {percent(failed / cells)} failed")
        stops = [f"{name} {count}" for name, count in tally.stops.most_common(5)]
        stops += [f"aborted {tally.aborted}"] if tally.aborted else []
        yield "ended", Text(", ".join(stops), "red" if tally.aborted else "")
        if said := self._engine():
            yield "engine", Text(visible(said))

    def _speed(self, tally: Tally) -> str:
        """Of about the last minute, up to now, so that it sinks where nothing ends any more."""
        first, done, tokens = self._seen[0]
        lately = max(time.monotonic() - first, 1.0)
        ended = tally.finished + tally.aborted
        if ended <= self._before:
            return "nothing has ended since this view began"
        rollouts, speed = 60 * max(0, ended - done) / lately, (tally.sampled - tokens) / lately
        return f"{rollouts:.1f} rollouts/min, {speed:.0f} tokens/s lately; {tally.speed:.0f} tokens/s in all"


def line(one: Trajectory, width: int, *, id_: bool = False) -> Text:
    """A trajectory on one line of this width, in columns: sign, problem, calls, tokens, and what it answered or why it ended."""
    judgement = one.verdict.judgement if one.verdict else Judgement.UNSCORED
    out = Text(no_wrap=True, overflow="ellipsis")
    out.append("! " if one.stop is StopReason.ABORTED else f"{SIGNS[judgement]} ", JUDGEMENTS[judgement])
    if id_:
        out.append(_cells(one.id[:12], 12) + "  ", "bold")
    number = f" #{one.sample}"
    out.append(_cells(one.problem_id, max(12, width // 3 - 14 * id_) - len(number)) + number)
    out.append(f" {len(one.cells):>3} call{' ' if len(one.cells) == 1 else 's'} {one.tokens():>6} tokens  ", "dim")
    answer = one.verdict.answer if one.verdict else None
    if one.stop is not StopReason.ANSWERED:
        out.append(f"{one.stop}  ", ERROR if one.stop is StopReason.ABORTED else "yellow")
    out.append(short(one.error or answer or _said_last(one), width))
    out.truncate(width, overflow="ellipsis")
    return out


def _said_last(one: Trajectory) -> str:
    said = [segment.text for segment in one.segments if segment.source is Source.MODEL and segment.text.strip()]
    return said[-1][:1000] if said else ""


def _cells(text: str, width: int) -> str:
    """Text as a column of so many cells, with an ellipsis where it is longer. Wide characters take two."""
    text = visible(" ".join(text.split()))
    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


class Follower:
    """A run directory that grows: each `read` takes what is new. A rollout that is done again after it was aborted counts once."""

    def __init__(self, directory: Path) -> None:
        """Raises InputError where there is no run."""
        self.manifest = runs.manifest(directory)
        self._file = directory / runs.TRAJECTORIES
        self._restart()

    def _restart(self) -> None:
        self.tally = Tally(0)
        self._done = 0
        self._aborted: set[Key] = set()
        self._began = False  # what is there at the first look was not made while we looked

    def read(self) -> Tally:
        """A line that is not whole yet is waited for, one that is damaged passed over; a file that was begun anew is, too."""
        with contextlib.suppress(FileNotFoundError), self._file.open("rb") as lines:
            if lines.seek(0, os.SEEK_END) < self._done:
                self._restart()
            lines.seek(self._done)
            for row in lines:
                if not row.endswith(b"\n"):
                    break
                self._done += len(row)
                with contextlib.suppress(ValueError):
                    self._add(from_json(Trajectory, row))
        self._began = True
        return self.tally

    def _add(self, one: Trajectory) -> None:
        key = Key(one.problem_id, one.sample)
        if key in self._aborted:
            self._aborted.remove(key)
            self.tally.aborted -= 1
        if one.stop is StopReason.ABORTED:
            self._aborted.add(key)
        self.tally.add(one, resumed=not self._began)
