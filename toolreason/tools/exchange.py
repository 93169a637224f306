"""A library out to a folder, and a folder into a library."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolreason.errors import InputError
from toolreason.execution.base import Sandbox
from toolreason.tools import folder
from toolreason.tools.admission import Admission, admit
from toolreason.tools.gate import GateReport
from toolreason.tools.package import Status, ToolPackage

if TYPE_CHECKING:
    from toolreason.tools.library import Library


async def export(library: Library, path: Path, *, overwrite: bool = False) -> list[ToolPackage]:
    """Write every tool that was admitted once into a folder, and return them. Candidates stay behind: they passed nothing."""
    packages = [one for one in await library.list() if one.status is not Status.CANDIDATE]
    usages = await library.usages()
    usage = {one.name: _shown(usages[one.name]) for one in packages if one.name in usages}
    folder.write(path, packages, usage=usage, overwrite=overwrite)
    return packages


def _shown(usage: Any) -> dict[str, Any]:
    by_problem = {problem: asdict(use) for problem, use in usage.by_problem.items()}
    sums = {key: getattr(usage, key) for key in ("calls", "successes", "problems", "reuse", "latency_s", "tokens")}
    return sums | {"by_problem": by_problem}


async def import_(library: Library, path: Path, sandbox: Sandbox, *, by: str = "human") -> AsyncIterator[tuple[Admission, bool]]:
    """Take a folder in, tool by tool: what came of each, and whether it is new here. What the library has word for word stays as
    it is. All else passes gate and trial, whatever the folder says of it; what was no longer offered where it comes from is not
    offered here, either. Raises InputError for a folder that cannot be read, before anything is changed.
    """
    for found in folder.read(path):
        if here := await _here(library, found.package):
            yield Admission(here, here.status is Status.ADMITTED, GateReport(True)), False
            continue
        package = await _following(library, found.package)
        admission = await admit(library, package, sandbox, by=by)
        if admission.admitted and found.claimed in (Status.DEPRECATED, Status.BROKEN) and not found.edited:
            kept = admission.package
            reason = f"it was {found.claimed} where it comes from"
            put_aside = await library.set_status(kept.name, found.claimed, reason, version=kept.version, by=by)
            admission = replace(admission, package=put_aside)
        yield admission, True


async def _here(library: Library, package: ToolPackage) -> ToolPackage | None:
    try:
        head = await library.get(package.name)
    except InputError:  # a new name
        return None
    return head if (head.hash, head.category) == (package.hash, package.category) and head.status is not Status.CANDIDATE else None


async def _following(library: Library, package: ToolPackage) -> ToolPackage:
    """With the version here as its parent, where there is one."""
    try:
        head = await library.get(package.name)
    except InputError:
        return package
    return replace(package, parents=(head.identity,))
