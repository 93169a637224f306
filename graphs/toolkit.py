"""The library in a rollout's session: tools put in, their calls counted, their faults found."""

from __future__ import annotations

import ast
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
NEVER = (0, 0, 0, 0.0)


async def installing(library: Library, packages: Sequence[ToolPackage], call_id: str, after: int = 0) -> Unseen:
    """The cell that makes these tools, and those that they need, importable. What the agent has imported of them before is the new
    version from then on.
    """
    needed: dict[str, ToolPackage] = {}
    for package in packages:
        try:
            needed |= {one.name: one for one in await dependencies(library, package, offered=False)}
        except InputError:  # it needs what is no more: importing it says so
            continue
    needed |= {package.name: package for package in packages}
    names = tuple(package.name for package in packages)
    code = trial.install_code(list(needed.values()), recorded=True)
    if after:
        code += f"\n__import__({signature.TOOLBOX!r})._renew(globals(), {names!r})\n"
    return Unseen(after=after, call_id=call_id, code=code, tools=[package.identity for package in needed.values()])


async def count(state: RolloutState, context: RolloutContext, *, frozen: bool) -> RolloutState:
    """What the last cell did with the library's tools: the uses, recorded where the library is not `frozen`, and the faults.

    A cell that calls a tool is one use of it, however often it calls it; it went well if none of these calls failed.
    """
    sessions, workshop = context.sessions, context.workshop
    done = cells(state["segments"])
    if sessions is None or workshop is None or not any(signature.TOOLBOX in cell.code for cell in done):
        return {"failing": []}
    versions = {identity.partition("@")[0]: identity for one in state["unseen"] for identity in one["tools"]}
    cell, noted = done[-1], state["noted"]
    if cell.result.outcome.committed:
        tallies = await _notes(state, sessions, versions, done)
        found = [_since(note, noted.get(note.tool, NEVER)) for note in tallies]
        noted = noted | {note.tool: [note.calls, note.failed, note.faults, note.seconds] for note in tallies}
    else:  # its notes went with it
        found = [note for name in versions if (note := _stopped(cell, name)) is not None]
    used = [note for note in found if note.calls]
    if not frozen:
        each = _tokens(state, context, cell) // len(used) if used else 0
        for note in used:
            use = Use(versions[note.tool], state["problem"].id, not note.failed, note.seconds / note.calls, each)
            await workshop.library.record(use, key=f"{state['problem'].id}:{cell.call_id}:{note.tool}")
    failed = [versions[note.tool] for note in used if note.failed]
    tooling = told(state["tooling"], used=[versions[note.tool] for note in used], failed=failed)
    faults = [Fault(tool=versions[note.tool], call=note.call, error=note.error) for note in found if note.faults and note.call]
    return {"tooling": tooling, "failing": faults, "noted": noted}


def _since(note: Note, before: Sequence[float]) -> Note:
    """What is new in a tally. In a session that was built anew it may be smaller than it was: then nothing is."""
    calls, failed, faults, seconds = before
    return replace(
        note,
        calls=max(0, note.calls - int(calls)),
        failed=max(0, note.failed - int(failed)),
        faults=max(0, note.faults - int(faults)),
        seconds=max(0.0, note.seconds - seconds),
    )


def _stopped(cell: Cell, name: str) -> Note | None:
    """What is to be noted of a tool in a cell that met a limit, if its code mentions the tool other than by importing it. The fault
    may be the tool's: its first call with literals is tried again before anything is done.
    """
    try:
        nodes = list(ast.walk(signature.parse(cell.code)))
    except InputError:
        return None
    names = [one.id if isinstance(one, ast.Name) else one.attr for one in nodes if isinstance(one, ast.Name | ast.Attribute)]
    if name not in names:
        return None
    texts = (ast.get_source_segment(cell.code, one) or "" for one in nodes if isinstance(one, ast.Call))
    call = next((text for text in texts if len(text) <= notes.CHARACTERS and notes.is_call(text, name)), "")
    return Note(name, 1, 1, faults=1, error=f"the cell was stopped: {cell.result.outcome}", call=call)


async def _notes(state: RolloutState, sessions: Sessions, versions: dict[str, str], done: Sequence[Cell]) -> list[Note]:
    """What the session's toolbox noted since it was last asked."""
    seen = {name: [int(calls), int(faults)] for name, (calls, _, faults, _) in state["noted"].items()}
    result = await sessions.run(
        state["key"],
        f"{done[-1].call_id}:notes",
        trial.notes_code(seen),
        history=history(done, state["unseen"]),
        stateful=False,
    )
    return notes.read(result, versions)


def _tokens(state: RolloutState, context: RolloutContext, cell: Cell) -> int:
    """What a call and its result took of the rollout."""
    spelled = len(context.policy.encode(cell.code)) if context.policy.exact else 0
    return spelled + len(state["segments"][-1].token_ids)


async def give_up(library: Library, fault: Fault, *, by: str) -> None:
    """A tool that could not be repaired is broken, once it fails more often than not."""
    name = fault["tool"].partition("@")[0]
    head = await library.get(name)
    usage = await library.usage(name, head.version)
    if head.identity == fault["tool"] and head.status is Status.ADMITTED and usage.success_rate < BROKEN_BELOW:
        reason = f"{fault['call']} ended with {fault['error']}; it could not be repaired"
        await library.set_status(name, Status.BROKEN, reason, version=head.version, by=by)


def told(tooling: Tooling, **more: Sequence[str]) -> Tooling:
    """The tooling with entries appended to the fields of these names."""
    return replace(tooling, **{name: (*getattr(tooling, name), *entries) for name, entries in more.items()})
