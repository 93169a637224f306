"""A run goes on from any checkpoint with equal segments, under strict msgpack, in memory and in a file."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from toolreason.graphs import artist, hint_infer
from toolreason.graphs.state import RolloutContext
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.strategies.artist import ArtistSettings
from toolreason.strategies.hint_infer import HintInferSettings
from toolreason.types import CellResult, Outcome, Problem, Segment

from .conftest import FakeSessions

PROBLEM = Problem("p1", "What is 6 times 7? 🧮")


def script(prompt: str, index: int) -> str:
    """What is said depends on what was said, as with a real model: a resumed run must not depend on a count of calls."""
    said = prompt.rpartition("<|im_start|>assistant\n")[2]
    if "```output" in said or said.count("```output") == 1:
        return "So it is \\boxed{42}. 日本"
    if "use Python" in said:
        return "print(6*7)\n```\n\n"
    return "Hm, maybe 41. Wait, no.\n```python\nprint(6*7)\n```\n"


def fresh() -> tuple[RolloutContext, FakeSessions]:
    """What a new process has: another policy object, no session."""
    sessions = FakeSessions(lambda code: CellResult(Outcome.OK, "42\n", value="é"))
    return RolloutContext(ScriptedPolicy(script), sessions), sessions


@pytest.fixture(params=["memory", "sqlite"])
async def saver(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    if request.param == "memory":
        yield InMemorySaver()
        return
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "checkpoints.sqlite")) as sqlite:
        yield sqlite


GRAPHS = [
    artist.build(ArtistSettings(format="fenced")),
    hint_infer.build(HintInferSettings(hint="start")),
    hint_infer.build(HintInferSettings(hint="end")),
    hint_infer.build(HintInferSettings(hint="random", min_prefix_tokens=0, rounds=2)),
]
NAMES = ["artist", "hint start", "hint end", "hint random, two rounds"]


@pytest.mark.parametrize("graph", GRAPHS, ids=NAMES)
async def test_a_run_resumed_at_any_checkpoint_ends_with_the_same_segments(graph: Any, saver: Any) -> None:
    compiled = graph.compile(checkpointer=saver)
    config = {"configurable": {"thread_id": "t"}}
    context, sessions = fresh()
    done = await compiled.ainvoke({"problem": PROBLEM, "key": "k"}, config, context=context, durability="sync")
    expected: list[Segment] = list(done["trajectory"].segments)
    assert sessions.ran
    snapshots = [snapshot async for snapshot in compiled.aget_state_history(config)]
    assert len(snapshots) >= 6
    for snapshot in snapshots[1:]:
        if "problem" not in snapshot.values:  # before the input was read
            continue
        context, sessions = fresh()
        again = await compiled.ainvoke(None, snapshot.config, context=context)
        assert list(again["trajectory"].segments) == expected
        assert all(type(segment.token_ids) is tuple for segment in again["trajectory"].segments)


@pytest.mark.parametrize("graph", GRAPHS, ids=NAMES)
async def test_a_run_that_dies_at_any_step_goes_on_with_the_same_segments(graph: Any, saver: Any) -> None:
    compiled = graph.compile(checkpointer=saver)
    context, _ = fresh()
    whole = await compiled.ainvoke({"problem": PROBLEM, "key": "k"}, {"configurable": {"thread_id": "whole"}}, context=context)
    for step in range(3):
        config = {"configurable": {"thread_id": f"dies at {step}"}}

        def dies(prompt: str, index: int, step: int = step) -> Any:
            return RuntimeError("killed") if index == step else script(prompt, index)

        doomed = RolloutContext(ScriptedPolicy(dies), fresh()[1])
        try:
            await compiled.ainvoke({"problem": PROBLEM, "key": "k"}, config, context=doomed, durability="sync")
        except RuntimeError:
            context, _ = fresh()
            await compiled.ainvoke(None, config, context=context)
        state = (await compiled.aget_state(config)).values
        assert list(state["trajectory"].segments) == list(whole["trajectory"].segments)


async def test_a_resumed_run_names_its_calls_as_before_and_hands_over_the_cells_that_ran(saver: Any) -> None:
    def twice(prompt: str, index: int) -> Any:
        calls = prompt.count("```output")
        if calls == 1 and index == 1:
            return RuntimeError("killed")
        return "\\boxed{1}" if calls == 2 else f"```python\nx = {calls}\n```\n"

    compiled = artist.build(ArtistSettings(format="fenced", stateful=True)).compile(checkpointer=saver)
    config = {"configurable": {"thread_id": "t"}}
    first, second = FakeSessions(lambda code: CellResult(Outcome.OK)), FakeSessions(lambda code: CellResult(Outcome.OK))
    with pytest.raises(RuntimeError):
        await compiled.ainvoke(
            {"problem": PROBLEM, "key": "k"}, config, context=RolloutContext(ScriptedPolicy(twice), first), durability="sync"
        )
    done = await compiled.ainvoke(None, config, context=RolloutContext(ScriptedPolicy(twice), second))
    assert [call_id for _, call_id, _ in first.ran] == ["k:0"]
    assert [call_id for _, call_id, _ in second.ran] == ["k:1"]
    assert second.histories == [[("k:0", "x = 0\n")]]
    assert [cell.call_id for cell in done["trajectory"].cells] == ["k:0", "k:1"]
