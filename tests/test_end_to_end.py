"""A real model, a real tokenizer, real containers: what the other tests show with fakes holds when nothing is one.

The smallest model solves little. These tests are about mechanics: that its code runs, and that every token is where it belongs.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from tests.exactness import Recorder, check
from toolreason import runs
from toolreason.execution import Limits, SessionBook
from toolreason.execution.docker import DockerSandbox
from toolreason.execution.engine import Engine
from toolreason.graphs import artist
from toolreason.graphs.state import RolloutContext
from toolreason.policies import TransformersPolicy
from toolreason.rollouts import rollout
from toolreason.strategies.artist import ArtistSettings
from toolreason.strategies.base import Settings
from toolreason.strategies.hint_infer import HintInferSettings
from toolreason.strategies.plain import PlainSettings
from toolreason.types import Outcome, Problem, Source, StopReason

pytestmark = [pytest.mark.model, pytest.mark.docker]

LIMITS = Limits(cell_timeout_s=20, memory_mb=256)
POWER = Problem("power", "What is 2 ** 10?")
TIMES = Problem("times", "What is 6 times 7?")
FENCED = ArtistSettings(format="fenced", stateful=True, max_tokens=100, max_calls=2)
START = HintInferSettings(max_tokens=120, max_calls=2)
END = HintInferSettings(hint="end", max_tokens=200, max_calls=2)
ROUNDS = HintInferSettings(hint="random", rounds=3, max_tokens=400, min_prefix_tokens=0, max_calls=2)
CONTROL = HintInferSettings(execute=False, max_tokens=40)


@pytest.fixture(scope="module")
def model(small_model: Path) -> Iterator[TransformersPolicy]:
    """Loaded once, in float32 and greedy: draws do not depend on the shape of the batch."""
    policy = asyncio.run(TransformersPolicy.load(str(small_model), dtype="float32"))
    yield policy
    asyncio.run(policy.aclose())


@pytest.fixture
async def sessions() -> AsyncIterator[SessionBook]:
    async with DockerSandbox(LIMITS, pool=1) as sandbox:
        yield SessionBook(sandbox)


@pytest.mark.parametrize(
    ("strategy", "problem", "settings", "sources"),
    [
        ("plain", TIMES, PlainSettings(max_tokens=40), ["prompt", "model"]),
        ("artist", POWER, FENCED, ["prompt", "model", "tool", "model"]),
        ("hint_infer", TIMES, START, ["prompt", "hint", "model", "tool", "model"]),
        ("hint_infer", TIMES, END, ["prompt", "model", "hint", "model", "tool", "model"]),
        ("hint_infer", TIMES, ROUNDS, ["prompt", "model", "hint", "model"]),
        ("hint_infer", TIMES, CONTROL, ["prompt", "hint", "model"]),
    ],
    ids=["plain", "artist", "hint at the start", "hint at the end", "hint at random, three rounds", "not executed"],
)
async def test_every_token_is_what_the_model_was_given_and_gave_back(
    model: TransformersPolicy, sessions: SessionBook, strategy: str, problem: Problem, settings: Settings, sources: list[str]
) -> None:
    policy = Recorder(model)
    done = await rollout(problem, strategy=strategy, policy=policy, sessions=sessions, settings=settings)
    assert done.error is None
    assert done.stop is not StopReason.ABORTED
    check(policy, done)
    assert [segment.source.value for segment in done.segments][: len(sources)] == sources
    assert all(cell.result.outcome is Outcome.OK for cell in done.cells)
    assert done.tokens(Source.MODEL, Source.HINT) <= settings.max_tokens


async def test_a_run_taken_up_after_its_call_ends_with_the_same_segments(model: TransformersPolicy, sessions: SessionBook) -> None:
    graph = artist.build(FENCED).compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t"}}
    start = {"problem": POWER, "key": "k"}
    done = (await graph.ainvoke(start, config, context=RolloutContext(model, sessions), durability="sync"))["trajectory"]
    assert done.cells
    snapshots = [snapshot async for snapshot in graph.aget_state_history(config)]
    called = next(s for s in reversed(snapshots) if any(segment.source is Source.TOOL for segment in s.values.get("segments", ())))
    policy = Recorder(model)
    again = (await graph.ainvoke(None, called.config, context=RolloutContext(policy, sessions)))["trajectory"]
    assert again.segments == done.segments
    assert 0 < len(policy.exchanges) < sum(segment.source is Source.MODEL for segment in done.segments)


@pytest.mark.timeout(280)
def test_a_collection_that_is_killed_goes_on_and_leaves_no_container(small_model: Path, tmp_path: Path) -> None:
    rows = [{"id": f"p{n}", "question": f"What is {n} times 7?", "answer": str(7 * n)} for n in range(6, 9)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [
        *(sys.executable, "-m", "toolreason.cli", "collect", "p.jsonl", "--out", "run", "--strategy", "hint_infer", "--json"),
        *("--policy", f"transformers:{small_model}", "--set", "max_tokens=60", "--concurrency", "1"),
    ]
    log = tmp_path / "run" / "trajectories.jsonl"
    with (
        (tmp_path / "err.txt").open("w") as errors,
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True) as process,
    ):
        try:
            deadline = time.monotonic() + 120
            while not (log.exists() and log.read_bytes().count(b"\n")):
                assert process.poll() is None, (tmp_path / "err.txt").read_text()
                assert time.monotonic() < deadline, "no rollout was kept"
                time.sleep(0.05)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    kept = log.read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    after = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    assert after.returncode == 0, after.stderr
    assert json.loads(after.stdout)["finished"] == len(rows)
    assert log.read_bytes().startswith(kept)
    done = list(runs.read(tmp_path / "run"))
    assert sorted(trajectory.problem_id for trajectory in done) == [row["id"] for row in rows]
    client = Engine.find().client()
    try:
        left = client.api.containers(all=True, filters={"label": f"toolreason.sandbox.pid={process.pid}"})
    finally:
        client.close()
    assert left == []
