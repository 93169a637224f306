"""`toolreason sandbox shell`: a Python prompt in a sandbox session."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import shlex
import sys
import tempfile
from codeop import compile_command
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolreason.commands import common
from toolreason.errors import InputError, SettingsError

if TYPE_CHECKING:
    from toolreason.execution import Sandbox, Session
    from toolreason.types import CellResult

HELP = """:undo [N]           take back the last cell (or N), files included
:files              the work folder
:put LOCAL [NAME]   copy a file in      :get NAME [LOCAL]   copy one out
:reset              a fresh session     :quit               leave (Ctrl-D too)"""


def shell(
    density: Annotated[str, typer.Option(help="container or shared.")] = "container",
    local: Annotated[bool, typer.Option("--local", help="No container: a process of yours. No boundary.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds a cell may take.")] = 30.0,
) -> None:
    """A Python prompt in a sandbox session. With standard input from a pipe, that is one cell: its output, its value, exit code 1
    if it fails.

    Examples:

        toolreason sandbox shell

        echo "sum(range(10))" | toolreason sandbox shell
    """
    from toolreason.execution import Limits

    if density not in ("container", "shared"):
        raise SettingsError(f"no density {density!r}: there are container and shared")
    options: dict[str, Any] = {} if local else {"density": density, "pool": 0}
    work = prompt if sys.stdin.isatty() else one_cell
    if not common.run(opened("local" if local else "docker", Limits(cell_timeout_s=timeout), options, work)):
        raise typer.Exit(common.INFRASTRUCTURE)


async def opened(name: str, limits: Any, options: dict[str, Any], work: Any) -> bool:
    from toolreason.execution import open_sandbox

    async with open_sandbox(name, limits, **options) as sandbox:
        return bool(await work(sandbox))


async def one_cell(sandbox: Sandbox) -> bool:
    """All of standard input. Returns whether it ran well."""
    code = sys.stdin.read()
    result = await (await sandbox.session()).run(code)
    show(result)
    return result.ok


async def prompt(sandbox: Sandbox) -> bool:
    """Read, run, show, until the end of input."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (line editing and history for input())
    session = await sandbox.session()
    print("Python in a sandbox session. :help says what else there is.", file=sys.stderr)
    while (cell := await asyncio.to_thread(read_cell)) is not None:
        if cell.startswith(":"):
            name, *words = shlex.split(cell[1:]) or ["help"]
            if name == "quit":
                break
            if name == "reset":
                await session.close()
                session = await sandbox.session()
                continue
            try:
                await command(session, name, words)
            except (InputError, OSError, ValueError) as error:
                common.say(str(error), "red")
        elif cell.strip():
            show(await session.run(cell))
    return True


def read_cell() -> str | None:
    """The lines up to where Python's own prompt would run them; None at the end of input."""
    lines: list[str] = []
    try:
        while True:
            lines.append(input("... " if lines else ">>> "))
            if lines[0].startswith(":") or complete("\n".join(lines)):
                return "\n".join(lines)
    except EOFError:
        return None


def complete(code: str) -> bool:
    """Whether this is a whole cell. What can't be compiled is one too: the session will say why."""
    try:
        return compile_command(code, symbol="exec") is not None and not opens_block(code)
    except (SyntaxError, ValueError, OverflowError):
        return True


def opens_block(code: str) -> bool:
    """A block goes on until an empty line."""
    return "\n" in code and code.rsplit("\n", 1)[1].startswith((" ", "\t"))


async def command(session: Session, name: str, words: list[str]) -> None:
    """One of the prompt's own commands. Raises InputError, OSError, ValueError."""
    if name == "undo":
        await session.undo(int(words[0]) if words else 1)
    elif name == "files":
        for info in await session.files():
            print(common.harmless(f"{info.size:>10}  {info.path}"))
    elif name == "put" and words:
        data = await asyncio.to_thread(Path(words[0]).read_bytes)
        await session.put(words[1] if len(words) > 1 else Path(words[0]).name, data)
    elif name == "get" and words:
        target = Path(words[1] if len(words) > 1 else Path(words[0]).name)
        await asyncio.to_thread(target.write_bytes, await session.get(words[0]))
        common.say(f"written to {target}", "green")
    else:
        print(HELP)


def show(result: CellResult) -> None:
    """What a prompt would print. Figures go to files, which stay."""
    out, errors = common.stdout(), common.stderr()
    for text, console in ((result.stdout, out), (result.stderr, errors)):
        if text:
            console.print(common.harmless(text.removesuffix("\n")), soft_wrap=True)
    if result.value is not None:
        out.print(common.harmless(result.value), soft_wrap=True)
    if not result.ok:
        errors.print(common.harmless(result.traceback.rstrip("\n") or result.error or result.outcome.value, "red"), soft_wrap=True)
    if result.figures:
        folder = Path(tempfile.mkdtemp(prefix="toolreason-figures-"))
        for number, figure in enumerate(result.figures, 1):
            (folder / f"{number}.png").write_bytes(base64.b64decode(figure))
            common.say(f"figure: {folder / f'{number}.png'}", "green")
