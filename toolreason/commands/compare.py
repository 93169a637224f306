"""`toolreason compare`: conditions beside each other on the same problems, seeds and token budget."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolreason.commands import common
from toolreason.commands.collect import bar, load_rows
from toolreason.errors import InputError, SettingsError, SetupError

if TYPE_CHECKING:
    from toolreason.compare.conditions import Ready
    from toolreason.compare.plan import Plan
    from toolreason.compare.report import Report
    from toolreason.types import Problem

TOP_LOGPROBS = 20  # for the certainty of a round; vLLM's default limit
REPORTING = {"problems", "out", "baseline", "chart", "json_"}  # what a report without a run takes


def compare(
    context: typer.Context,
    problems: Annotated[
        str, typer.Argument(metavar="PROBLEMS|DIR", help="Problems, as for `collect`; without --out, a comparison to report again.")
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The comparison's directory: made, or gone on with.")] = None,
    conditions: Annotated[
        str, typer.Option(help="Which of plain, wait, offered, hint, not-run, artist, with commas between.")
    ] = "plain,wait,offered,hint,not-run,artist",
    condition: Annotated[
        list[str] | None, typer.Option(metavar="NAME=STRATEGY[,KEY=VALUE...]", help="A condition of your own. Repeatable.")
    ] = None,
    hint: Annotated[str, typer.Option(metavar="PLACE", help="Where wait, hint and not-run put theirs: start, end, ...")] = "start",
    budget: Annotated[int, typer.Option(min=1, help="The most tokens of a rollout: model, hint, tool and taken back.")] = 1024,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of test-time scaling of the conditions with hints.")] = 1,
    baseline: Annotated[str | None, typer.Option(help="What the others are compared with: plain, if it is there.")] = None,
    policy: common.PolicyOption = common.DEFAULT_POLICY,
    samples: Annotated[int, typer.Option(min=1, help="Rollouts per problem.")] = 1,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, help="Rollouts at a time.")] = 8,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many problems.")] = None,
    temperature: common.TemperatureOption = 0.0,
    top_p: common.TopPOption = 1.0,
    seed: common.SeedOption = 0,
    sandbox: common.SandboxOption = "docker",
    chart: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Where the chart goes; default: OUT/compare.svg.")] = None,
    json_: common.JsonOption = False,
) -> None:
    """Roll PROBLEMS out under each condition; then one table, one chart, intervals and paired tests against a baseline.

    plain: no tools. wait: hints without Python. offered: an interpreter is announced, no hint. hint: hints and code that runs.
    not-run: the same hints, the code is not run. artist: ARTIST's tags. Each is an ordinary run in OUT/CONDITION; Ctrl-C keeps
    what is finished, and the same command goes on. Without --out nothing is run: the comparison in DIR is reported as it stands.

    Examples:

        toolreason compare problems.jsonl --out runs/first --limit 40

        toolreason compare problems.jsonl -o runs/late --conditions plain,wait,hint --hint end --rounds 4

        toolreason compare problems.jsonl -o runs/own --condition two=hint_infer,hint=end,max_calls=2

        toolreason compare runs/first --chart first.svg
    """
    _check_chart(chart)
    bad: list[dict[str, Any]] = []
    if out is None:
        _only_reporting(context)
        plan, out = _stored(Path(problems), baseline), Path(problems)
    else:
        import toolreason
        from toolreason.compare.conditions import BASELINE, choose, ready
        from toolreason.compare.plan import Plan, domains
        from toolreason.runs import problems_hash
        from toolreason.types import Sampling

        chosen = ready(choose(conditions, condition or ()), budget=budget, hint=hint, rounds=rounds)
        names = tuple(one.name for one in chosen)
        sampling = Sampling(temperature, top_p, seed=seed, top_logprobs=TOP_LOGPROBS if _scaled(chosen) else 0)
        if samples > 1 and temperature == 0:
            common.say("warning: at temperature 0 all samples of a problem are alike; give --temperature")
        _sandbox(sandbox, chosen, ())  # what can be wrong with the settings, before the problems are read
        rows, bad = load_rows(problems)
        asked = rows[:limit]
        box = _sandbox(sandbox, chosen, asked)
        plan = Plan(
            problems,
            problems_hash(rows),
            policy,
            sampling,
            budget=budget,
            samples=samples,
            rounds=rounds,
            conditions=names,
            baseline=BASELINE if BASELINE in names else names[0],
            domains=domains(asked),
            own_samples={one.name: one.samples for one in chosen if one.samples},
            command=_typed(context),
            version=toolreason.__version__,
        )
        plan = _run(out, plan, asked, chosen, box, concurrency, baseline)
    _report(out, plan, chart, bad, json_)


def _check_chart(chart: Path | None) -> None:
    """What would be wrong with it after hours of sampling is wrong now."""
    from toolreason import charts

    if chart is not None:
        charts.check()
        if not chart.parent.is_dir() or chart.is_dir():
            raise InputError(f"cannot write {chart}: name a file in a directory that is there with --chart")


def _given(context: typer.Context) -> list[str]:
    """The parameters that were typed."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]


