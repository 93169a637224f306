"""A rollout of `uct` that is cut off, retried, cancelled, or not alone, ends as if it had not been."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from tests.graphs.competent import CODE, TESTS, Competent
from tests.graphs.uct_runs import PROBLEM, SETTINGS, Run
from toolreason.errors import PolicyError, SandboxError, SessionLost
from toolreason.execution import SessionBook
from toolreason.execution.base import Sandbox, Session
from toolreason.graphs import uct
from toolreason.graphs.state import RolloutContext
from toolreason.policies.base import Completion
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.rollouts import rollout
from toolreason.tools.workshop import Workshop
from toolreason.types import CellResult, Sampling, Segment, StopReason, Trajectory

ZERO = "```python\nfrom toolbox import count_multiples\nprint(count_multiples(0, 100))\n```\n"
MENDED = CODE.replace("    return", '    if factor == 0:\n        raise ValueError("factor is 0")\n    return')


def told(done: Trajectory) -> list[tuple[Any, ...]]:
    """What has to be the same, times apart."""
    return [(one.source, one.text, one.token_ids, one.logprobs, one.cell and one.cell.call_id) for one in done.segments]


class Fresh:
    """What a new process has of a rollout: other objects, the same library."""

    def __init__(self, run: Run, competent: Competent) -> None:
        self.run, self.competent = run, competent

    async def __call__(self, graph: Any, given: Any, config: Any, policy: Any = None) -> Trajectory:
        async with SessionBook(self.run.sandbox) as book:
            workshop = Workshop(self.run.library, self.run.sandbox)
            context = RolloutContext(policy or self.competent.policy(), book, Sampling(), workshop)
            done = await graph.ainvoke(given, config, context=context, durability="sync")
        trajectory: Trajectory = done["trajectory"]
        return trajectory


async def test_from_any_checkpoint_of_a_build_the_end_is_the_same_and_nothing_is_doubled(run: Run) -> None:
    graph = uct.build(SETTINGS).compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    fresh = Fresh(run, Competent())
    whole = await fresh(graph, {"problem": PROBLEM, "key": "k"}, config)
    snapshots = [one async for one in graph.aget_state_history(config)]
    assert [one.next[0] for one in snapshots[1:-1]] == ["end", "think", "act", "think", "tell", "build", "think", "begin"]
    for snapshot in snapshots[1:-2]:
        again = await fresh(graph, None, snapshot.config)
        assert told(again) == told(whole)
        assert again.tooling == whole.tooling
        assert [one.token_ids for one in again.aside] == [one.token_ids for one in whole.aside]
    assert len(await run.library.history("count_multiples")) == 1
    assert (await run.library.usage("count_multiples")).calls == 1


async def test_from_any_checkpoint_of_a_repair_the_end_is_the_same(run: Run) -> None:
    await run(Competent(), replace(PROBLEM, id="p0"))
    graph = uct.build(SETTINGS).compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    fresh = Fresh(run, Competent(cell=ZERO, repair=[MENDED]))
    whole = await fresh(graph, {"problem": PROBLEM, "key": "k"}, config)
    assert whole.tooling is not None
    assert whole.tooling.repaired == ("count_multiples@2",)
    snapshots = [one async for one in graph.aget_state_history(config)]
    for snapshot in snapshots[1:-2]:
        if snapshot.next[0] in ("tell", "end", "build"):
            again = await fresh(graph, None, snapshot.config)
            assert told(again) == told(whole)
    assert len(await run.library.history("count_multiples")) == 2


async def test_a_policy_that_fails_in_the_builders_second_call_is_asked_again_for_that_call_alone(run: Run) -> None:
    competent, failed = Competent(), []

    def reply(prompt: str, index: int) -> Any:
        if "Write tests that show" in prompt and not failed:
            failed.append(index)
            return PolicyError("the engine is gone")
        return competent.reply(prompt, index)

    done = await run(ScriptedPolicy(reply, context_length=32_768))
    assert failed
    assert competent.asked == ["task", "code", "tests", "critic", "task", "task"]
    assert [one.strategy for one in done.aside] == ["build:code", "build:tests", "build:critic"]
    assert len(await run.library.history("count_multiples")) == 1


async def test_a_policy_that_goes_on_failing_aborts_and_is_not_asked_nine_times(run: Run) -> None:
    competent, asked = Competent(), []

    def reply(prompt: str, index: int) -> Any:
        if "Write tests that show" in prompt:
            asked.append(index)
            return PolicyError("the engine is gone")
        return competent.reply(prompt, index)

    workshop = Workshop(run.library, run.sandbox)
    async with SessionBook(run.sandbox) as book:
        policy = ScriptedPolicy(reply, context_length=32_768)
        done = await rollout(PROBLEM, strategy="uct", policy=policy, sessions=book, settings=SETTINGS, workshop=workshop)
    assert done.stop is StopReason.ABORTED
    assert len(asked) == 3
    assert competent.asked == ["task", "code"]


class Proxy:
    """A sandbox whose sessions are counted, and fail where `fails(code)` says so."""

    def __init__(self, sandbox: Sandbox, fails: Any = lambda code: None) -> None:
        self.sandbox, self.fails, self.open, self.leased = sandbox, fails, 0, 0

    async def session(self) -> Session:
        session = await self.sandbox.session()
        self.open, self.leased = self.open + 1, self.leased + 1
        run, close = session.run, session.close

        async def watched(code: str, **options: Any) -> CellResult:
            if error := self.fails(code):
                raise error
            return await run(code, **options)

        async def closed() -> None:
            self.open -= 1
            await close()

        session.run, session.close = watched, closed  # type: ignore[method-assign]
        return session

    async def aclose(self) -> None:
        await self.sandbox.aclose()


def once(mark: str, error: Exception) -> Any:
    left = [error]
    return lambda code: left.pop() if left and mark in code and "_tallies" not in code else None


async def test_where_the_sandbox_fails_to_tell_nothing_is_built_again(run: Run) -> None:
    competent = Competent()
    proxy = Proxy(run.sandbox, once("Ready: from toolbox", SandboxError("no")))
    done = await Run(run.library, proxy)(competent)
    assert competent.asked == ["task", "code", "tests", "critic", "task", "task"]
    assert done.tooling is not None
    assert done.tooling.made == ("count_multiples@1",)


async def test_a_session_that_is_lost_after_a_tool_was_installed_has_it_again(run: Run) -> None:
    proxy = Proxy(run.sandbox, once("print(count_multiples(7, 100))", SessionLost("gone")))
    done = await Run(run.library, proxy)(Competent())
    assert proxy.leased == 3  # the rollout's, the trial's, and the one that took the lost one's place
    assert done.cells[-1].result.stdout == "14\n"
    assert done.tooling is not None
    assert done.tooling.used == ("count_multiples@1",)
    assert (await run.library.usage("count_multiples")).calls == 1
    assert proxy.open == 0


class Waits(ScriptedPolicy):
    """Calls `at_critic` before the critic speaks."""

    def __init__(self, competent: Competent, at_critic: Any) -> None:
        super().__init__(competent.reply, context_length=32_768)
        self._at_critic = at_critic

    async def sample(self, segments: Sequence[Segment], sampling: Sampling, **options: Any) -> Completion:
        if "Review a tool" in "".join(one.text for one in segments):
            await self._at_critic()
        return await super().sample(segments, sampling, **options)


async def test_a_rollout_cancelled_in_a_build_leaves_no_session_and_no_tool_on_offer(run: Run) -> None:
    proxy, reached = Proxy(run.sandbox), asyncio.Event()

    async def for_ever() -> None:
        reached.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(Run(run.library, proxy)(Waits(Competent(), for_ever)))
    await asyncio.wait_for(reached.wait(), 120)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert proxy.open == 0
    assert await run.library.search("multiples") == []
    assert (await run(Competent())).stop is StopReason.ANSWERED


async def both_at_once(run: Run, first: Competent, second: Competent) -> list[Trajectory]:
    """Two rollouts whose candidates have passed the trial before either is kept."""
    barrier = asyncio.Barrier(2)

    async def meet() -> None:
        await barrier.wait()

    other = replace(PROBLEM, id="p2")
    return list(await asyncio.gather(run(Waits(first, meet), attempts=1), run(Waits(second, meet), other, attempts=1)))


async def test_two_rollouts_that_make_the_same_tool_at_once_make_one(run: Run) -> None:
    first, second = await both_at_once(run, Competent(), Competent())
    assert first.tooling is not None
    assert second.tooling is not None
    assert first.tooling.made == second.tooling.made == ("count_multiples@1",)
    assert len(await run.library.history("count_multiples")) == 1


async def test_of_two_tools_of_one_name_made_at_once_the_second_has_to_pass_the_firsts_tests(run: Run) -> None:
    code = CODE.replace("most // factor", "(most - 1) // factor")
    tests = TESTS.replace("count_multiples(5, 5) == 1", "count_multiples(5, 5) == 0")
    done = await both_at_once(run, Competent(), Competent(code=[code], tests=[tests]))
    made = [one.tooling.made for one in done if one.tooling is not None]
    assert sorted(map(len, made)) == [0, 1]
    versions = await run.library.history("count_multiples")
    assert [one.status.value for one in versions].count("admitted") == 1


async def test_a_tool_that_another_rollout_has_mended_meanwhile_is_taken_and_not_repaired(run: Run) -> None:
    await run(Competent(), replace(PROBLEM, id="p0"))
    zero, rival = Competent(cell=ZERO), Competent(cell=ZERO, repair=[MENDED])
    done: list[Trajectory] = []

    class Rival(ScriptedPolicy):
        async def sample(self, segments: Sequence[Segment], sampling: Sampling, **options: Any) -> Completion:
            if not done:
                done.append(await run(rival, replace(PROBLEM, id="p1")))
            return await super().sample(segments, sampling, **options)

    late = await run(Rival(zero.reply, context_length=32_768), replace(PROBLEM, id="p2"), max_turns=2)
    assert "repair" not in zero.asked
    assert "Repaired: from toolbox import count_multiples" in "".join(cell.result.stdout for cell in late.cells)
    assert (await run.library.get("count_multiples")).version == 2


async def test_a_tool_that_a_person_took_back_meanwhile_is_not_brought_back_by_a_repair(run: Run) -> None:
    from toolreason.tools.package import Status

    await run(Competent(), replace(PROBLEM, id="p0"))
    competent = Competent(cell=ZERO, repair=[MENDED])

    class Person(ScriptedPolicy):
        async def sample(self, segments: Sequence[Segment], sampling: Sampling, **options: Any) -> Completion:
            await run.library.set_status("count_multiples", Status.DEPRECATED, "wrong")
            return await super().sample(segments, sampling, **options)

    done = await run(Person(competent.reply, context_length=32_768), max_turns=2)
    assert "repair" not in competent.asked
    assert done.tooling is not None
    assert "deprecated" in done.tooling.refused[0]
    assert (await run.library.get("count_multiples")).status is Status.DEPRECATED
