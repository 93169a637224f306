"""A plan carried out, and taken back. The library, not the file, says how far it went: a step that is done is not done again.

All steps are looked at before the first is taken, and each once more before it is. What another writer does in the instant between
that look and the change is not covered; it is kept, as every version is, and can be rolled back to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

from toolreason.errors import InputError
from toolreason.execution.base import Sandbox
from toolreason.tools import trial
from toolreason.tools.admission import dependencies, examine
from toolreason.tools.events import Event, Kind
from toolreason.tools.gate import GateSettings
from toolreason.tools.merging import with_tests_of
from toolreason.tools.package import Status, ToolPackage
from toolreason.tools.plan import Action, Plan, Progress, Step

if TYPE_CHECKING:
    from toolreason.tools.library import Library

BY = "consolidate"
Keep = Callable[[Plan], None]


class Place(Enum):
    """Where the library stands with a step."""

    BEFORE = "before"
    AFTER = "after"


def nothing(plan: Plan) -> None:
    """A `Keep` that keeps nothing."""


async def apply(library: Library, plan: Plan, *, keep: Keep = nothing) -> Plan:
    """Take the steps that are not taken yet. `keep` is given the plan before and after each. What a plan brings from elsewhere
    has to pass `check_packages` first. Raises InputError, before anything is changed, where the library has changed so that a
    step is wrong.
    """
    places = [await _place(library, step) for step in plan.steps]
    for number, (step, place) in enumerate(zip(plan.steps, places, strict=True)):
        if place is Place.BEFORE:
            await _place(library, step)
            plan = plan.with_step(number, Progress.STARTED)
            keep(plan)
            await _take(library, step)
        plan = plan.with_step(number, Progress.DONE)
        keep(plan)
    return plan


async def undo(library: Library, plan: Plan, *, keep: Keep = nothing) -> Plan:
    """Take back the steps that were taken, the last first. Raises InputError, before anything is changed, where a tool has been
    changed since, or was never what the plan says.
    """
    places = [await _place(library, step, undoing=True) for step in plan.steps]
    for number in reversed(range(len(plan.steps))):
        step = plan.steps[number]
        if places[number] is Place.AFTER:
            await _take_back(library, step)
        if step.progress is not Progress.PLANNED or places[number] is Place.AFTER:
            plan = plan.with_step(number, Progress.UNDONE)
            keep(plan)
    return plan


async def check_packages(library: Library, plan: Plan, sandbox: Sandbox, settings: GateSettings | None = None) -> None:
    """Put what a plan brings, and the library has not, through gate and trial, and through the tests of all that it is to stand
    for: a file may hold anything. Raises InputError and SandboxError.
    """
    members = {step.tool: step.members for step in plan.steps}
    for step in plan.steps:
        if step.package is None:
            if step.into and f"{step.tool}@{step.version}" not in members.get(step.into, ()):
                raise InputError(f"the plan says that {step.into} stands for {step.tool}, and does not make it so: make a new plan")
        elif await _place(library, step) is Place.BEFORE:
            await _check_package(library, step, step.package, sandbox, settings)


async def _check_package(
    library: Library, step: Step, package: ToolPackage, sandbox: Sandbox, settings: GateSettings | None
) -> None:
    old = await library.get(step.tool, step.version)
    if step.action is Action.CLASSIFY and old.hash != package.hash:
        raise InputError(f"the plan changes {step.tool}, where it says that it classifies it: make a new plan")
    refused = f"what the plan puts in the place of {step.tool} does not pass"
    seen = await examine(library, package, sandbox, settings=settings)
    if not seen.admitted:
        raise InputError(f"{refused}: {'; '.join(seen.reasons)[:500]}")
    needed = await dependencies(library, package)
    for identity in step.members:
        name, _, version = identity.partition("@")
        member = await library.get(name, int(version) if version.isdecimal() else None)
        report = await trial.run(with_tests_of(package, member), sandbox, needed=needed)
        if not report.ok:
            raise InputError(f"{refused} the tests of {identity}: {'; '.join(report.reasons)[:500]}")


async def _place(library: Library, step: Step, *, undoing: bool = False) -> Place:
    head = await library.get(step.tool)
    if _is_after(step, head):
        if undoing:
            _check_past(step, head, await library.events(step.tool))
        return Place.AFTER
    same = head.version == step.version and head.status is step.status
    if same and not (step.unused and not undoing and (await library.usage(step.tool)).reuse):
        return Place.BEFORE
    why = f"it is {head.identity}, {head.status}: {head.reason or 'no reason given'}"
    if same:
        why = "it has been used since"
    elif undoing and step.progress is Progress.PLANNED:
        return Place.BEFORE  # this step was not taken: whatever the tool is now is no concern of ours
    raise InputError(f"{step.tool} has changed since the plan was made ({why}): make a new plan, or change this tool by hand")


def _is_after(step: Step, head: ToolPackage) -> bool:
    if step.package is not None:
        new = (head.hash, head.category) == (step.package.hash, step.package.category)
        return new and head.version != step.version and head.status is Status.ADMITTED
    return head.version == step.version and head.status is Status.DEPRECATED and head.reason == step.reason


def _check_past(step: Step, head: ToolPackage, events: Sequence[Event]) -> None:
    """What a step is taken back to has to be what the tool was: a file may say anything."""
    of_old = [event for event in events if event.version == step.version and event.kind is not Kind.HEAD]
    if step.action is Action.DEPRECATE:
        of_old = of_old[:-1]
    if not of_old or (of_old[-1].status, step.old_reason) != (step.status, of_old[-1].reason):
        raise InputError(f"{step.tool}@{step.version} was never {step.status} as the plan says: it cannot be taken back by it")


async def _take(library: Library, step: Step) -> None:
    if step.package is None:
        await library.set_status(step.tool, Status.DEPRECATED, step.reason, version=step.version, by=BY)
        return
    kept = await library.add(replace(step.package, status=Status.CANDIDATE))
    if (await library.get(step.tool)).version != kept.version and kept.status is Status.ADMITTED:
        await library.rollback(step.tool, kept.version, reason=step.reason, by=BY)  # forward again, after an undo
    else:
        await library.set_status(step.tool, Status.ADMITTED, step.reason, version=kept.version, by=BY)


async def _take_back(library: Library, step: Step) -> None:
    if step.package is None:
        await library.set_status(step.tool, step.status, step.old_reason, version=step.version, by=BY)
    else:
        await library.rollback(step.tool, step.version, reason=f"undone: {step.reason}"[:1000], by=BY)
