"""`toolreason collect`: a run directory of trajectories, resumable."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolreason.commands import common

if TYPE_CHECKING:
    from toolreason.runs import Manifest, RunWriter
    from toolreason.stats import Summary, Tally
    from toolreason.strategies.base import Settings
    from toolreason.types import Problem, Sampling

SHOWN = 5  # bad rows named one by one


def collect(
    problems: Annotated[str, typer.Argument(help="A JSONL file, hf:NAME[:CONFIG][:SPLIT] or gym:FAMILIES:SIZE[:SEED].")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The run directory: made, or gone on with.")],
    strategy: common.StrategyOption = "hint_infer",
    policy: common.PolicyOption = common.DEFAULT_POLICY,
    samples: Annotated[int, typer.Option(min=1, help="Rollouts per problem.")] = 1,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, help="Rollouts at a time.")] = 8,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many problems.")] = None,
    set_: common.SetOption = None,
    temperature: common.TemperatureOption = 0.0,
    top_p: common.TopPOption = 1.0,
    seed: common.SeedOption = 0,
    top_logprobs: common.TopLogprobsOption = 0,
    sandbox: common.SandboxOption = "docker",
    json_: common.JsonOption = False,
) -> None:
    """Roll out PROBLEMS, judge each answer, keep every trajectory in a run directory.

    Ctrl-C and even kill -9 lose nothing that was finished: the same command goes on where it ended. A row that cannot be read is
    named and costs nothing but itself.

    Examples:

        toolreason collect problems.jsonl --out runs/first

        toolreason collect problems.jsonl -o runs/s4 --samples 4 --temperature 0.7

        toolreason collect hf:openai/gsm8k:main:test -o runs/gsm8k --limit 100

        toolreason collect gym:count_primes,gcd:30 -o runs/gym -s plain --json
    """
    from toolreason.strategies.base import as_dict
    from toolreason.types import Sampling

    settings = common.settings_of(strategy, set_)
    sampling = Sampling(temperature, top_p, seed=seed, top_logprobs=top_logprobs)
    if samples > 1 and temperature == 0:
        common.say("warning: at temperature 0 all samples of a problem are alike; give --temperature")
    rows, bad = load_rows(problems)
    manifest = _manifest(strategy, as_dict(settings), policy, sampling, problems, rows, samples)
    chosen = rows[:limit]
    sandbox = common.sandbox_for(sandbox, settings, chosen)
    summary = _collect(out, manifest, chosen, settings, sampling, concurrency, sandbox)
    if json_:
        common.print_json({**summary.to_dict(), "bad_rows": bad, "out": str(out)})
    else:
        from toolreason.render_tables import summary_table

        common.stdout().print(summary_table(summary))
        common.say(f"kept in {out}; look at it with: toolreason show {out}", "dim")
    if summary.aborted:
        raise typer.Exit(common.INFRASTRUCTURE)


def load_rows(source: str) -> tuple[list[Problem], list[dict[str, Any]]]:
    """The problems of a source; the rows that could not be read are named on stderr."""
    from toolreason import problems
    from toolreason.errors import ProblemError

    loaded = problems.load(source)
    for row in loaded.bad[:SHOWN]:
        common.say(f"left out: {source} line {row.line}: {row.reason}")
    if len(loaded.bad) > SHOWN:
        common.say(f"left out: {len(loaded.bad) - SHOWN} rows more")
    if not loaded.problems:
        raise ProblemError(f"{source} has no row that can be read")
    return loaded.problems, [{"line": row.line, "reason": row.reason} for row in loaded.bad]


def _manifest(
    strategy: str, settings: dict[str, Any], policy: str, sampling: Sampling, source: str, rows: Sequence[Problem], samples: int
) -> Manifest:
    import toolreason
    from toolreason.runs import Manifest, problems_hash

    return Manifest(strategy, settings, policy, sampling, source, problems_hash(rows), samples, toolreason.__version__)


def _collect(
    out: Path,
    manifest: Manifest,
    problems: Sequence[Problem],
    settings: Settings,
    sampling: Sampling,
    concurrency: int,
    sandbox: str,
) -> Summary:
    from toolreason.collect import collect
    from toolreason.runs import RunWriter

    async def work(writer: RunWriter) -> Summary:
        with board("starting", manifest.policy, concurrency) as progress:
            async with common.opened(manifest.policy, sandbox, concurrency=concurrency, tell=progress.tell) as parts:
                progress.tell(manifest.strategy)
                return await collect(
                    problems,
                    strategy=manifest.strategy,
                    policy=parts.policy,
                    sessions=parts.sessions,
                    verifier=parts.verifier,
                    workshops=parts.workshops,
                    writer=writer,
                    sampling=sampling,
                    settings=settings,
                    samples=manifest.samples,
                    concurrency=concurrency,
                    on_progress=progress,
                )

    with RunWriter.open(out, manifest) as writer:
        try:
            return common.run(work(writer))
        except (KeyboardInterrupt, asyncio.CancelledError):
            common.say(f"stopped: {len(writer.done)} finished rollouts are kept in {out}. To go on, give the same command again.")
            raise typer.Exit(common.INTERRUPTED) from None


class Bar:
    """A progress bar over rollouts: done of total, accuracy so far, tokens per second, time left."""

    def __init__(self, title: str) -> None:
        from rich import progress

        text = progress.TextColumn("{task.description} {task.fields[more]}", markup=False)
        columns = (text, progress.BarColumn(), progress.MofNCompleteColumn(), progress.TimeRemainingColumn())
        self.display = progress.Progress(*columns, console=common.stderr())
        self._task = self.display.add_task(title, total=None, more="")

    def tell(self, what: str) -> None:
        self.display.update(self._task, description=what)

    def __call__(self, tally: Tally, *, before: int = 0, of: int | None = None) -> None:
        """Show this tally; `before` rollouts were done before it, of so many in all (default: the tally's own)."""
        right = "" if tally.accuracy is None else f"{100 * tally.accuracy:.0f} % right"
        speed = f"  {tally.speed:.0f} tok/s" if tally.sampled else ""
        aborted = f"  {tally.aborted} aborted" if tally.aborted else ""
        done = before + tally.finished + tally.aborted
        self.display.update(self._task, total=tally.total if of is None else of, completed=done, more=right + speed + aborted)


@contextlib.contextmanager
def board(title: str, policy: str, at_once: int) -> Iterator[Any]:
    """All there is to see of a collection, where the terminal can show it; else a bar."""
    from rich.live import Live

    from toolreason import engine_counters, live_view

    console = common.stderr()
    if not live_view.fits(console):
        with bar(title) as shown:
            yield shown
        return
    with engine_counters.Engine(policy) as engine:
        view = live_view.Board(title, console, at_once=at_once, engine=engine)
        with Live(view, console=console, refresh_per_second=4):
            yield view


@contextlib.contextmanager
def bar(title: str) -> Iterator[Bar]:
    shown = Bar(title)
    with shown.display:
        yield shown
