"""What a rollout of function calling is worth: state, calls, turns; played again apart from the agent's session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from toolreason.errors import SandboxError
from toolreason.execution import Limits, ScriptedSandbox, open_sandbox
from toolreason.functions import cells
from toolreason.functions.judge import Played, PlayedCall, PlayedTurn, compare, play, wrong_turn
from toolreason.train import function_rewards as rewards
from toolreason.types import (
    Cell,
    CellResult,
    Judgement,
    Outcome,
    Problem,
    Segment,
    Source,
    StopReason,
    Trajectory,
    Verdict,
    from_json,
    to_json,
)
from toolreason.verify import Verifier

from .bank import DONE, PROBLEM, RIGHT, TASK, Forks, call, forks, texts


@pytest.fixture
async def sandbox() -> AsyncIterator[Forks]:
    async with open_sandbox("local", Limits(cell_timeout_s=20, output_chars=200)) as opened:
        yield await forks(opened)


def trajectory(*words: str, stop: StopReason = StopReason.ANSWERED, outcome: Outcome = Outcome.OK) -> Trajectory:
    """A rollout in which each message without a call ends a turn of the user's. Its calls are noted as having gone well."""
    row, turn = [Segment(Source.PROMPT, "p")], 0
    for one in words:
        row.append(Segment(Source.MODEL, one))
        if found := texts([one]):
            said = repr(str(["ok"] * len(cells.read(found[0]))).replace("'", '"'))
            cell = Cell(f"c{len(row)}", cells.call_code(found[0], turn), CellResult(outcome, "[]", value=said))
            row.append(Segment(Source.TOOL, "r", cell=cell))
        else:
            turn += 1
            row += [Segment(Source.PROMPT, "p")] if turn < len(TASK.turns) else []
    return Trajectory("t", PROBLEM.id, "functions", "scripted", tuple(row), stop)


async def test_right_calls_have_full_marks_and_every_lack_costs_its_own_part(sandbox: Forks) -> None:
    async with Verifier(sandbox=sandbox) as verifier:

        async def judged(*words: str, **more: Any) -> Verdict:
            return await verifier(PROBLEM, trajectory(*words, **more))

        right = await judged(*RIGHT)
        assert (right.judgement, right.reason) == (Judgement.CORRECT, "")
        assert right.parts == {"state": 1.0, "changed": 1.0, "function": 1.0, "turns": 1.0}

        lazy = await judged(DONE, DONE, DONE)
        assert lazy.reason == "after turn 1 the state differs in Bank.accounts, Bank.log"
        assert lazy.parts == {"state": 1 / 3, "changed": 0.0, "function": 0.0, "turns": 0.0}

        unread = await judged(RIGHT[0], DONE, DONE, call(("vault", {})), DONE)
        assert unread.reason == "by turn 3 these results had not been seen: balance"
        assert unread.parts == {"state": 1.0, "changed": 1.0, "function": 2 / 3, "turns": 0.5}

        late = await judged(DONE, RIGHT[0], DONE, *RIGHT[3:])  # the state is right in the end, but the first turn was not
        assert (late.judgement, late.parts["state"], late.parts["turns"]) == (Judgement.WRONG, 1.0, 0.5)

        defaults = call(("transfer", {"source": "ann", "target": "bob", "amount": 3.0, "note": ""}))
        assert (await judged(defaults, *RIGHT[1:])).judgement is Judgement.CORRECT
        twice = await judged(RIGHT[0], *RIGHT)
        assert (twice.judgement, twice.parts["function"]) == (Judgement.WRONG, 1.0)

        early = call(("vault", {}))  # not told of yet: refused when it is played again too
        assert (await judged(early, *RIGHT)).judgement is Judgement.CORRECT

        stopped = await judged(*RIGHT, stop=StopReason.LENGTH)
        assert (stopped.judgement, stopped.reason) == (Judgement.WRONG, "it ended at a limit: length")
        undone = await judged(*RIGHT, outcome=Outcome.TIMEOUT)  # such a cell has left nothing
        assert undone.parts["changed"] == 0
        assert (await judged(*RIGHT, stop=StopReason.ABORTED)).judgement is Judgement.UNSCORED


