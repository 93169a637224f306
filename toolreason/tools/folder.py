"""A library as one folder for people: a Python package with a module for each tool, and tests that run by themselves.

    README.md   conftest.py   tools.json   toolbox/__init__.py   toolbox/NAME.py   tests/test_NAME.py

`tools.json` holds what code cannot say: version, status, origin, use, and the hash of each tool's content. It is a claim like the
rest: whoever imports a folder tries every tool in it that the library does not have word for word.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from toolreason.durable import replace_file, sync_directory
from toolreason.errors import InputError
from toolreason.tools import signature
from toolreason.tools.package import Status, Ticket, ToolPackage, check_name

INDEX, FORMAT = "tools.json", 1
MOST_BYTES = 1 << 20  # of a file that is read
MOST_INDEX_BYTES = 256 << 20
TOOLBOX, TESTS = "toolbox", "tests"


@dataclass(frozen=True, slots=True)
class Found:
    """A tool of a folder. `edited`: its content is not what tools.json says, or tools.json does not name it. `claimed` is the
    status it had where it was exported.
    """

    package: ToolPackage
    edited: bool
    claimed: Status


def write(
    folder: Path, packages: Sequence[ToolPackage], *, usage: Mapping[str, Any] | None = None, overwrite: bool = False
) -> None:
    """Write the folder whole or not at all. `usage` is shown with the tools, by name. Raises InputError where something else is."""
    folder = folder.absolute()
    if folder.is_symlink() or folder.exists():
        if folder.is_symlink() or not folder.is_dir() or (any(folder.iterdir()) and not (folder / INDEX).is_file()):
            raise InputError(f"{folder} is no exported library: name a folder that there is not yet")
        if any(folder.iterdir()) and not overwrite:
            raise InputError(f"{folder} is there already: --overwrite replaces it, with all changes that were made in it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _fill(made, packages, usage or {})
        made.chmod(0o755)
        _take_place(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _take_place(made: Path, folder: Path) -> None:
    aside = made.with_name(made.name + ".old")
    if folder.exists():
        folder.rename(aside)
    try:
        made.rename(folder)
    except OSError:
        if aside.exists():
            aside.rename(folder)
        raise
    sync_directory(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _fill(folder: Path, packages: Sequence[ToolPackage], usage: Mapping[str, Any]) -> None:
    for part in (TOOLBOX, TESTS):
        (folder / part).mkdir()
    for package in packages:
        check_name(package.name)
        replace_file(folder / TOOLBOX / f"{package.name}.py", package.code)
        replace_file(folder / TESTS / f"test_{package.name}.py", package.tests)
    index = {"format": FORMAT, "tools": [_entry(package, usage.get(package.name)) for package in packages]}
    replace_file(folder / INDEX, json.dumps(index, indent=1, ensure_ascii=True) + "\n")
    replace_file(folder / TOOLBOX / "__init__.py", _ours("toolbox.py"))
    replace_file(folder / "conftest.py", '"""Its place makes `toolbox` importable for the tests."""\n')
    replace_file(folder / "README.md", _readme(packages))


def _entry(package: ToolPackage, usage: Any) -> dict[str, Any]:
    left_out = ("code", "tests")
    values = {field.name: getattr(package, field.name) for field in fields(package) if field.name not in left_out}
    values |= {"ticket": asdict(package.ticket) if package.ticket else None, "hash": package.hash}
    if package.description == signature.read(package.code).description:
        del values["description"]  # the docstring says it, and may be edited
    return values | ({"usage": usage} if usage is not None else {})


def _readme(packages: Sequence[ToolPackage]) -> str:
    lines = [f"| `{one.name}` | {one.version} | {one.status} | {_cell(one.description)} |\n" for one in packages]
    return _ours("folder_readme.md") + "".join(lines)


def _ours(file: str) -> str:
    return (resources.files("toolreason.tools") / file).read_text(encoding="utf-8")


def _cell(text: str) -> str:
    """The first line of a description, harmless in a Markdown table."""
    line = next(iter(text.splitlines()), "")[:120]
    plain = "".join(char if char.isprintable() else " " for char in line)
    for sign in ("\\", "|", "`", "<", "[", "]", "*", "_"):
        plain = plain.replace(sign, f"\\{sign}")
    return plain


def read(folder: Path) -> list[Found]:
    """The tools of a folder, those that others need first. Nothing is run. Raises InputError that names the file that is amiss."""
    if folder.is_symlink() or not folder.is_dir():
        raise InputError(f"{folder} is no folder")
    claims = _claims(folder)
    found = []
    for name in sorted(claims.keys() | _modules(folder)):
        code, tests = (_text(folder, *path) for path in ((TOOLBOX, f"{name}.py"), (TESTS, f"test_{name}.py")))
        found.append(_found(name, code, tests, claims.get(name)))
    return _ordered(found)


def _found(name: str, code: str, tests: str, claim: dict[str, Any] | None) -> Found:
    try:
        read = signature.read(code, name)
    except InputError as error:
        raise InputError(f"{TOOLBOX}/{name}.py: {error}") from error
    claim = claim or {}
    ticket = claim.get("ticket")
    try:
        package = ToolPackage(
            name=name,
            description=str(claim.get("description", read.description)),
            code=code,
            tests=tests,
            parameters=read.parameters,
            category=str(claim.get("category", "general")),
            requirements=read.requirements,
            parents=tuple(map(str, claim.get("parents", ()))),
            ticket=Ticket(**{key: str(value) for key, value in ticket.items()}) if isinstance(ticket, dict) else None,
            author=str(claim.get("author", "human"))[:200],
        )
        claimed = Status(claim.get("status", Status.ADMITTED))
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{INDEX}: what it says of {name} cannot be read: {error}") from error
    return Found(package, package.hash != claim.get("hash"), claimed)


def _claims(folder: Path) -> dict[str, dict[str, Any]]:
    """What tools.json says, by name; nothing where it is missing."""
    if not (folder / INDEX).exists() and not (folder / INDEX).is_symlink():
        return {}
    try:
        index = json.loads(_text(folder, INDEX, most=MOST_INDEX_BYTES))
        if index["format"] != FORMAT:
            raise InputError(f"{INDEX} has format {index['format']!r}, and this release reads {FORMAT}")
        claims = {entry["name"]: entry for entry in index["tools"]}
        for name in claims:
            check_name(name)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{folder / INDEX} cannot be read: {error!r}") from error
    return claims


def _modules(folder: Path) -> set[str]:
    """The tools by file name. Raises InputError for a name that is no tool's."""
    names = set()
    place = folder / TOOLBOX
    if place.is_symlink() or not place.is_dir():
        raise InputError(f"{place} is no folder: a library's tools are in it")
    for file in place.iterdir():
        if file.name.startswith((".", "__")) or file.suffix in (".pyc", ".pyi") or file.name == "py.typed":
            continue
        if file.suffix != ".py":
            raise InputError(f"{file} is no module of a tool: take it out of the folder")
        check_name(file.stem)
        names.add(file.stem)
    return names


def _text(folder: Path, *parts: str, most: int = MOST_BYTES) -> str:
    """A regular file's text; links are not followed."""
    file = folder.joinpath(*parts)
    try:
        if any(folder.joinpath(*parts[:count]).is_symlink() for count in range(1, len(parts) + 1)):
            raise InputError(f"{file} is a link, or behind one: put the file itself there")
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as source:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InputError(f"{file} is no regular file")
            data = source.read(most + 1)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from error
    if len(data) > most:
        raise InputError(f"{file} has more than {most} bytes")
    try:
        return data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is no UTF-8: {error}") from error


def _ordered(found: list[Found]) -> list[Found]:
    """What is needed comes before what needs it; circles stay, and are refused at the gate."""
    by_name, out = {one.package.name: one for one in found}, dict[str, Found]()
    waiting = [(one.package.name, False) for one in reversed(found)]
    begun: set[str] = set()
    while waiting:
        name, ready = waiting.pop()
        if ready:
            out.setdefault(name, by_name[name])
        elif name in by_name and name not in begun:
            begun.add(name)
            waiting.append((name, True))
            waiting += [(other, False) for other in signature.other_tools(signature.parse(by_name[name].package.code), name)]
    return list(out.values())
