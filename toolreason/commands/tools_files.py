"""`toolreason tools export, import, mcp`: the library for people's eyes and for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolreason.commands import common, tools_common
from toolreason.commands.tools_common import DEFAULT, LibraryOption, SandboxOption

if TYPE_CHECKING:
    from toolreason.execution import Sandbox
    from toolreason.tools.admission import Admission
    from toolreason.tools.library import Library


def register(app: typer.Typer) -> None:
    app.command()(export)
    app.command("import")(import_)
    app.command()(mcp)


def export(
    folder: Annotated[Path, typer.Argument(help="A folder that there is not yet.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    library: LibraryOption = DEFAULT,
    json_: common.JsonOption = False,
) -> None:
    """Write the library as one folder: a Python package `toolbox`, tests that run with plain pytest, tools.json and a README.

    Example: toolreason tools export my-tools
    """
    from toolreason.tools import exchange

    written = tools_common.with_library(library, lambda opened: exchange.export(opened, folder, overwrite=overwrite))
    if json_:
        common.print_json({"folder": str(folder), "tools": [one.identity for one in written]})
    else:
        common.say(f"{len(written)} tools are in {folder}", "green")


def import_(
    folder: Annotated[Path, typer.Argument(help="What `toolreason tools export` wrote, edited or not, here or elsewhere.")],
    library: LibraryOption = DEFAULT,
    sandbox: SandboxOption = "docker",
    json_: common.JsonOption = False,
) -> None:
    """Take a folder into the library. What the library does not have word for word passes the gate and the trial first, whatever
    the folder says of it. Exit code 2 if something was refused.

    Example: toolreason tools import my-tools
    """
    from toolreason.tools import exchange

    async def work(opened: Library, box: Sandbox) -> list[tuple[Admission, bool]]:
        came = []
        async for admission, new in exchange.import_(opened, folder, box):
            came.append((admission, new))
            if new and not json_:
                tools_common.tell(admission)
        return came

    came: list[tuple[Admission, bool]] = tools_common.with_both(library, sandbox, work)
    fresh = [admission for admission, new in came if new]
    refused = [one for one in fresh if not one.admitted]
    if json_:
        rows: list[dict[str, Any]] = [tools_common.to_json(admission) | {"new": new} for admission, new in came]
        common.print_json({"tools": rows})
    else:
        common.say(f"{len(fresh) - len(refused)} came in, {len(refused)} were refused, {len(came) - len(fresh)} were here", "dim")
    if refused:
        raise typer.Exit(common.INPUT)


def mcp(
    category: Annotated[str | None, typer.Option(help="Only tools of this category.")] = None,
    library: LibraryOption = DEFAULT,
    sandbox: SandboxOption = "docker",
) -> None:
    """Offer the admitted tools to an MCP client, over standard input and output: put this command into the client's settings.

    Example: toolreason tools mcp --category numbers --sandbox shared
    """
    from toolreason.adapters.mcp import serve_tools

    serve_tools(library, category=category, sandbox=common.sandbox_of(sandbox, 8))