async def test_what_cannot_be_played_is_unscored(sandbox: Forks) -> None:
    async def judged(problem: Problem, where: Any) -> Verdict:
        async with Verifier(sandbox=where) as verifier:
            return await verifier(problem, trajectory(*RIGHT))

    def changed(**more: Any) -> Problem:
        environment = replace(TASK.environment, **more)
        return replace(PROBLEM, reference=replace(PROBLEM.reference, task=replace(TASK, environment=environment)))

    assert "sandbox" in (await judged(PROBLEM, None)).reason
    assert "no task" in (await judged(replace(PROBLEM, reference=replace(PROBLEM.reference, task=None)), sandbox)).reason
    for problem, told in [
        (changed(code="class Bank:\n    def __init__(self, **_):\n        raise ValueError('shut')"), "shut"),
        (changed(code="1/0"), "ZeroDivisionError"),
        (changed(config="{"), "no JSON"),
        (changed(classes=("Mint",)), "Mint"),
    ]:
        verdict = await judged(problem, sandbox)
        assert (verdict.judgement, verdict.parts) == (Judgement.UNSCORED, {})
        assert told in verdict.reason
    for answer in (SandboxError("gone"), "printed, and no states written"):
        verdict = await judged(PROBLEM, ScriptedSandbox(lambda code, answer=answer: answer))  # type: ignore[misc]
        assert verdict.judgement is Judgement.UNSCORED


async def test_the_sides_are_played_apart_and_leave_nothing(sandbox: Forks) -> None:
    again = [await play(sandbox, TASK, [texts(RIGHT[:1]), [], texts(RIGHT[3:])]) for _ in range(6)]
    assert all(
        wanted == made == again[0][0] for wanted, made in again
    )  # and more sessions than may be open at once: all were closed


def made(*turns: tuple[Sequence[str], dict[str, str]]) -> Played:
    """Calls `name:result`, and the state after them."""
    calls = [tuple(PlayedCall(one.partition(":")[0], "", "ok", one.partition(":")[2]) for one in said) for said, _ in turns]
    return Played({"a": "0", "b": "0"}, tuple(PlayedTurn(one, state) for one, (_, state) in zip(calls, turns, strict=True)))


def test_a_call_stands_for_one_expected_call_and_may_come_early_but_not_late() -> None:
    still = {"a": "0", "b": "0"}
    wanted = made((["f:1"], still), (["f:1", "g:2"], still))
    assert compare(wanted, made((["f:1"], still), (["g:2"], still)))["function"] == 2 / 3
    assert compare(wanted, made((["g:2", "f:1", "f:1"], still), ([], still)))["function"] == 1
    assert compare(wanted, made(([], still), (["f:1", "f:1", "g:2"], still)))["function"] == 2 / 3
    assert wrong_turn(wanted, made(([], still), (["f:1", "f:1", "g:2"], still))) == "by turn 1 these results had not been seen: f"


def test_attributes_that_nobody_changed_do_not_count_in_changed() -> None:
    wanted = made((["f:1"], {"a": "1", "b": "0"}))
    assert compare(wanted, made((["f:1"], {"a": "1", "b": "9"}))) | {"function": 1.0} == {
        "state": 0.5, "changed": 0.5, "function": 1.0, "turns": 0.0
    }  # fmt: skip
    assert compare(made(([], {})), made(([], {"x": "1"}))) == {"state": 1.0, "changed": 1.0, "function": 1.0, "turns": 1.0}


def test_rewards_are_the_papers_numbers_part_by_part() -> None:
    done = trajectory(*RIGHT).with_verdict(Verdict(Judgement.WRONG, parts={"state": 0.5, "changed": 0.25, "function": 1.0}))
    assert [one(done) for one in (rewards.state, rewards.changed, rewards.function)] == [0.25, 0.125, 0.5]
    assert [one(done) for one in (rewards.format_relaxed, rewards.format_strict, rewards.tool_success)] == [0.1, 0.1, 1.0]
    quiet = trajectory("Sorry.", "Sorry.", "Sorry.").with_verdict(done.verdict)  # type: ignore[arg-type]
    assert [one(quiet) for one in (rewards.format_relaxed, rewards.format_strict, rewards.tool_success)] == [0, 0, 0]
    assert from_json(Trajectory, to_json(done)) == done


@pytest.mark.parametrize(
    "done",
    [
        trajectory(*RIGHT),
        trajectory(*RIGHT).with_verdict(Verdict(Judgement.UNSCORED, parts={"state": 1.0, "function": 1.0})),
        trajectory(*RIGHT, stop=StopReason.ABORTED).with_verdict(Verdict(Judgement.WRONG, parts={"state": 1.0})),
    ],
    ids=["not judged", "unscored", "aborted"],
)
def test_what_was_not_judged_has_no_reward(done: Trajectory) -> None:
    every = (rewards.state, rewards.changed, rewards.function, rewards.format_relaxed, rewards.format_strict, rewards.tool_success)
    assert [one(done) for one in every] == [None] * len(every)


def test_the_papers_sum_is_found_by_name() -> None:
    from toolreason.train.rewards import find

    assert [find(name) for name in rewards.ARTIST] == [
        rewards.state, rewards.function, rewards.format_relaxed, rewards.format_strict
    ]  # fmt: skip
