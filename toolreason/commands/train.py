"""`toolreason train`: fine-tune a model on what it did."""

from __future__ import annotations

import typer

from toolreason.commands import common

HELP = """Fine-tune a model on trajectories, token by token as they were sampled."""

app = typer.Typer(cls=common.Commands, no_args_is_help=True, help=HELP)
