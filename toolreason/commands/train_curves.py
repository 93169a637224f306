"""`toolreason train curves`: how a training went, as a chart."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolreason.commands import common


def curves(
    trainings: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="What `train sft` or `train rl` wrote, also while it runs.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE.svg", help="The chart.")] = Path("curves.svg"),
    json_: common.JsonOption = False,
) -> None:
    """Draw rewards by part, accuracy, calls, length, entropy, failing calls, losses and seconds over the steps, as an SVG file.

    Examples:

        toolreason train curves models/artist

        toolreason train curves models/artist models/outcome --out both.svg
    """
    from toolreason.train import curves as drawing

    titles = drawing.draw(trainings, out)
    if json_:
        common.print_json({"out": str(out), "panels": titles})
    else:
        common.say(f"{out}: {', '.join(titles)}", "dim")
