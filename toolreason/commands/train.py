"""`toolreason train`: fine-tune a model on what it did."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from toolreason.commands import common, train_common, train_curves, train_rl, train_start

HELP = """Fine-tune a model on trajectories, token by token as they were sampled.

    toolreason train sft sets/start-0 --model qwen2.5-coder-0.5b-instruct --out models/start-0

    toolreason train start recipe.toml --out start
"""

app = typer.Typer(cls=common.Commands, no_args_is_help=True, help=HELP)
app.command("start")(train_start.start)
app.command("rl")(train_rl.rl)
app.command("curves")(train_curves.curves)


@app.command()
def sft(
    data: Annotated[
        list[Path],
        typer.Argument(metavar="DATA...", help="Exports (--for sft), datasets directories, run directories or curated sets."),
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", help="A name of `toolreason models`, a directory of safetensors, or a hub id.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The directory to make, or to go on with.")],
    epochs: Annotated[float | None, typer.Option(help="How often each row is seen (default 3).")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="So many updates instead.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default 1e-5, with --lora 1e-4.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Rows at a time in each process (default 1).")] = None,
    accumulate: Annotated[int | None, typer.Option(min=1, help="Batches of an update (default 8).")] = None,
    max_length: Annotated[
        int | None, typer.Option(min=2, help="The most tokens of a row, prompt included (default: what the model takes).")
    ] = None,
    long: Annotated[str | None, typer.Option(metavar="drop|truncate", help="What happens to a longer one (default drop).")] = None,
    packing: Annotated[bool | None, typer.Option("--packing/--no-packing", help="Rows share sequences.")] = None,
    held_out: Annotated[
        float | None, typer.Option(help="The share of the problems kept back to measure the loss with (default 0.05).")
    ] = None,
    lora: Annotated[int | None, typer.Option(metavar="RANK", min=0, help="Train an adapter of this rank (0: all weights).")] = None,
    merge: Annotated[bool | None, typer.Option("--merge/--no-merge", help="--lora: write merged weights too.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the order of rows, of dropout, of what is held out.")] = None,
    save_every: Annotated[int | None, typer.Option(min=1, help="Steps between two checkpoints (default 50).")] = None,
    report_to: Annotated[
        str | None, typer.Option(metavar="none|tensorboard|trackio|wandb", help="Beside DIR/metrics.jsonl (default none).")
    ] = None,
    eval_: Annotated[
        str | None, typer.Option("--eval", metavar="PROBLEMS", help="Roll these out before, during and after; as for collect.")
    ] = None,
    eval_strategy: Annotated[str | None, typer.Option(help="With this strategy (default artist).")] = None,
    eval_set: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A setting of it (default for artist: as the rows ask and call). Repeatable."),
    ] = None,
    eval_every: Annotated[int | None, typer.Option(min=0, help="Every so many steps (default 0: before and after only).")] = None,
    eval_limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many problems.")] = None,
    sandbox: Annotated[str | None, typer.Option(help="Where their code runs (default docker); as for collect.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file of settings, named as the options are: learning_rate = 2e-5")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, e.g. warmup=0.1; an unknown one names all. Repeatable."),
    ] = None,
    json_: common.JsonOption = False,
) -> None:
    """Hint-RFT: train on right rollouts, the hints in them included, so that the model comes to hint itself.

    Model and hint tokens are trained, prompt and tool tokens never. Ctrl-C keeps a checkpoint, kill -9 the last one: the same
    command goes on. The result is in DIR/model (with --lora in DIR/adapter), what came of it in DIR/report.json.

    Examples:

        toolreason train sft sets/start-0 -m qwen2.5-coder-0.5b-instruct -o models/start-0

        toolreason train sft start-0.parquet -m Qwen/Qwen2.5-7B-Instruct -o models/start-0 --lora 32 --merge --packing

        toolreason train sft sets/start-0 -m models/base -o models/start-0 --eval fresh.jsonl --eval-every 50 --eval-limit 100

        toolreason train sft sets/start-0 -m models/base -o models/start-0 --config sft.toml --set warmup=0.1
    """
    from toolreason.options import load
    from toolreason.train.settings import SftSettings

    options: dict[str, Any] = {
        "epochs": epochs,
        "steps": steps,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "max_length": max_length,
        "long": long,
        "packing": packing,
        "held_out": held_out,
        "lora": lora,
        "merge": merge,
        "seed": seed,
        "save_every": save_every,
        "report_to": report_to,
        "eval": eval_,
        "eval_strategy": eval_strategy,
        "eval_set": eval_set or None,
        "eval_every": eval_every,
        "eval_limit": eval_limit,
        "sandbox": sandbox,
    }
    chosen = load(SftSettings, config, set_ or (), **options)
    report = _train(data, model, out, chosen)
    if not report:  # of several processes the first one tells
        return
    if json_:
        common.print_json(report)
    else:
        _show(report)


def _train(data: list[Path], model: str, out: Path, chosen: Any) -> dict[str, Any]:
    from toolreason.train import sft, sft_files

    plan = train_common.evaluation(
        chosen.eval,
        chosen.eval_strategy,
        chosen.eval_pairs,
        chosen.sandbox,
        limit=chosen.eval_limit,
        concurrency=chosen.eval_concurrency,
    )
    try:
        with train_common.bar() as bar:
            return sft.train(data, model, out, chosen, evaluation=plan, listen=bar)
    except KeyboardInterrupt:
        kept = sft_files.latest(out)
        what = f"step {sft_files.step_of(kept)} is kept in {out}" if kept else "nothing was trained yet"
        common.say(f"stopped: {what}. To go on, give the same command again.")
        raise typer.Exit(common.INTERRUPTED) from None


def _show(report: dict[str, Any]) -> None:
    from rich.table import Table

    data, losses = report["data"], report["held_out_loss"]
    dropped = ", ".join(f"{count} {reason}" for reason, count in data["dropped"].items())
    tokens = ", ".join(f"{count} {source}" for source, count in data["tokens"].items())
    shown = Table(show_header=False, box=None, pad_edge=False)
    shown.add_column(style="dim")
    shown.add_column(overflow="fold")
    lines = [
        ("rows", f"{data['rows']} trained on, {data['held_out']} held out, of {data['read']}"),
        ("dropped", dropped),
        ("cut", str(data["truncated"] or "")),
        ("tokens", f"{tokens}; {data['trained']} of them trained"),
        ("steps", f"{report['steps']} in {report['duration_s']:.0f} s, {report['precision']} on {report['device']}"),
        ("loss", "{first:.3f} at first, {last:.3f} at last".format(**report["loss"]) if report["loss"] else ""),
        ("held out", f"{losses['before']['all']:.3f} before, {losses['after']['all']:.3f} after" if losses else ""),
        *((f"step {one['step']}", _evaluated(one)) for one in report["evaluations"]),
        *((what, where) for what, where in report["out"].items()),
    ]
    for name, value in lines:
        if value:
            shown.add_row(name, common.harmless(value))
    common.stdout().print(shown)


def _evaluated(one: dict[str, Any]) -> str:
    """One evaluation in a line: shares in per cent, with their 95 % intervals."""
    if "failed" in one:
        return "the rollouts failed"
    shares = [
        f"{100 * one[name]:.0f} % {what} ({100 * one[f'{name}_low']:.0f} to {100 * one[f'{name}_high']:.0f})"
        for name, what in (("accuracy", "right"), ("tool_use", "with a call"))
        if name in one
    ]
    aborted = [f"{one['aborted']} aborted"] if one["aborted"] else []
    return ", ".join([*shares, f"{one.get('tokens', 0):.0f} tokens each", *aborted])
