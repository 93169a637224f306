"""What came of a task of function calling: its expected calls and the model's are made again, apart, and compared.

Both are played in a session of its own, never the agent's, each in an environment that has just been made. Parts of the verdict:

    state      of all public attributes, the share that is in the end as the expected calls leave it (ARTIST's state reward)
    changed    the same of those attributes alone that either side changes: with no call at all, `state` is seldom 0
    function   of the expected calls, the share that the model made too: same name, same arguments (defaults filled in), in the
               same turn of the user's or an earlier one (ARTIST's function reward)
    turns      of the user's turns, the share that is right

A turn is right where state and results are, as in BFCL: every attribute is as expected at its end, and every result that the
expected calls give has been given to the model by then. A turn without an expected call is not looked at. The verdict is correct
where all turns are right and the rollout came to its end; a problem of BFCL's is judged by BFCL's own checker instead.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toolreason.errors import InfrastructureError, InputError, VerifierError
from toolreason.execution.base import Sandbox, Session
from toolreason.functions import cells
from toolreason.types import Cell, FunctionTask, Judgement, Problem, StopReason, Trajectory, Verdict

PLAY_S = 60.0  # for all calls of one side together, in which each had the time of a cell
NO_SANDBOX = "calls need a sandbox: make the verifier with Verifier(sandbox=...)"


@dataclass(frozen=True, slots=True)
class PlayedCall:
    """A call that was made again. `arguments` and `result` are digests."""

    name: str
    arguments: str
    status: str
    result: str


@dataclass(frozen=True, slots=True)
class PlayedTurn:
    calls: tuple[PlayedCall, ...]
    state: dict[str, str]


@dataclass(frozen=True, slots=True)
class Played:
    """What one side did: the state before, and turn by turn its calls and the state, attribute by attribute."""

    before: dict[str, str]
    turns: tuple[PlayedTurn, ...]

    @property
    def after(self) -> dict[str, str]:
        return self.turns[-1].state if self.turns else self.before

    def changed(self) -> set[str]:
        return {name for name in self.after if self.after[name] != self.before.get(name)}


async def judge(problem: Problem, trajectory: Trajectory, sandbox: Sandbox | None, timeout_s: float = PLAY_S) -> Verdict:
    """The verdict with its parts. Unscored where no sandbox is there or it fails, and where the task itself does not run."""
    task = problem.reference.task
    if sandbox is None or task is None:
        return Verdict(Judgement.UNSCORED, reason=NO_SANDBOX if sandbox is None else "the problem's reference has no task")
    try:
        mine = [[cells.written(cell)[0] for cell in turn] for turn in committed(task, trajectory)]
        wanted, made = await play(sandbox, task, mine, max(timeout_s, PLAY_S))
        parts = compare(wanted, made)
        if task.environment.package.startswith("bfcl:"):
            from toolreason.functions import bfcl_check

            valid, reason = await bfcl_check.check(problem, trajectory, sandbox, timeout_s=max(timeout_s, PLAY_S))
            return Verdict(Judgement.CORRECT if valid else Judgement.WRONG, reason=reason, parts=parts)
    except (InfrastructureError, InputError) as error:
        return Verdict(Judgement.UNSCORED, reason=str(error))
    reason = "" if trajectory.stop is StopReason.ANSWERED else f"it ended at a limit: {trajectory.stop}"
    reason = reason or wrong_turn(wanted, made)
    return Verdict(Judgement.WRONG if reason else Judgement.CORRECT, reason=reason, parts=parts)


def committed(task: FunctionTask, trajectory: Trajectory) -> list[list[Cell]]:
    """The cells whose effects the model's environment had, by the user's turn."""
    turns = cells.by_turn(trajectory.segments, len(task.turns))
    return [[cell for cell in turn if cell.result.outcome.committed] for turn in turns]


async def play(
    sandbox: Sandbox, task: FunctionTask, mine: Sequence[Sequence[str]], timeout_s: float = PLAY_S
) -> tuple[Played, Played]:
    """What the expected calls do, and what these do. Raises InfrastructureError where either cannot be played."""
    wanted = [[cells.expected(turn.calls)] if turn.calls else [] for turn in task.turns]
    session = await sandbox.session()
    try:
        first = await _played(session, cells.install_code(task, always=True), wanted, timeout_s)
        await session.undo()
        return first, await _played(session, cells.install_code(task), mine, timeout_s)
    finally:
        await session.close()


async def _played(session: Session, install: str, turns: Sequence[Sequence[str]], timeout_s: float) -> Played:
    result = await session.run(f"{install}\n{cells.play_code(turns)}", timeout_s=timeout_s)
    if not result.ok:
        raise VerifierError(f"the calls could not be made again: {result.error or result.outcome}")
    try:
        said = json.loads(await session.get(cells.STATES))
        return Played(_texts(said["before"]), tuple(_turn(one) for one in said["turns"]))
    except (ValueError, KeyError, TypeError, InputError, RecursionError) as error:
        raise VerifierError(f"the environment told nothing that can be read: {error}") from error


def _turn(said: dict[str, Any]) -> PlayedTurn:
    return PlayedTurn(tuple(PlayedCall(**_texts(one)) for one in said["calls"]), _texts(said["state"]))


def _texts(said: Any) -> dict[str, str]:
    if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
        raise TypeError("no object of texts")
    return said


def compare(wanted: Played, made: Played) -> dict[str, float]:
    """The parts of the verdict. Where there is nothing to compare, nothing is wrong: 1."""
    same = {name for name, value in wanted.after.items() if made.after.get(name) == value}
    touched = (wanted.changed() | made.changed()) & set(wanted.after)
    expected = sum(len(turn.calls) for turn in wanted.turns)
    looked_at = [number for number, turn in enumerate(wanted.turns) if turn.calls]
    right = [number for number in looked_at if not _wrong(wanted, made, number)]
    return {
        "state": _share(len(same), len(wanted.after)),
        "changed": _share(len(same & touched), len(touched)),
        "function": _share(matched(wanted, made), expected),
        "turns": _share(len(right), len(looked_at)),
    }


def matched(wanted: Played, made: Played) -> int:
    """How many expected calls the model made too. A call of the model's stands for one of them."""
    free: Counter[tuple[str, str]] = Counter()
    found = 0
    for number, turn in enumerate(wanted.turns):
        made_now = [call for call in made.turns[number].calls if call.status in (cells.OK, cells.RAISED)]
        free.update((call.name, call.arguments) for call in made_now)
        for call in turn.calls:
            if free[call.name, call.arguments] > 0:
                free[call.name, call.arguments] -= 1
                found += 1
    return found


def wrong_turn(wanted: Played, made: Played) -> str:
    """What is wrong in the first turn that is; empty where all are right."""
    reasons = (_wrong(wanted, made, number) for number, turn in enumerate(wanted.turns) if turn.calls)
    return next((reason for reason in reasons if reason), "")


def _wrong(wanted: Played, made: Played, number: int) -> str:
    expected = wanted.turns[number]
    differing = [name for name, value in expected.state.items() if made.turns[number].state.get(name) != value]
    if differing:
        return f"after turn {number + 1} the state differs in {', '.join(sorted(differing))}"
    given = Counter(call.result for turn in made.turns[: number + 1] for call in turn.calls)
    needed = Counter(call.result for call in expected.calls)
    missing = sorted({call.name for call in expected.calls if needed[call.result] > given[call.result]})
    return f"by turn {number + 1} these results had not been seen: {', '.join(missing)}" if missing else ""


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