def _typed(context: typer.Context) -> str:
    """The command as it can be typed again."""
    given = set(_given(context))
    words = ["toolreason", "compare"]
    for parameter in sorted(context.command.params, key=lambda one: one.param_type_name):  # arguments first
        value = context.params.get(parameter.name or "")
        if parameter.name not in given:
            continue
        if parameter.param_type_name == "argument":
            words.append(str(value))
        elif isinstance(value, bool):
            words.append(parameter.opts[0])
        else:
            words += [
                word for one in (value if isinstance(value, list | tuple) else [value]) for word in (parameter.opts[0], str(one))
            ]
    return shlex.join(words)


def _only_reporting(context: typer.Context) -> None:
    useless = [name for name in _given(context) if name not in REPORTING]
    if useless:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in useless)
        raise SettingsError(f"without --out nothing is run, and {options} would do nothing: add --out DIR, or leave them out")


def _stored(path: Path, baseline: str | None) -> Plan:
    from toolreason.compare.plan import read

    plan = read(path)
    return plan if baseline is None else replace(plan, baseline=baseline)


def _scaled(conditions: Iterable[Ready]) -> bool:
    return any(getattr(one.settings, "rounds", 1) > 1 for one in conditions)


def _sandbox(sandbox: str, conditions: Iterable[Ready], problems: Sequence[Problem]) -> str:
    """The sandbox if any condition or the verification runs code, else none."""
    needed = "none"
    for one in conditions:
        try:
            box = common.sandbox_for(sandbox, one.settings, problems)
        except SettingsError as error:
            raise SettingsError(f"condition {one.name!r}: {error}") from error
        needed = box if box != "none" else needed
    return needed


def _run(
    out: Path,
    plan: Plan,
    problems: Sequence[Problem],
    conditions: Sequence[Ready],
    sandbox: str,
    concurrency: int,
    baseline: str | None,
) -> Plan:
    from toolreason.compare.run import opened, run

    jobs = len(problems) * plan.samples

    async def work(writers: Sequence[Any]) -> None:
        with bar("starting") as progress:

            def on_progress(name: str, before: int, tally: Any) -> None:
                progress.tell(f"{name} ({before + 1}/{len(conditions)})")
                progress(tally, before=before * jobs, of=len(conditions) * jobs)

            async with common.opened(plan.policy, sandbox, concurrency=concurrency, tell=progress.tell) as parts:
                await run(
                    plan,
                    problems,
                    conditions,
                    writers,
                    policy=parts.policy,
                    sessions=parts.sessions,
                    verifier=parts.verifier,
                    workshops=parts.workshops,
                    concurrency=concurrency,
                    on_progress=on_progress,
                )

    with opened(out, plan, conditions, baseline) as (kept, writers):
        try:
            common.run(work(writers))
        except (KeyboardInterrupt, asyncio.CancelledError):
            done = sum(len(writer.done) for writer in writers)
            common.say(
                f"stopped: {done} finished rollouts are kept in {out}. To go on, give the same command again; "
                f"to see what there is: toolreason compare {shlex.quote(str(out))}"
            )
            raise typer.Exit(common.INTERRUPTED) from None
    return kept


def _report(out: Path, plan: Plan, chart: Path | None, bad: Sequence[Any], json_: bool) -> None:
    """Read the runs, write the tables and the chart, show the tables. Exit code 1 where rollouts were aborted."""
    from toolreason.compare import files

    done = files.report(out, plan)
    files.write(out, done)
    drawn = _draw(done, chart, out / files.CHART)
    if json_:
        named = [str(out / files.MARKDOWN), str(out / files.JSON), *map(str, drawn)]
        common.print_json({**done.to_dict(), "bad_rows": list(bad), "out": str(out), "files": named})
    else:
        _show(done, out, drawn)
    if any(one.aborted for one in done.conditions):
        raise typer.Exit(common.INFRASTRUCTURE)


def _draw(done: Report, chart: Path | None, default: Path) -> list[Path]:
    from toolreason.compare import files

    try:
        return files.draw(done, chart or default)
    except SetupError as error:
        if chart is not None:
            raise
        common.say(f"no chart: {error}", "dim")
        return []


def _show(done: Report, out: Path, drawn: Sequence[Path]) -> None:
    from toolreason.compare import files, tables

    console = common.stdout()
    for grid in tables.grids(done):
        console.print(tables.rich_table(grid))
        console.print()
    for note in tables.notes(done):
        common.say(note, "dim")
    common.say(f"kept in {out}: {files.MARKDOWN}, {files.JSON}" + "".join(f"; chart: {file}" for file in drawn), "dim")
