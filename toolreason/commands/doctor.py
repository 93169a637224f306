"""`toolreason doctor`: what is missing on this machine, and the command that fixes it."""

from __future__ import annotations

import typer
from rich.table import Table

from toolreason.commands import common


def doctor(json_: common.JsonOption = False) -> None:
    """Check engine, sandbox image, models, accelerator and versions; name the command that fixes what is missing.

    Exit code 3 if something that toolreason needs is missing.
    """
    from toolreason.doctor import checks

    done = list(checks())
    if json_:
        common.print_json({"ok": all(c.ok or c.optional for c in done), "checks": [c.to_dict() for c in done]})
    else:
        table = Table("", "what", box=None, pad_edge=False)
        for name in ("found", "fix"):
            table.add_column(name, overflow="fold")  # a path or a command that is cut short is of no use
        for check in done:
            mark, style = ("ok", "green") if check.ok else ("-", "yellow") if check.optional else ("missing", "bold red")
            table.add_row(common.harmless(mark, style), check.name, common.harmless(check.detail), common.harmless(check.fix or ""))
        common.stdout().print(table)
    if not all(c.ok or c.optional for c in done):
        raise typer.Exit(common.SETUP)
