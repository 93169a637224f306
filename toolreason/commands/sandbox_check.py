"""`toolreason sandbox check`: the conformance and attack suites on the user's own engine."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from toolreason.commands import common
from toolreason.errors import SettingsError

if TYPE_CHECKING:
    from toolreason.execution.check import Row


def check(
    density: Annotated[str, typer.Option(help="container, shared, or both.")] = "both",
    runtime: Annotated[str | None, typer.Option(help="Another OCI runtime of the engine, such as runsc.")] = None,
    only: Annotated[str | None, typer.Option(help="conformance or attacks; else both.")] = None,
    json_: common.JsonOption = False,
) -> None:
    """Try on your own engine whether the sandbox does what it should and holds what it must: some hundred checks and attacks.

    A few minutes. Exit code 1 if something failed.

    Example: toolreason sandbox check --density shared --only attacks
    """
    from toolreason.execution.check import SUITES

    densities = ("container", "shared") if density == "both" else (density,)
    if not set(densities) <= {"container", "shared"}:
        raise SettingsError(f"no density {density!r}: there are container, shared and both")
    if only not in (None, *SUITES):
        raise SettingsError(f"no suite {only!r}: there are conformance and attacks")
    found = {name: common.run(run(name, runtime, (only,) if only else SUITES)) for name in densities}
    if json_:
        common.print_json({name: [asdict(row) for row in rows] for name, rows in found.items()})
    else:
        show(found)
    if not all(row.ok for rows in found.values() for row in rows):
        raise typer.Exit(common.INFRASTRUCTURE)


async def run(density: str, runtime: str | None, suites: tuple[str, ...]) -> list[Row]:
    from toolreason.execution import open_sandbox
    from toolreason.execution.check import check as check_all
    from toolreason.execution.check import plan

    def opener(limits: Any) -> Any:
        return open_sandbox("docker", limits, density=density, runtime=runtime)

    cases, rows = plan(suites), []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=common.stderr(), transient=True) as progress:
        task = progress.add_task(f"checking {density}", total=len(cases))
        async for row in check_all(cases, opener):
            rows.append(row)
            progress.advance(task)
    return rows


def show(found: dict[str, list[Row]]) -> None:
    """A line for each group, and what went wrong."""
    console = common.stdout()
    table = Table("", "density", "suite", "group", "passed", "failed", "ms", box=None, pad_edge=False)
    for density, rows in found.items():
        for suite, group in dict.fromkeys((row.suite, row.group) for row in rows):
            part = [row for row in rows if (row.suite, row.group) == (suite, group)]
            failed = sum(not row.ok for row in part)
            mark = common.harmless("failed", "bold red") if failed else common.harmless("ok", "green")
            ms = f"{sum(row.ms for row in part):.0f}"
            table.add_row(mark, density, suite, common.harmless(group), str(len(part) - failed), str(failed), ms)
    console.print(table)
    for density, rows in found.items():
        for row in rows:
            if not row.ok:
                console.print(common.harmless(f"{density}, {row.suite}, {row.name}: {row.detail}", "red"))
    total = sum(map(len, found.values()))
    failed = sum(not row.ok for rows in found.values() for row in rows)
    console.print(common.harmless(f"{total - failed} of {total} hold", "red" if failed else "green"))
