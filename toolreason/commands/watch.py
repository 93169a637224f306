"""`toolreason watch`: a collection that another process is writing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from toolreason.commands import common

EVERY_S = 0.5


def watch(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run directory.")],
    once: Annotated[bool, typer.Option("--once", help="Print it as it is now, and end.")] = False,
) -> None:
    """Follow a collection: how right, how fast, what the engine says, what has ended last. Ctrl-C ends the looking, not the run.

    Examples:

        toolreason watch runs/first

        toolreason watch runs/first --once
    """
    from rich.live import Live

    from toolreason import engine_counters, live_view

    follower, console = live_view.Follower(directory), common.stdout()
    with engine_counters.Engine(follower.manifest.policy) as engine:
        board = live_view.Board(f"{directory.name}: {follower.manifest.strategy}", console, engine=engine)
        board(follower.read())
        if once or not live_view.fits(console):
            console.print(board)
            return
        try:
            with Live(board, console=console, screen=True, refresh_per_second=4):  # a screen of its own: it may be resized
                while True:
                    time.sleep(EVERY_S)
                    board(follower.read())
        finally:
            console.print(board)
