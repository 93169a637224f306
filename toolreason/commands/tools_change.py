"""`toolreason tools add, edit, test, remove, rollback`: what changes the library goes through the gate and the trial."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolreason.commands import common, tools_common
from toolreason.commands.tools_common import DEFAULT, LibraryOption, Name, SandboxOption
from toolreason.errors import InputError, SetupError

if TYPE_CHECKING:
    from toolreason.execution import Sandbox
    from toolreason.tools.admission import Admission
    from toolreason.tools.library import Library
    from toolreason.tools.package import ToolPackage

DescriptionOption = Annotated[str | None, typer.Option(help="What it does, for whoever chooses a tool. Default: the docstring.")]
ReasonOption = Annotated[str, typer.Option(help="Why; it is kept.")]


def register(app: typer.Typer) -> None:
    for command in (add, edit, remove, rollback):
        app.command()(command)
    app.command("test")(try_)


def add(
    file: Annotated[Path, typer.Argument(help="A Python file with one public function; its name is the tool's.")],
    tests: Annotated[
        Path | None,
        typer.Option(help="Functions test_*, with `from toolbox import NAME`. Default: test_FILE beside FILE, or in tests/."),
    ] = None,
    description: DescriptionOption = None,
    category: Annotated[str, typer.Option(help="For listing, and for searching in a part.")] = "general",
    answer: Annotated[
        str | None, typer.Option(help="The answer of the problem it is made for: the tool may not contain it.")
    ] = None,
    library: LibraryOption = DEFAULT,
    sandbox: SandboxOption = "docker",
    json_: common.JsonOption = False,
) -> None:
    """Add a tool of your own. It passes the same gate and trial as one that a model wrote; if it does not, it is kept as a
    candidate with the reasons, is not offered, and the exit code is 2.

    Examples:

        toolreason tools add digits.py

        toolreason tools add digits.py --tests checks/digits.py --category numbers --description "How often each digit occurs."
    """
    from toolreason.tools import signature

    beside = [file.with_name(f"test_{file.name}"), file.parent / "tests" / f"test_{file.name}"]
    found = tests or next((one for one in beside if one.is_file()), None)
    if found is None:
        raise InputError(f"no tests: write {beside[0].name} beside {file}, or name a file with --tests")
    package = signature.package(_text(file), _text(found), description=description, category=category)
    _admit(package, library, sandbox, json_, answer)


def edit(
    name: Name,
    description: DescriptionOption = None,
    library: LibraryOption = DEFAULT,
    sandbox: SandboxOption = "docker",
    json_: common.JsonOption = False,
) -> None:
    """Open a tool's code and tests in $EDITOR. What you save is a new version, after the same gate and trial; the old one stays.

    Examples:

        toolreason tools edit digit_counts

        EDITOR="code --wait" toolreason tools edit digit_counts@2
    """
    from toolreason.tools import signature

    old = tools_common.with_library(library, lambda opened: tools_common.find(opened, name))
    folder = Path(tempfile.mkdtemp(prefix=f"toolreason-{old.name}-"))
    code, tests = folder / f"{old.name}.py", folder / f"test_{old.name}.py"
    code.write_text(old.code, encoding="utf-8")
    tests.write_text(old.tests, encoding="utf-8")
    _edit([code, tests])
    try:
        new = signature.edited(old, _text(code), _text(tests), description=_described(old, description, _text(code)))
    except InputError as error:
        raise InputError(f"{error}. Your text is in {folder}: mend it there, and `toolreason tools add {code}`") from error
    shutil.rmtree(folder)
    if new.hash == old.hash:
        common.say("nothing was changed", "dim")
        if json_:
            common.print_json({"name": old.name, "version": old.version, "status": old.status, "changed": False})
        return
    _admit(new, library, sandbox, json_)


def try_(
    names: Annotated[list[str] | None, typer.Argument(help="Tools, or versions (NAME@2). Default: all that are offered.")] = None,
    library: LibraryOption = DEFAULT,
    sandbox: SandboxOption = "docker",
    json_: common.JsonOption = False,
) -> None:
    """Put tools through gate and trial again, and change nothing. Exit code 1 if one does not pass.

    Examples:

        toolreason tools test

        toolreason tools test digit_counts digit_counts@1
    """
    from toolreason.tools.admission import examine
    from toolreason.tools.package import Status

    async def work(opened: Library, box: Sandbox) -> list[Admission]:
        wanted = [await tools_common.find(opened, name) for name in names or ()]
        if not names:
            wanted = await opened.list(status=Status.ADMITTED)
        return [await examine(opened, one, box) for one in wanted]

    seen: list[Admission] = tools_common.with_both(library, sandbox, work)
    if json_:
        common.print_json({"tools": [tools_common.to_json(one) for one in seen]})
    else:
        for one in seen:
            tools_common.tell(one, kept=False)
    if not all(one.admitted for one in seen):
        raise typer.Exit(common.INFRASTRUCTURE)


def remove(name: Name, reason: ReasonOption, library: LibraryOption = DEFAULT, json_: common.JsonOption = False) -> None:
    """Take a tool back: it is deprecated, no longer found, and runs no more through LangChain or MCP. Its versions stay, and
    tools that use it go on.

    Example: toolreason tools remove digit_counts --reason "wrong for negative numbers"
    """
    from toolreason.tools import signature
    from toolreason.tools.package import Status

    async def work(opened: Library) -> Any:
        kept = await opened.set_status(name, Status.DEPRECATED, reason)
        offered = await opened.list(status=Status.ADMITTED)
        return kept, [one.name for one in offered if name in signature.other_tools(signature.parse(one.code), one.name)]

    kept, users = tools_common.with_library(library, work)
    if json_:
        common.print_json({"name": name, "version": kept.version, "status": kept.status, "used_by": users})
        return
    common.say(f"{kept.identity} is deprecated: {reason}", "green")
    if users:
        common.say(f"it is still used by {', '.join(users)}")


def rollback(
    name: Name,
    version: Annotated[int, typer.Argument(help="The version to go back to, as `toolreason tools history` shows it.")],
    reason: ReasonOption = "",
    library: LibraryOption = DEFAULT,
    json_: common.JsonOption = False,
) -> None:
    """Make an earlier version the current one again. Nothing is deleted: going forward again is a rollback, too.

    Example: toolreason tools rollback digit_counts 1 --reason "2 is slower"
    """
    head = tools_common.with_library(library, lambda opened: opened.rollback(name, version, reason=reason))
    if json_:
        common.print_json({"name": name, "version": head.version, "status": head.status})
    else:
        common.say(f"the current version of {name} is {head.identity}, {head.status}", "green")


def _admit(package: ToolPackage, library: str, sandbox: str, json_: bool, answer: str | None = None) -> None:
    from toolreason.tools.admission import admit

    admission: Admission = tools_common.with_both(
        library, sandbox, lambda opened, box: admit(opened, package, box, answer=answer, by="human")
    )
    if json_:
        common.print_json(tools_common.to_json(admission))
    else:
        tools_common.tell(admission)
    if not admission.admitted:
        raise typer.Exit(common.INPUT)


def _described(old: ToolPackage, given: str | None, code: str) -> str | None:
    """A description that was the docstring goes on being it."""
    from toolreason.tools import signature

    if given is None and old.description == signature.read(old.code).description:
        return signature.read(code).description
    return given


def _edit(files: list[Path]) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        done = subprocess.run([*shlex.split(editor), *map(str, files)])
    except (OSError, ValueError) as error:
        raise SetupError(f"the editor {editor!r} could not be started: set EDITOR, as in EDITOR=nano") from error
    if done.returncode:
        raise InputError(f"the editor ended with code {done.returncode}: nothing was changed; your text is in {files[0].parent}")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}") from error
