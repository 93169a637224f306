"""`toolreason view`: trajectories, trainings and tools as a local page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolreason.commands import common


def view(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Run directories, or any above them; a library's SQLite file too."),
    ],
    library: Annotated[
        list[str] | None, typer.Option(metavar="SPEC", help="A library of tools, as for `toolreason tools`. Repeatable.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Whose tokens these are, where the policy's name does not tell: a model's name or directory.")
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen. Beyond this machine only with API keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8010,
    keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="API keys, a line each; or in the environment's TOOLREASON_API_KEYS, with commas."),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Look at trajectories in a browser: lists with filters, segments by source, tokens and what trains on them, two side by side,
    collections compared, curves of a training, a library of tools. Everything is read, nothing changed; nothing is loaded from
    elsewhere.

    Examples:

        toolreason view runs

        toolreason view runs/plain runs/hinted models/rl --library tools.sqlite --open
    """
    from toolreason.serve.openai import keys_of
    from toolreason.view.service import serve

    serve(paths, library or [], tokenizer=tokenizer, host=host, port=port, keys=keys_of(keys), open_page=open_, tell=common.say)
