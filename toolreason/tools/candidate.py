"""From what a model wrote to a candidate for the library, beside what the library has under its name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from toolreason.errors import InputError
from toolreason.tools import signature, suites
from toolreason.tools.package import Status, Ticket, ToolPackage

if TYPE_CHECKING:
    from toolreason.tools.library import Library


async def candidate(
    library: Library, ticket: Ticket, code: str, tests: str, *, repaired: ToolPackage | None = None, author: str
) -> tuple[ToolPackage, str]:
    """The candidate for a ticket, and the version that it follows (`name@version`, "": none). `repaired` is the tool that it mends.

    Where another tool has its name, the candidate would stand in its place: it has to pass that one's tests too, and be called as
    it is. Raises InputError.
    """
    there = await _offered(library, signature.read(code).name)
    if repaired is not None:
        made = replace(signature.edited(repaired, code, tests, author=author), ticket=ticket)
        if there is None or there.identity == repaired.identity:
            _same_call(repaired, made)
            return made, repaired.identity
    else:
        made = signature.package(code, tests, author=author, ticket=ticket)
    if there is None:
        return made, ""
    _same_call(there, made)
    both, parents = suites.join(made.name, there.tests, made.tests), (there.identity,)
    return replace(made, tests=both, category=there.category, parents=parents), there.identity


def _same_call(old: ToolPackage, new: ToolPackage) -> None:
    """Raises InputError where calls of `old` would not be calls of `new`."""
    before, now = old.parameters, new.parameters
    names = list(before.get("properties", ()))
    if list(now.get("properties", ()))[: len(names)] != names or not set(now.get("required", ())) <= set(
        before.get("required", ())
    ):
        raise InputError(f"{old.identity} takes other arguments: keep its parameters, or give this tool another name")


async def _offered(library: Library, name: str) -> ToolPackage | None:
    """The tool of this name, if it is offered or was."""
    try:
        head = await library.get(name)
    except InputError:
        return None
    return None if head.status is Status.CANDIDATE else head
