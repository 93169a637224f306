"""`toolreason tools`: the library of tools that agents and people made. Here: looking at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolreason.commands import common, tools_change, tools_common, tools_consolidate, tools_files
from toolreason.commands.tools_common import DEFAULT, LibraryOption, Name

if TYPE_CHECKING:
    from rich.table import Table

    from toolreason.tools.library import Library
    from toolreason.tools.package import ToolPackage
    from toolreason.tools.usage import Usage

HELP = """The tool library: small Python functions with tests, which agents made or you add. Each passes a gate and its tests in the
sandbox before it is offered; nothing is overwritten.

Start with:

    toolreason tools add digits.py --tests test_digits.py

    toolreason tools list

    toolreason tools show digit_counts

    toolreason tools mcp
"""
app = typer.Typer(cls=common.Commands, no_args_is_help=True, help=HELP, rich_markup_mode="rich")
StatusOption = Annotated[str | None, typer.Option(help="Only these: candidate, admitted, deprecated or broken.")]
CategoryOption = Annotated[str | None, typer.Option(help="Only those of this category.")]


@app.command("list")
def list_(
    status: StatusOption = None, category: CategoryOption = None, library: LibraryOption = DEFAULT, json_: common.JsonOption = False
) -> None:
    """All tools with status, use and origin.

    Examples:

        toolreason tools list --status admitted

        toolreason tools list --library postgresql://tools@db/tools --json
    """
    from toolreason.errors import SettingsError
    from toolreason.tools.package import Status

    if status not in (None, *Status):
        raise SettingsError(f"no status {status!r}: there are {', '.join(Status)}")

    async def read(opened: Library) -> Any:
        return await opened.list(status=Status(status) if status else None, category=category), await opened.usages()

    packages, usages = tools_common.with_library(library, read)
    if json_:
        common.print_json({"tools": [_row(one, usages.get(one.name)) for one in packages]})
        return
    common.stdout().print(_table(packages, usages))
    admitted = sum(one.status == "admitted" for one in packages)
    common.say(f"{len(packages)} tools, {admitted} of them offered", "dim")


@app.command()
def show(name: Name, library: LibraryOption = DEFAULT, json_: common.JsonOption = False) -> None:
    """One tool, or one version of it (NAME@2): what it does, where it comes from, how it was used, its code and tests.

    Examples:

        toolreason tools show digit_counts

        toolreason tools show digit_counts@1 --json
    """

    async def read(opened: Library) -> Any:
        package = await tools_common.find(opened, name)
        return package, await opened.usage(package.name)

    package, usage = tools_common.with_library(library, read)
    if json_:
        common.print_json(asdict(package) | {"hash": package.hash, "usage": _usage(usage)})
        return
    _show(package, usage)


@app.command()
def search(
    need: Annotated[str, typer.Argument(help="What a tool should do, in words.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 5,
    category: CategoryOption = None,
    library: LibraryOption = DEFAULT,
    json_: common.JsonOption = False,
) -> None:
    """The tools on offer that fit a need best, as an agent would find them.

    Example: toolreason tools search "how often each digit stands in a number" -k 3
    """
    hits = tools_common.with_library(library, lambda opened: opened.search(need, k, category=category))
    if json_:
        common.print_json({"hits": [_row(hit.package, None) | {"score": hit.score} for hit in hits]})
        return
    for hit in hits:
        line = f"{hit.score:8.3f}  {hit.package.identity}  {tools_common.first_line(hit.package.description)}"
        common.stdout().print(common.harmless(line), soft_wrap=True)
    if not hits:
        common.say("no tool on offer fits", "dim")


@app.command()
def history(name: Name, library: LibraryOption = DEFAULT, json_: common.JsonOption = False) -> None:
    """All versions of a tool, and what was done to it, by whom and why.

    Example: toolreason tools history digit_counts
    """

    async def read(opened: Library) -> Any:
        return await opened.history(name), await opened.events(name), await opened.get(name)

    versions, events, head = tools_common.with_library(library, read)
    if json_:
        rows = [_row(one, None) | {"hash": one.hash, "parents": list(one.parents)} for one in versions]
        common.print_json({"head": head.version, "versions": rows, "events": [asdict(event) for event in events]})
        return
    for event in events:
        reason = f": {event.reason}" if event.reason else ""
        line = f"{event.at}  {name}@{event.version}  {event.kind}, {event.status}  by {event.by}{reason}"
        common.stdout().print(common.harmless(line), soft_wrap=True)
    common.say(f"{len(versions)} versions, the current one is {head.identity}", "dim")


tools_change.register(app)
tools_consolidate.register(app)
tools_files.register(app)


def _row(package: ToolPackage, usage: Usage | None) -> dict[str, Any]:
    row = {
        key: getattr(package, key)
        for key in ("name", "version", "status", "category", "author", "description", "created", "reason")
    }
    return row | ({"usage": _usage(usage)} if usage is not None else {})


def _usage(usage: Usage) -> dict[str, Any]:
    return {key: getattr(usage, key) for key in ("calls", "successes", "problems", "reuse", "latency_s", "tokens")}


def _table(packages: Sequence[ToolPackage], usages: dict[str, Usage]) -> Table:
    from rich.table import Table

    table = Table("tool", "status", "category", "calls", "ok", "reused on", "made by", "what it does", box=None, pad_edge=False)
    for one in packages:
        usage = usages.get(one.name)
        counts = [str(usage.calls), str(usage.successes), str(usage.reuse)] if usage else ["0", "0", "0"]
        style = tools_common.COLOURS[one.status]
        texts = [one.identity, one.status, one.category, *counts, one.author, tools_common.first_line(one.description)]
        table.add_row(*(common.harmless(text, style if place == 1 else "") for place, text in enumerate(texts)))
    return table


def _show(package: ToolPackage, usage: Usage) -> None:
    console, ticket = common.stdout(), package.ticket
    origin = f"made by {package.author}, {package.created}"
    if ticket:
        origin += f", for problem {ticket.problem_id or '?'}: {ticket.need}"
    lines = [
        (f"{package.identity}  {package.status}", f"bold {tools_common.COLOURS[package.status]}"),
        (package.reason, "dim"),
        (f"category {package.category}; {origin}", "dim"),
        (f"from {', '.join(package.parents)}" if package.parents else "", "dim"),
        (f"{usage.calls} calls, {usage.successes} of them ok, on {usage.problems} problems; reused on {usage.reuse} others", "dim"),
        ("\n" + package.description, ""),
        ("\n# toolbox/" + package.name + ".py\n" + package.code.rstrip(), "cyan"),
        ("\n# tests/test_" + package.name + ".py\n" + package.tests.rstrip(), "cyan"),
    ]
    for text, style in lines:
        if text:
            console.print(common.harmless(text, style), soft_wrap=True)
