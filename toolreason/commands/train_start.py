"""`toolreason train start`: the whole recipe of Hint-RFT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from toolreason.commands import common


def start(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="The recipe's settings: model and problems at least.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The directory to make, or to go on with.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the settings and print every stage's command; run nothing.")
    ] = False,
    json_: common.JsonOption = False,
) -> None:
    """START from a problem file: collect plain and hinted, curate, train START-0; sample, curate, train START; evaluate.

    Each stage is a command of its own, shown as it begins. Whatever stops it, the same command goes on where it ended. What came
    of it is in DIR/report.md and DIR/report.json.

    The smallest CONFIG.toml is two lines:

        model = "qwen2.5-coder-0.5b-instruct"
        problems = "problems.jsonl"

    With a vLLM server for every stage, and the control that learns from right answers without tools:

        policy = "vllm:http://127.0.0.1:8000"
        serve = "vllm serve {model} --served-model-name {name} --port 8000"
        control = "greedy"
        hinted = {samples = 4, temperature = 0.7}
        sft = {lora = 16, epochs = 2}

    Examples:

        toolreason train start recipe.toml --out start

        toolreason train start recipe.toml --out start --dry-run
    """
    from toolreason.errors import SettingsError
    from toolreason.options import load
    from toolreason.train import recipe_run, sft_model
    from toolreason.train.recipe import Recipe, RecipeSettings, shown
    from toolreason.train.settings import SftSettings

    if not config.is_file():
        raise SettingsError(f"there is no file {config}: `toolreason train start --help` shows the smallest")
    chosen = load(RecipeSettings, config, ())
    sft_model.require(SftSettings())
    recipe = Recipe(chosen, out.resolve(), sft_model.find(chosen.model).path)
    if dry_run:
        learn, fresh = recipe_run.split(recipe)
        common.say(f"{len(learn)} problems to learn from, {len(fresh)} fresh ones", "dim")
        typer.echo("\n".join(map(shown, recipe.stages(_Unknown()))))
        return
    try:
        report = recipe_run.run(recipe, lambda what: common.say(what, "bold"))
    except (recipe_run.Stopped, KeyboardInterrupt):
        common.say(f"stopped: what is finished is kept in {out}. To go on, give the same command again.")
        raise typer.Exit(common.INTERRUPTED) from None
    if json_:
        common.print_json(report)
    else:
        _show(report)
        common.say(f"kept in {out}: report.md, report.json", "dim")


class _Unknown(dict[str, Any]):
    """Results of stages that have not been run."""

    def __missing__(self, name: str) -> dict[str, Any]:
        return {"rows": 1, "steps": "STEPS"}


def _show(report: dict[str, Any]) -> None:
    from toolreason.compare.tables import rich_table
    from toolreason.train.recipe_report import grids

    for grid in grids(report):
        common.stdout().print(rich_table(grid))
        common.stdout().print()
