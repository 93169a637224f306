"""`toolreason curate`: collections become a training set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolreason.commands import common
from toolreason.errors import InputError

if TYPE_CHECKING:
    from toolreason.curate.balance import Setting
    from toolreason.curate.inputs import Known
    from toolreason.curate.pipeline import Curation
    from toolreason.curate.report import SourceRun
    from toolreason.curate.settings import CurateSettings

HELP = """Choose, filter and clean the traces of collections for fine-tuning; a report says what fell at each step.

    toolreason curate hint-rft --plain runs/plain --hinted runs/hinted --out sets/start-0

    toolreason curate rft runs/start-0 --out sets/start

    toolreason curate balance runs/t06 runs/t10 --threshold 0.5 --threshold 0.8
"""

LEAST = (0.0, 0.5, 0.7, 0.9)

app = typer.Typer(cls=common.Commands, no_args_is_help=True, help=HELP)

OutOption = Annotated[Path, typer.Option("--out", "-o", help="The directory to make: a run with rows, report and card.")]
ProblemsOption = Annotated[
    str | None,
    typer.Option(help="The problems' source, as for collect; default: where the runs have them from, if it is a file here."),
]
TokenizerOption = Annotated[
    str | None,
    typer.Option(
        help="The model's tokenizer: a name of `toolreason models`, a directory or a hub id; default: by the policy's name."
    ),
]
PerProblemOption = Annotated[int | None, typer.Option(min=1, help="Rows per problem at most (default 4).")]
SeedOption = Annotated[int | None, typer.Option(help="Orders traces of equal score (default 0).")]
ConfigOption = Annotated[Path | None, typer.Option(help="A TOML file of settings.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting, e.g. max_tokens=2048; an unknown one names all. Repeatable."),
]


@app.command("hint-rft")
def hint_rft(
    plain: Annotated[Path, typer.Option(metavar="RUN_DIR", help="The run without hints, greedy.")],
    hinted: Annotated[list[Path], typer.Option(metavar="RUN_DIR", help="A run of the same problems with hints. Repeatable.")],
    out: OutOption,
    problems: ProblemsOption = None,
    tokenizer: TokenizerOption = None,
    per_problem: PerProblemOption = None,
    seed: SeedOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    json_: common.JsonOption = False,
) -> None:
    """START's first set: right hinted traces of problems that plain reasoning got wrong, filtered, cleaned, 1 to 4 of each.

    Examples:

        toolreason collect problems.jsonl -o runs/plain -s plain

        toolreason collect problems.jsonl -o runs/hinted -s hint_infer --samples 4 --temperature 0.7

        toolreason curate hint-rft --plain runs/plain --hinted runs/hinted -o sets/start-0

        toolreason curate hint-rft --plain runs/plain --hinted runs/a --hinted runs/b -o sets/ab --set max_tokens=2048 --json
    """
    from toolreason import runs
    from toolreason.curate import inputs, pipeline
    from toolreason.curate.settings import CurateSettings
    from toolreason.curate.tokenizer import open_codec
    from toolreason.options import load

    chosen = load(CurateSettings, config, set_ or (), per_problem=per_problem, seed=seed)
    sources = inputs.sources([("plain", plain), *(("hinted", path) for path in hinted)])
    known, policy = inputs.known(problems, sources), inputs.policy(sources, tokenizer)
    if sources[0].manifest.sampling.temperature > 0:
        known.notes.append("the plain run is not greedy: its temperature is above 0")
    rows = inputs.rows(sources[1:], known.problems)
    made = pipeline.hint_rft(runs.read(plain), rows, open_codec(policy, tokenizer), chosen)
    _keep(made, sources, known, out, tokenizer or policy, json_)


@app.command()
def rft(
    sampled: Annotated[list[Path], typer.Argument(metavar="RUN_DIR...", help="Runs of the model that the first set trained.")],
    out: OutOption,
    tool_share: Annotated[
        float | None, typer.Option(min=0, max=1, help="The share of traces that ran a cell (default: as the scores give it).")
    ] = None,
    problems: ProblemsOption = None,
    tokenizer: TokenizerOption = None,
    per_problem: PerProblemOption = None,
    seed: SeedOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    json_: common.JsonOption = False,
) -> None:
    """START's second set: right traces that START-0 sampled, 1 to 4 of each problem. There is no keep rule here.

    Sample as the paper does, 16 times at temperature 0.6 and top-p 0.95:

        toolreason collect problems.jsonl -o runs/start-0 -p vllm:http://localhost:8000 --samples 16 --temperature 0.6 --top-p 0.95

        toolreason curate rft runs/start-0 -o sets/start --tool-share 0.7
    """
    from toolreason.curate import inputs, pipeline
    from toolreason.curate.settings import CurateSettings
    from toolreason.curate.tokenizer import open_codec
    from toolreason.options import load

    chosen = load(CurateSettings, config, set_ or (), per_problem=per_problem, seed=seed, tool_share=tool_share)
    sources = inputs.sources([("sampled", path) for path in sampled])
    known, policy = inputs.known(problems, sources), inputs.policy(sources, tokenizer)
    made = pipeline.rft(inputs.rows(sources, known.problems), open_codec(policy, tokenizer), chosen)
    _keep(made, sources, known, out, tokenizer or policy, json_)


@app.command()
def balance(
    directories: Annotated[
        list[Path], typer.Argument(metavar="RUN_DIR...", help="Runs of the same problems, each at its temperature.")
    ],
    threshold: Annotated[list[float] | None, typer.Option(help="A least score; default 0, 0.5, 0.7 and 0.9. Repeatable.")] = None,
    target: Annotated[int, typer.Option(min=1, help="n*: how many right responses are wanted of each problem.")] = 4,
    answer: Annotated[bool, typer.Option(help="Select right responses only; without, the score alone is the reward.")] = True,
    config: ConfigOption = None,
    set_: SetOption = None,
    json_: common.JsonOption = False,
) -> None:
    """B-STaR's balance score of each run and threshold: which temperature and which least score to go on with.

    Examples:

        toolreason curate balance runs/t06 runs/t08 runs/t10

        toolreason curate balance runs/t06 runs/t10 --threshold 0 --threshold 0.8 --target 8 --no-answer --json
    """
    from toolreason.curate import balance as measure
    from toolreason.curate import inputs
    from toolreason.curate.settings import CurateSettings
    from toolreason.options import load

    chosen, sources = load(CurateSettings, config, set_ or ()), inputs.sources([("sampled", path) for path in directories])
    lines: list[Setting] = []
    measured: list[dict[str, Any]] = []
    for source in sources:
        groups = _groups(source, chosen)
        temperature = source.manifest.sampling.temperature
        measured.append({"run": source.path, "temperature": temperature, **measure.measures(groups, target=target)})
        for least in threshold or LEAST:
            score = measure.balance(groups, least, target, answer=answer)
            lines.append(measure.Setting(source.path, temperature, least, score))
    best = measure.best(lines)
    if json_:
        told = {"target": target, "answer": answer, "settings": [one._asdict() for one in lines]}
        common.print_json({**told, "best": best._asdict(), "runs": measured})
        return
    _show_balance(lines, measured, best, target)


def _groups(source: SourceRun, settings: CurateSettings) -> dict[str, Any]:
    from toolreason import runs
    from toolreason.curate import balance as measure
    from toolreason.curate import pipeline

    responses = (pipeline.response(one, settings) for one in runs.read(source.path))
    groups = measure.grouped(one for one in responses if one is not None)
    if not groups:
        raise InputError(f"{source.path} has no rollout with a verdict that counts: nothing can be measured")
    return groups


def _show_balance(lines: Sequence[Setting], measured: Sequence[dict[str, Any]], best: Setting, target: int) -> None:
    from rich.table import Table

    table = Table("run", pad_edge=False)
    for name in ("temperature", "threshold", "balance"):
        table.add_column(name, justify="right")
    for one in lines:
        style = "bold green" if one is best else ""
        table.add_row(common.harmless(one.run), f"{one.temperature:g}", f"{one.threshold:g}", f"{one.score:.3f}", style=style)
    common.stdout().print(table)
    table = Table("run", pad_edge=False)
    for name in ("Pass@K", f"Pass@K-{target}", "distinct", "Best-of-K", f"Reward@K-{target}", "separation"):
        table.add_column(name, justify="right")
    for run in measured:
        values = [*run["exploration"].values(), *run["exploitation"].values()]
        table.add_row(common.harmless(run["run"]), *("-" if value is None else f"{value:.3f}" for value in values))
    common.stdout().print(table)
    if best.score == 0:
        common.say("nothing that is right was selected anywhere: no setting is better than another")
        return
    common.say(f"best: {best.run} at temperature {best.temperature:g} with a score of at least {best.threshold:g}", "green")


def _keep(made: Curation, sources: Sequence[SourceRun], known: Known, out: Path, tokenizer: str, json_: bool) -> None:
    """Write the directory and tell what is in it."""
    import toolreason
    from toolreason.curate import output, report

    hashed = sources[0].manifest.problems_hash
    origin = report.Origin(sources, known.source, hashed, tokenizer, toolreason.__version__, known.notes)
    new = output.write(out, output.files(made, origin))
    for note in known.notes:
        common.say(f"note: {note}")
    if json_:
        common.print_json({**report.report(made, origin), "out": str(out), "new": new})
    else:
        _show(made)
        told = "kept in" if new else "nothing new: the same set is in"
        common.say(f"{told} {out}; read report.md, look at rows with: toolreason show {out}", "dim")
    if not made.rows:
        common.say("no row is left: report.md shows what fell, and where a setting (--set) may be too strict")


def _show(made: Curation) -> None:
    from rich.table import Table

    table = Table("step", pad_edge=False)
    for name in ("rows in", "left", "problems left"):
        table.add_column(name, justify="right")
    table.add_column("fell or changed", overflow="fold")
    for step in made.steps:
        told = step.to_dict()
        why = [f"{count} {reason}" for reason, count in told["fell"].items()]
        why += [f"{count} changed: {name}" for name, count in told["changed"].items()]
        numbers = (str(told[key]) for key in ("rows", "rows_left", "problems_left"))
        table.add_row(step.name, *numbers, common.harmless(", ".join(why) or "-"))
    common.stdout().print(table)
