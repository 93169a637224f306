"""The library in a rollout's session: tools put in, their calls counted, their faults found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from toolreason.errors import InputError
from toolreason.execution.base import Sessions
from toolreason.graphs.nodes import history
from toolreason.graphs.state import Fault, RolloutContext, RolloutState, Unseen
from toolreason.tools import notes, signature, trial
from toolreason.tools.admission import dependencies
from toolreason.tools.library import Library
from toolreason.tools.notes import Note
from toolreason.tools.package import Status, ToolPackage, Use
from toolreason.types import Cell, Tooling, cells

BROKEN_BELOW = 0.5  # of the smoothed share of calls that went well: a tool that could not be repaired is not offered any more


async def installing(library: Library, packages: Sequence[ToolPackage], call_id: str, after: int = 0) -> Unseen:
    """The cell that makes these tools, and those that they need, importable. A name that the agent has imported before is the new
    version from then on.
    """
    needed: dict[str, ToolPackage] = {}
    for package in packages:
        try:
            needed |= {one.name: one for one in await dependencies(library, package, offered=False)}
        except InputError:  # it needs what is no more: importing it says so
            continue
    needed |= {package.name: package for package in packages}
    names = ", ".join(repr(package.name) for package in packages)
    code = trial.install_code(list(needed.values()), recorded=True)
    if after:
        code += f"\nglobals().update({{n: getattr(__import__('toolbox'), n) for n in ({names},) if n in globals()}})\n"
    return Unseen(after=after, call_id=call_id, code=code, tools=[package.identity for package in needed.values()])


async def count(state: RolloutState, context: RolloutContext, *, frozen: bool) -> RolloutState:
    """What the last cell did with the library's tools: the uses, recorded where the library is not `frozen`, and the faults."""
    sessions, workshop = context.sessions, context.workshop
    done = cells(state["segments"])
    if sessions is None or workshop is None or not any(signature.TOOLBOX in cell.code for cell in done):
        return {"failing": []}
    versions = {identity.partition("@")[0]: identity for one in state["unseen"] for identity in one["tools"]}
    cell, noted = done[-1], state["noted"]
    if cell.result.outcome.committed:
        found, noted = await _notes(state, sessions, versions, done)
    else:  # its notes went with it
        named = [name for name in versions if re.search(rf"\b{name}\b", cell.code)]
        found = [Note(name, True, 0.0, error=str(cell.result.outcome)) for name in named]
    calls = [note for note in found if note.outermost]
    if not frozen:
        each = _tokens(state, context, cell) // len(calls) if calls else 0
        for note in calls:
            use = Use(versions[note.tool], state["problem"].id, not note.error, note.latency_s, each)
            await workshop.library.record(use)
    faults = {note.tool: Fault(tool=versions[note.tool], call=note.call, error=note.error) for note in found if note.call}
    tooling = state["tooling"]
    tooling = replace(
        tooling,
        used=(*tooling.used, *(versions[note.tool] for note in calls)),
        failed=(*tooling.failed, *(versions[note.tool] for note in calls if note.error)),
    )
    return {"tooling": tooling, "failing": list(faults.values()), "noted": noted}


async def _notes(state: RolloutState, sessions: Sessions, versions: dict[str, str], done: Sequence[Cell]) -> tuple[list[Note], int]:
    """What the session's toolbox noted since it was last asked, and how much it has noted in all."""
    seen = state["noted"]
    result = await sessions.run(
        state["key"],
        f"{done[-1].call_id}:notes",
        trial.notes_code(seen),
        history=history(done, state["unseen"]),
        stateful=False,
    )
    found, new = notes.read(result, versions)
    return found, seen + new


def _tokens(state: RolloutState, context: RolloutContext, cell: Cell) -> int:
    """What a call and its result took of the rollout."""
    spelled = len(context.policy.encode(cell.code)) if context.policy.exact else 0
    return spelled + len(state["segments"][-1].token_ids)


async def give_up(library: Library, fault: Fault, *, by: str) -> None:
    """A tool that could not be repaired is broken, once it fails more often than not."""
    name = fault["tool"].partition("@")[0]
    head = await library.get(name)
    usage = await library.usage(name)
    if head.identity == fault["tool"] and head.status is Status.ADMITTED and usage.success_rate < BROKEN_BELOW:
        reason = f"{fault['call']} ended with {fault['error']}; it could not be repaired"
        await library.set_status(name, Status.BROKEN, reason, version=head.version, by=by)


def told(tooling: Tooling, **more: Sequence[str]) -> Tooling:
    """The tooling with entries appended to the fields of these names."""
    return replace(tooling, **{name: (*getattr(tooling, name), *entries) for name, entries in more.items()})
