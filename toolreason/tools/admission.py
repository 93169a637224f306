"""The one door into the library, for a person's tool and a model's alike: the gate, then the trial, then the library.

A candidate that is refused is kept with its reasons, and is not offered. The version that was offered before stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from toolreason.errors import InputError
from toolreason.execution.base import Sandbox
from toolreason.tools import gate, signature, trial
from toolreason.tools.gate import GateReport, GateSettings
from toolreason.tools.package import Status, ToolPackage
from toolreason.tools.trial import TrialReport

if TYPE_CHECKING:
    from toolreason.tools.library import Library

KEPT_REASON = 1_000  # characters
HUMAN = "human"


@dataclass(frozen=True, slots=True)
class Admission:
    """What came of a candidate. `package` is the version that the library keeps, or the candidate itself where it keeps none (too
    long, or only looked at). `trial` is None where the gate turned it away.
    """

    package: ToolPackage
    admitted: bool
    gate: GateReport
    trial: TrialReport | None = None
    reasons: tuple[str, ...] = ()


async def admit(
    library: Library,
    package: ToolPackage,
    sandbox: Sandbox,
    *,
    answer: str | Iterable[str] | None = None,
    by: str = HUMAN,
    settings: GateSettings | None = None,
) -> Admission:
    """Take `package` into the library if it passes. `answer` is what the problem of its ticket is to be answered with.

    What was deprecated is not admitted again unchanged, unless a person asks. Raises SandboxError (then nothing is kept), and
    InputError on a frozen library.
    """
    return await settle(library, await examine(library, package, sandbox, answer=answer, settings=settings), by=by)


async def settle(
    library: Library, seen: Admission, *, by: str = HUMAN, against: Iterable[str] = (), over: str | None = None
) -> Admission:
    """Keep what `examine` has looked at, as what it found. `against`: more that speaks against it, a critic's word say. `over`: the
    version that it was made to follow, as `Library.set_status` takes it: where another one is offered by now it stays a candidate,
    and InputError is raised.
    """
    package = seen.package
    reasons = (*seen.reasons, *against)
    if by != HUMAN and not reasons and (old := await _deprecated(library, package)):
        reasons = (f"{old.identity} is the same tool, and deprecated: {old.reason}",)
    if reasons:
        return replace(seen, package=await _keep(library, package, seen, reasons, by), admitted=False, reasons=reasons)
    kept = await library.add(replace(package, status=Status.CANDIDATE))
    assert seen.trial
    passed = f"passed the gate and {len(seen.trial.tests)} tests"
    kept = await library.set_status(kept.name, Status.ADMITTED, passed, version=kept.version, by=by, over=over)
    return replace(seen, package=kept)


async def examine(
    library: Library,
    package: ToolPackage,
    sandbox: Sandbox,
    *,
    answer: str | Iterable[str] | None = None,
    settings: GateSettings | None = None,
) -> Admission:
    """Gate and trial, and nothing is kept. `admitted` says whether it would be."""
    report = gate.check(package, answer=answer, settings=settings)
    if not report.ok:
        return Admission(package, False, report, None, tuple(map(str, report.findings)))
    try:
        needed = await dependencies(library, package)
    except InputError as error:
        return Admission(package, False, report, None, (str(error),))
    tried = await trial.run(package, sandbox, needed=needed)
    return Admission(package, tried.ok, report, tried, tried.reasons)


async def dependencies(library: Library, package: ToolPackage, *, offered: bool = True) -> tuple[ToolPackage, ...]:
    """The tools that `package` imports, and those that they import, as the library has them now; what is needed comes first.

    Raises InputError for one that there is not, that comes back to `package`, or (with `offered`) that is not admitted. Without
    `offered` a tool that was admitted once is taken: what uses it goes on.
    """
    found: dict[str, ToolPackage] = {}
    await _visit(library, package, (package.name,), found, offered)
    return tuple(found.values())


async def _visit(
    library: Library, package: ToolPackage, path: tuple[str, ...], found: dict[str, ToolPackage], offered: bool
) -> None:
    """Add to `found` what `package` needs; `path` are the tools on the way to it."""
    for name in signature.other_tools(signature.parse(package.code), package.name):
        if name in path:
            raise InputError(f"the tools {' -> '.join((*path, name))} need one another: put what they share into a third")
        if name in found:
            continue
        other = await library.get(name)
        if other.status is Status.CANDIDATE or (offered and other.status is not Status.ADMITTED):
            why = other.reason or "it has not passed the gate"
            raise InputError(f"{package.name} needs {name}, which is {other.status}: {why}")
        await _visit(library, other, (*path, name), found, offered)
        found[name] = other


async def _deprecated(library: Library, package: ToolPackage) -> ToolPackage | None:
    try:
        versions = await library.history(package.name)
    except InputError:  # a new name
        return None
    return next((one for one in versions if one.hash == package.hash and one.status is Status.DEPRECATED), None)


async def _keep(library: Library, package: ToolPackage, seen: Admission, reasons: tuple[str, ...], by: str) -> ToolPackage:
    """Keep a refused candidate. What is offered, or was deprecated, with this very content stays as it is."""
    if any(one.rule == "size" for one in seen.gate.findings):
        return package
    reason = "; ".join(reasons)[:KEPT_REASON]
    kept = await library.add(replace(package, status=Status.CANDIDATE, reason=reason))
    if kept.status is Status.CANDIDATE and kept.reason != reason:
        kept = await library.set_status(kept.name, Status.CANDIDATE, reason, version=kept.version, by=by)
    return kept
