"""What the commands around tools share: options, how a tool is named on a line, and what came of a candidate."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolreason.commands import common
from toolreason.errors import InputError

if TYPE_CHECKING:
    from toolreason.execution import Sandbox
    from toolreason.tools.admission import Admission
    from toolreason.tools.library import Library
    from toolreason.tools.package import ToolPackage

DEFAULT = "~/.toolreason/tools.sqlite"
LibraryOption = Annotated[
    str,
    typer.Option(
        envvar="TOOLREASON_LIBRARY",
        metavar="SPEC",
        help="Where the tools are kept: a SQLite file (in $TOOLREASON_HOME where that is set), or postgresql://...",
    ),
]
SandboxOption = Annotated[
    str,
    typer.Option(
        help="Where tools run: docker (a container each), shared (many in one), the URL of `toolreason sandbox serve`, or local "
        "(no boundary: your own machine)."
    ),
]
Name = Annotated[str, typer.Argument(help="A tool's name, as `toolreason tools list` shows it.")]
COLOURS = {"admitted": "green", "candidate": "yellow", "deprecated": "dim", "broken": "red"}


def with_library(library: str, work: Any) -> Any:
    """Run `work(library)` on the opened library, and give back what it gives."""
    from toolreason.tools.library import open_library

    async def main() -> Any:
        async with open_library(library) as opened:
            return await work(opened)

    return common.run(main())


def with_both(library: str, sandbox: str, work: Any) -> Any:
    """As `with_library`, with an open sandbox: `work(library, sandbox)`."""

    async def main(opened: Library) -> Any:
        async with opened_sandbox(sandbox) as box:
            return await work(opened, box)

    return with_library(library, main)


@contextlib.asynccontextmanager
async def opened_sandbox(name: str) -> AsyncIterator[Sandbox]:
    if name == "none":
        raise InputError("tools run in a sandbox: --sandbox docker, shared, local, or the URL of a sandbox service")
    async with common.sandbox_of(name, 4) as box:
        yield box


def first_line(text: str, most: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def split(name: str) -> tuple[str, int | None]:
    """`square@2` is version 2 of square, `square` its head."""
    plain, at, number = name.partition("@")
    if at and not number.isdecimal():
        raise InputError(f"{name[:80]!r} names no version: write NAME@NUMBER, as in square@2")
    return plain, int(number) if at else None


async def find(library: Library, name: str) -> ToolPackage:
    plain, version = split(name)
    return await library.get(plain, version)


def to_json(admission: Admission) -> dict[str, Any]:
    tests = admission.trial.tests if admission.trial else ()
    return {
        "name": admission.package.name,
        "version": admission.package.version,
        "status": admission.package.status,
        "ok": admission.admitted,
        "reasons": list(admission.reasons),
        "tests": [{"name": one.name, "outcome": one.outcome, "error": one.error, "noticed": one.noticed} for one in tests],
    }


def tell(admission: Admission, *, kept: bool = True) -> None:
    """What came of a candidate, on stderr."""
    package, tests = admission.package, admission.trial.tests if admission.trial else ()
    if admission.admitted:
        what = f"{package.identity} is {package.status}" if kept else f"{package.identity} passes"
        return common.say(f"{what}: the gate and {len(tests)} tests", "green")
    common.say(f"{package.identity} is refused" if kept else f"{package.identity} does not pass", "red")
    for reason in admission.reasons:
        common.say(f"  {reason}", "red")
    for one in tests:
        if one.traceback:
            common.say(one.traceback.rstrip(), "dim")
    return None
