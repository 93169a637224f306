"""`toolreason export`: training rows from run directories."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from toolreason.commands import common

if TYPE_CHECKING:
    from toolreason.export import Report
    from toolreason.types import Problem


def export(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN_DIR...", help="What `toolreason collect` wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="FILE.parquet, FILE.jsonl, or a directory for datasets.load_from_disk.")],
    for_: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="sft|rl|messages|dpo|kto|openenv|verl|verifiers",
            help="What the rows are for: it decides the masks.",
        ),
    ] = "sft",
    verdict: Annotated[
        str | None,
        typer.Option(help="correct, wrong, unscored or any. Default: correct; with rewards right and wrong, as 1 and 0."),
    ] = None,
    end_token: Annotated[
        list[int] | None,
        typer.Option(
            metavar="ID",
            help="sft: put this id after an answer that we stopped at, so that stopping is learnt. More: further end ids.",
        ),
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The most tokens of a row, prompt included.")] = None,
    long: Annotated[str, typer.Option(metavar="drop|truncate", help="What happens to a longer one.")] = "drop",
    problems: Annotated[
        str | None,
        typer.Option(help="messages: the problems the run was collected with, to have roles in place of a prompt's text."),
    ] = None,
    aside: Annotated[
        bool,
        typer.Option("--aside", help="uct: rows of what the builder of tools said too, each call one, with the rollout's verdict."),
    ] = False,
    pairs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="dpo: the most pairs of one problem; kto: the most rows of each kind. Default: 4."),
    ] = None,
    split: Annotated[float | None, typer.Option(help="This share of the problems goes to a test part of its own.")] = None,
    seed: Annotated[int, typer.Option(help="Of the split, of --shuffle, and of which pairs are taken.")] = 0,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="The rows in random order.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    json_: common.JsonOption = False,
) -> None:
    """Make training rows of the trajectories in RUN_DIR: token ids as they were sampled, and which of them are trained.

    sft trains on model and hint tokens, rl on model tokens only; prompt and tool tokens are never trained. messages is text
    without masks. dpo makes pairs of a right and a wrong one of the same problem and prompt, kto the same with a label each.
    openenv, verl and verifiers are rl in the shapes of other systems. docs/export.md has the columns.

    Examples:

        toolreason export runs/hinted --out rows.parquet

        toolreason export runs/a runs/b --for rl --out rl.parquet

        toolreason export runs/tagged --end-token 151645 --max-tokens 4096 --split 0.1 --out data/sft

        toolreason export runs/samples --for dpo --pairs 2 --out pairs.parquet

        toolreason export runs/hinted --for messages --problems problems.jsonl --out rows.jsonl
    """
    from toolreason import export as exporting
    from toolreason.export import files

    report = exporting.Report()
    files.targets(out, split is not None, overwrite)
    rows = exporting.rows(
        exporting.read(run_dirs),
        for_,
        report=report,
        verdict=verdict,
        end_tokens=end_token or (),
        max_tokens=max_tokens,
        long=long,
        problems=None if problems is None else _problems(problems),
        aside=aside,
        pairs=pairs,
        seed=seed,
    )
    _quiet(out)
    written = files.write(out, rows, split=split, seed=seed, shuffle=shuffle, overwrite=overwrite, check=report.check)
    if json_:
        common.print_json({**report.to_dict(), "out": {str(file): count for file, count in written.items()}})
    else:
        _print(report, written, for_)
    if report.aside and not aside and for_ not in exporting.PAIRED:
        common.say(
            f"note: {report.aside} calls of the builder of tools are no rows; --aside takes those of exported rollouts", "dim"
        )
    if report.unended:
        common.say(
            f"warning: {report.unended} rows end at </answer> without an end token, as they were stopped there: a model trained on "
            "them does not learn to end its turn. --end-token ID adds it (ID is the tokenizer's eos_token_id)"
        )


def _problems(source: str) -> dict[str, Problem]:
    from toolreason import problems

    return {problem.id: problem for problem in problems.load(source).problems}


def _quiet(out: Path) -> None:
    """No progress bars of a library among our own lines."""
    if out.suffix:
        return
    try:
        from datasets import disable_progress_bars
    except ImportError:  # said where it is needed
        return
    disable_progress_bars()


def _print(report: Report, written: dict[Path, int], for_: str) -> None:
    from rich.table import Table

    shown = Table(show_header=False, box=None, pad_edge=False)
    shown.add_column(style="dim")
    shown.add_column(overflow="fold")
    left_out = ", ".join(f"{count} {reason}" for reason, count in report.left_out.most_common())
    tokens = ", ".join(f"{count} {source}" for source, count in report.tokens.items())
    trained = f"; {report.trained} of them trained" if report.trained else ""
    lines = [
        ("rows", f"{report.rows} {'pairs ' if for_ == 'dpo' else ''}of {report.read} trajectories"),
        ("left out", left_out or "none"),
        ("cut", str(report.truncated) if report.truncated else ""),
        ("tokens", (tokens or "none: text only") + trained),
        *(("written", f"{file}: {count}") for file, count in written.items()),
    ]
    for name, value in lines:
        if value:
            shown.add_row(name, common.harmless(value))
    common.stdout().print(shown)
