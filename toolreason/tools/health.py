"""How well a library is: its size, how much of it is said twice, what is reused, what passes now and how much of it is tested.

The measures follow what critics of library learning ask for (arXiv 2410.20274, 2504.03048): reuse counts on other problems only.
"""

from __future__ import annotations

import ast
import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeVar

from toolreason.errors import InputError
from toolreason.execution.base import Sandbox
from toolreason.tools import trial
from toolreason.tools.admission import dependencies
from toolreason.tools.gate_tests import test_names
from toolreason.tools.package import Status, ToolPackage
from toolreason.tools.usage import Usage
from toolreason.types import CellResult

if TYPE_CHECKING:
    from toolreason.tools.library import Library

T = TypeVar("T")
COVERAGE_S = 30.0  # for all tests of a tool: tracing slows them down


@dataclass(frozen=True, slots=True)
class Run:
    """A tool's own tests, run now. `lines` of it can be run, of which the tests ran `ran`; 0 where that was not seen."""

    ok: bool
    reason: str = ""
    lines: int = 0
    ran: int = 0

    @property
    def coverage(self) -> float | None:
        return self.ran / self.lines if self.lines else None


Runs = dict[str, Run]  # by the hash of the package: equal content passes alike


@dataclass(frozen=True, slots=True)
class Health:
    """Shares are of the tools on offer (`admitted`), None where they are not known.

    `sizes`: tools by status. `redundancy`: share in a group of near duplicates. `reuse`: share that was called on a problem other
    than those it was made for, None before anything was called. `stability`: share whose tests pass now, of those that were run
    (`ran`). `coverage`: mean share of a tool's lines that its tests run.
    """

    sizes: dict[str, int] = field(default_factory=dict, hash=False)
    redundancy: float | None = None
    reuse: float | None = None
    stability: float | None = None
    coverage: float | None = None
    ran: int = 0

    @property
    def tools(self) -> int:
        return sum(self.sizes.values())

    @property
    def offered(self) -> int:
        return self.sizes.get(Status.ADMITTED.value, 0)


def health(heads: Sequence[ToolPackage], usages: Mapping[str, Usage], runs: Runs, groups: Iterable[Sequence[str]]) -> Health:
    """Of the heads of a library. `groups` are those of near duplicates."""
    offered = [one for one in heads if one.status is Status.ADMITTED]
    sizes = {status.value: sum(one.status is status for one in heads) for status in Status}
    grouped = {name for group in groups for name in group}
    used = any(usage.calls for usage in usages.values())
    seen = [runs[one.hash] for one in offered if one.hash in runs]
    covered = [run.coverage for run in seen if run.coverage is not None]
    return Health(
        sizes=sizes,
        redundancy=_share(sum(one.name in grouped for one in offered), len(offered)),
        reuse=_share(sum(one.name in usages and usages[one.name].reuse > 0 for one in offered), len(offered)) if used else None,
        stability=_share(sum(run.ok for run in seen), len(seen)),
        coverage=sum(covered) / len(covered) if covered else None,
        ran=len(seen),
    )


def _share(count: int, of: int) -> float | None:
    return count / of if of else None


async def run(library: Library, package: ToolPackage, sandbox: Sandbox) -> Run:
    """Run the tests of a tool that was admitted, with the tools it imports as they are now. One that fails is given a second try:
    a slow moment is no fault of the tool. Raises SandboxError.
    """
    try:
        needed = await dependencies(library, package, offered=False)
    except InputError as error:
        return Run(False, str(error))
    report = await trial.run(package, sandbox, needed=needed)
    if not report.ok:
        report = await trial.run(package, sandbox, needed=needed)
    if not report.ok:
        return Run(False, "; ".join(report.reasons)[:500])
    lines, ran = await coverage(package, sandbox, needed)
    return Run(True, "", lines, ran)


async def coverage(package: ToolPackage, sandbox: Sandbox, needed: Sequence[ToolPackage] = ()) -> tuple[int, int]:
    """How many lines of the tool's functions there are, and how many of them its tests run. (0, 0) where that cannot be seen: they
    take too long under a tracer, say. Raises SandboxError.
    """
    session = await sandbox.session()
    try:
        await trial.install(session, [*needed, package])
        arguments = (package.name, package.code, package.tests, test_names(package.tests))
        cell = f"(lambda names: (exec({_source()!r}, names), names['coverage'](*{arguments!r})))({{}})[1]"
        return _read(await session.run(cell, timeout_s=COVERAGE_S, keep=False), package)
    finally:
        await session.close()


def _read(result: CellResult, package: ToolPackage) -> tuple[int, int]:
    """The report of an untrusted process: two numbers that are possible, or nothing."""
    try:
        said: Any = json.loads(ast.literal_eval(result.value or "''"))
        lines, ran = int(said["lines"]), int(said["ran"])
    except (ValueError, SyntaxError, TypeError, KeyError, OverflowError, RecursionError, MemoryError):
        return 0, 0
    return (lines, ran) if result.ok and 0 <= ran <= lines <= package.code.count("\n") + 1 else (0, 0)


@cache
def _source() -> str:
    return (resources.files("toolreason.tools") / "coverage_cell.py").read_text(encoding="utf-8")


async def run_all(
    library: Library, packages: Sequence[ToolPackage], sandbox: Sandbox, known: Runs, at_once: int, tell: Callable[[int, int], None]
) -> Runs:
    """The runs of all packages, those that are known taken as they are. `tell(done, of)` is called after each. Raises
    SandboxError.
    """
    found, done = dict(known), 0

    async def one(package: ToolPackage) -> None:
        nonlocal done
        if package.hash not in found:
            found[package.hash] = await run(library, package, sandbox)
        done += 1
        tell(done, len(packages))

    await each(packages, one, at_once)
    return found


async def each(items: Iterable[T], work: Callable[[T], Awaitable[None]], at_once: int) -> None:
    """Do `work` on all, so many at once. The first failure ends the rest and is raised."""
    gate = asyncio.Semaphore(at_once)

    async def guarded(item: T) -> None:
        async with gate:
            await work(item)

    tasks = [asyncio.ensure_future(guarded(item)) for item in items]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
