"""Sessions by rollout: a call runs once, a lost state comes back, rollouts do not meet."""

from __future__ import annotations

import asyncio

import pytest

from toolreason.errors import SandboxError, SessionLost
from toolreason.execution import ScriptedSandbox, Session, SessionBook
from toolreason.types import CellResult, Outcome


def echo(code: str) -> CellResult:
    outcomes = {"hang": Outcome.TIMEOUT, "raise": Outcome.ERROR}
    return CellResult(outcomes.get(code, Outcome.OK), stdout=code)


async def test_a_call_id_runs_once_and_keeps_its_result() -> None:
    sandbox = ScriptedSandbox(echo)
    book = SessionBook(sandbox)
    first = await book.run("r", "c1", "a")
    assert await book.run("r", "c1", "a") is first
    assert sandbox.calls == [(1, "a")]


async def test_a_call_taken_up_again_with_other_code_runs_where_it_stood_and_forgets_what_came_after() -> None:
    sandbox = ScriptedSandbox(echo)
    book = SessionBook(sandbox)
    await book.run("r", "c1", "a")
    await book.run("r", "c2", "b", history=[("c1", "a")])
    assert (await book.run("r", "c1", "other")).stdout == "other"
    await book.run("r", "c2", "b", history=[("c1", "other")])
    assert sandbox.calls == [(1, "a"), (1, "b"), (2, "other"), (2, "b")]
    assert sandbox.open == 1


async def test_a_rollout_keeps_one_session_and_rollouts_share_none() -> None:
    sandbox = ScriptedSandbox(echo)
    book = SessionBook(sandbox)
    await asyncio.gather(*(book.run(key, f"{key}{i}", f"{key}{i}") for i in range(3) for key in "xy"))
    by_session = {number: {code[0] for session, code in sandbox.calls if session == number} for number in (1, 2)}
    assert sorted(map(sorted, by_session.values())) == [["x"], ["y"]]


async def test_a_resumed_rollout_runs_its_history_first() -> None:
    sandbox = ScriptedSandbox(echo)
    result = await SessionBook(sandbox).run("r", "c3", "c", history=[("c1", "a"), ("c2", "raise")])
    assert [code for _, code in sandbox.calls] == ["a", "raise", "c"]
    assert result.stdout == "c"


async def test_a_history_that_the_session_has_is_not_run_again() -> None:
    sandbox = ScriptedSandbox(echo)
    book = SessionBook(sandbox)
    await book.run("r", "c1", "a")
    await book.run("r", "c2", "hang", history=[("c1", "a")])
    await book.run("r", "c3", "b", history=[("c1", "a")])
    assert sandbox.calls == [(1, "a"), (1, "hang"), (1, "b")]


async def test_a_rollout_taken_up_at_an_earlier_step_gets_a_session_of_that_step() -> None:
    sandbox = ScriptedSandbox(echo)
    book = SessionBook(sandbox)
    await book.run("r", "c1", "a")
    await book.run("r", "c2", "b", history=[("c1", "a")])
    await book.run("r", "c2'", "other", history=[("c1", "a")])
    assert sandbox.calls == [(1, "a"), (1, "b"), (2, "a"), (2, "other")]
    assert sandbox.open == 1


async def test_stateless_calls_replay_nothing() -> None:
    sandbox = ScriptedSandbox(echo)
    await SessionBook(sandbox).run("r", "c2", "b", history=[("c1", "a")], stateful=False)
    assert sandbox.calls == [(1, "b")]


async def test_a_lost_session_is_rebuilt_once_with_or_without_a_given_history() -> None:
    for history in ([], [("c1", "a")]):
        losses = iter([SessionLost("gone")])
        sandbox = ScriptedSandbox(lambda code, losses=losses: next(losses, echo(code)) if code == "b" else echo(code))  # type: ignore[misc]
        book = SessionBook(sandbox)
        await book.run("r", "c1", "a")
        assert (await book.run("r", "c2", "b", history=history)).stdout == "b"
        assert sandbox.calls == [(1, "a"), (1, "b"), (2, "a"), (2, "b")]
        assert sandbox.open == 1


async def test_a_session_lost_twice_is_an_error_and_leaves_none_open() -> None:
    sandbox = ScriptedSandbox(lambda code: SessionLost("gone"))
    book = SessionBook(sandbox)
    with pytest.raises(SessionLost):
        await book.run("r", "c1", "a")
    assert (sandbox.sessions, sandbox.open) == (2, 0)


async def test_a_history_that_ends_differently_or_is_too_long_is_not_guessed_at() -> None:
    with pytest.raises(SessionLost, match="differently"):
        await SessionBook(ScriptedSandbox(echo)).run("r", "c2", "b", history=[("c1", "hang")])
    with pytest.raises(SessionLost, match="too many"):
        await SessionBook(ScriptedSandbox(echo), replay_cells=1).run("r", "c3", "b", history=[("c1", "a"), ("c2", "a")])


async def test_a_cancelled_call_may_be_made_again() -> None:
    started = asyncio.Event()

    async def slow_once(code: str) -> CellResult:
        if code == "b" and not started.is_set():
            started.set()
            await asyncio.Event().wait()
        return echo(code)

    sandbox = ScriptedSandbox(slow_once)
    book = SessionBook(sandbox)
    await book.run("r", "c1", "a")
    call = asyncio.ensure_future(book.run("r", "c2", "b"))
    await started.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await book.run("r", "c2", "b")).stdout == "b"
    assert sandbox.calls[-2:] == [(2, "a"), (2, "b")]


async def test_release_ends_the_session_and_forgets_the_key() -> None:
    sandbox = ScriptedSandbox(echo)
    async with SessionBook(sandbox) as book:
        await book.run("r", "c1", "a")
        await book.run("s", "c1", "a")
        await book.release("r")
        await book.release("r")
        await book.release("unknown")
        assert sandbox.open == 1
        await book.run("r", "c1", "a")
        assert sandbox.sessions == 3
    assert sandbox.open == 0


async def test_a_failing_sandbox_is_an_error_and_the_next_call_tries_anew() -> None:
    class Flaky(ScriptedSandbox):
        failures = 1

        async def session(self) -> Session:
            if self.failures:
                self.failures -= 1
                raise SandboxError("no engine")
            return await super().session()

    book = SessionBook(Flaky(echo))
    with pytest.raises(SandboxError):
        await book.run("r", "c1", "a")
    assert (await book.run("r", "c1", "a")).ok


@pytest.mark.docker
async def test_over_containers_a_killed_one_costs_nothing_but_time() -> None:
    from toolreason.execution import Limits, open_sandbox

    async with open_sandbox("docker", Limits(), pool=1) as sandbox:
        book = SessionBook(sandbox)
        await book.run("r", "c1", "x = 20")
        await book._entries["r"].session.close()  # type: ignore[union-attr]
        assert (await book.run("r", "c2", "x + 1", history=[("c1", "x = 20")])).value == "21"
