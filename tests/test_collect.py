"""Collecting: bounded, resumable, stoppable. Rollouts here are scripted, so that each property is about the collection alone."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from toolreason import collect as collecting
from toolreason import runs
from toolreason.collect import collect
from toolreason.errors import CapabilityError, InfrastructureError, InputError, SandboxError
from toolreason.policies.gauge import Gauge
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.rollouts import rollout
from toolreason.runs import Key, Manifest, RunWriter
from toolreason.stats import Summary, Tally
from toolreason.types import Judgement, Problem, Sampling, Segment, Source, StopReason, Trajectory, Verdict

PROBLEMS = [Problem(f"p{i}", f"{i} + 1?") for i in range(6)]
MANIFEST = Manifest("plain", {}, "scripted", Sampling(), "here", "hash")


def trajectory(problem: Problem, sample: int = 0, stop: StopReason = StopReason.ANSWERED, **more: Any) -> Trajectory:
    segments = (Segment(Source.MODEL, "42", (52, 50)),)
    return Trajectory(f"{problem.id}.{sample}", problem.id, "plain", "scripted", segments, stop, sample, **more)


async def right(problem: Problem, trajectory: Trajectory) -> Verdict:
    return Verdict(Judgement.CORRECT, "42")


async def run(path: Path, rollout: Callable[..., Awaitable[Trajectory]], **more: Any) -> Summary:
    with RunWriter.open(path, MANIFEST) as writer:
        given: dict[str, Any] = {"strategy": "plain", "policy": ScriptedPolicy([]), "sessions": None, "verifier": right, **more}
        problems = given.pop("problems", PROBLEMS)
        return await collect(problems, writer=writer, rollout=rollout, **given)


async def test_every_sample_of_every_problem_is_rolled_out_once_with_its_own_seed(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []

    async def rollout(problem: Problem, *, sample: int, sampling: Sampling, **_: Any) -> Trajectory:
        seen.append((problem.id, sample, sampling.seed))
        await asyncio.sleep(0)
        return trajectory(problem, sample)

    summary = await run(tmp_path, rollout, samples=3, concurrency=4, sampling=Sampling(seed=100))
    assert sorted(seen) == [(p.id, i, 100 + i) for p in PROBLEMS for i in range(3)]
    assert (summary.total, summary.finished, summary.accuracy) == (18, 18, 1.0)
    assert {Key(t.problem_id, t.sample) for t in runs.read(tmp_path)} == {Key(p.id, i) for p in PROBLEMS for i in range(3)}


async def test_no_more_than_the_asked_number_is_in_flight(tmp_path: Path) -> None:
    now = most = 0

    async def rollout(problem: Problem, **_: Any) -> Trajectory:
        nonlocal now, most
        now += 1
        most = max(most, now)
        for _turn in range(3):
            await asyncio.sleep(0)
        now -= 1
        return trajectory(problem)

    many = [Problem(str(i), "") for i in range(300)]
    tasks = 0

    def progress(_: Any) -> None:
        nonlocal tasks
        tasks = max(tasks, len(asyncio.all_tasks()))

    await run(tmp_path, rollout, problems=many, concurrency=5, on_progress=progress)
    assert most == 5
    assert tasks < 10  # not one task a problem


async def test_what_is_done_is_not_done_again_and_still_counts(tmp_path: Path) -> None:
    calls: Counter[str] = Counter()

    async def rollout(problem: Problem, **_: Any) -> Trajectory:
        calls[problem.id] += 1
        return trajectory(problem)

    await run(tmp_path, rollout, problems=PROBLEMS[:4])
    reports: list[int] = []
    summary = await run(tmp_path, rollout, on_progress=lambda tally: reports.append(tally.finished))
    assert calls == {p.id: 1 for p in PROBLEMS}
    assert (summary.finished, summary.resumed, summary.scored) == (6, 4, 6)
    assert reports == [4, 5, 6]
    again = await run(tmp_path, rollout)
    assert (again.finished, again.resumed) == (6, 6)
    assert calls.total() == 6


async def test_aborted_rollouts_are_no_wrong_answers_and_are_done_again(tmp_path: Path) -> None:
    async def broken(problem: Problem, **_: Any) -> Trajectory:
        return trajectory(problem, stop=StopReason.ABORTED if problem.id == "p0" else StopReason.ANSWERED, error="engine gone")

    first = await run(tmp_path, broken)
    assert (first.aborted, first.finished, first.scored, first.accuracy) == (1, 5, 5, 1.0)
    assert next(t for t in runs.read(tmp_path) if t.problem_id == "p0").verdict is None

    async def mended(problem: Problem, **_: Any) -> Trajectory:
        return trajectory(problem)

    assert (await run(tmp_path, mended)).finished == 6


async def test_a_row_of_failures_ends_the_run_and_keeps_what_was_finished(tmp_path: Path) -> None:
    tried = 0

    async def rollout(problem: Problem, **_: Any) -> Trajectory:
        nonlocal tried
        tried += 1
        ok = tried == 1
        return trajectory(problem, stop=StopReason.ANSWERED if ok else StopReason.ABORTED, error=None if ok else "no engine")

    many = [Problem(str(i), "") for i in range(500)]
    with pytest.raises(InfrastructureError, match=r"10 rollouts in a row failed, the last with: no engine.*doctor"):
        await run(tmp_path, rollout, problems=many, concurrency=2)
    assert tried < 20
    assert [t.problem_id for t in runs.read(tmp_path) if t.stop is StopReason.ANSWERED] == ["0"]


async def test_a_verifier_that_fails_leaves_the_rollout_unscored(tmp_path: Path) -> None:
    async def rollout(problem: Problem, **_: Any) -> Trajectory:
        return trajectory(problem)

    async def verifier(problem: Problem, trajectory: Trajectory) -> Verdict:
        raise SandboxError("no container")

    summary = await run(tmp_path, rollout, verifier=verifier)
    assert (summary.unscored, summary.scored, summary.accuracy) == (6, 0, None)
    assert summary.unscored_reasons == {"the verifier failed: no container": 6}


@pytest.mark.parametrize("error", [CapabilityError("text only"), RuntimeError("a bug")])
async def test_an_error_that_no_rollout_can_mend_ends_the_run(tmp_path: Path, error: Exception) -> None:
    ended = 0

    async def rollout(problem: Problem, **_: Any) -> Trajectory:
        nonlocal ended
        if problem.id == "p1":
            raise error
        try:
            await asyncio.Event().wait()
        finally:
            ended += 1
        raise AssertionError

    with pytest.raises(type(error), match=str(error)):
        await run(tmp_path, rollout, concurrency=3)
    assert ended == 2  # the others were cancelled, and nothing new was started


async def test_cancelling_keeps_the_finished_and_ends_the_running(tmp_path: Path) -> None:
    kept, ended = asyncio.Event(), 0

    async def rollout(problem: Problem, **_: Any) -> Trajectory:
        nonlocal ended
        if problem.id in ("p0", "p1"):
            return trajectory(problem)
        try:
            await asyncio.Event().wait()
        finally:
            ended += 1
        raise AssertionError

    def progress(tally: Tally) -> None:
        if tally.finished == 2:
            kept.set()

    task = asyncio.ensure_future(run(tmp_path, rollout, concurrency=3, on_progress=progress))
    await asyncio.wait_for(kept.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 30)
    assert {t.problem_id for t in runs.read(tmp_path)} == {"p0", "p1"}
    assert ended >= 1


async def test_a_cancellation_that_a_rollout_swallows_still_ends_the_collection(tmp_path: Path) -> None:
    running, started = asyncio.Event(), 0

    async def rollout(problem: Problem, **_: Any) -> Trajectory:
        nonlocal started
        started += 1
        running.set()
        with contextlib.suppress(asyncio.CancelledError):  # what some library did
            await asyncio.Event().wait()
        return trajectory(problem)

    task = asyncio.ensure_future(run(tmp_path, rollout, concurrency=2))
    await asyncio.wait_for(running.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 30)
    assert started <= 2


async def test_a_rollout_that_loses_its_first_cancellation_and_waits_on_is_cancelled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "PATIENCE_S", 0.01)
    running = asyncio.Event()

    async def rollout(problem: Problem, **_: Any) -> Trajectory:
        running.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()
        raise AssertionError

    task = asyncio.ensure_future(run(tmp_path, rollout, concurrency=1))
    await asyncio.wait_for(running.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 30)


async def test_a_rollout_that_never_ends_does_not_hold_the_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "PATIENCE_S", 0.01)
    monkeypatch.setattr(collecting, "GRACE_S", 0.05)
    running, release = asyncio.Event(), asyncio.Event()

    async def rollout(problem: Problem, **_: Any) -> Trajectory:
        running.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return trajectory(problem)

    task = asyncio.ensure_future(run(tmp_path, rollout, concurrency=1))
    await asyncio.wait_for(running.wait(), 30)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=30)
    release.set()
    assert done
    assert task.cancelled()


async def test_a_rollout_cancelled_from_inside_is_a_failure_and_not_a_silent_loss(tmp_path: Path) -> None:
    async def rollout(problem: Problem, **_: Any) -> Trajectory:
        raise asyncio.CancelledError

    with pytest.raises(InfrastructureError, match="cancelled by something inside"):
        await asyncio.wait_for(run(tmp_path, rollout), 30)


async def test_two_problems_of_one_id_and_senseless_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two problems have the id 'p0'"):
        await run(tmp_path, None, problems=[PROBLEMS[0], PROBLEMS[0]])  # type: ignore[arg-type]
    for numbers in ({"samples": 0}, {"concurrency": 0}):
        with pytest.raises(InputError, match="at least 1"):
            await run(tmp_path, None, **numbers)  # type: ignore[arg-type]


async def test_no_problems_are_no_error(tmp_path: Path) -> None:
    assert (await run(tmp_path, None, problems=[])).total == 0  # type: ignore[arg-type]


async def test_text_that_an_engine_reports_from_outside_the_rollouts_context_is_streamed() -> None:
    class Threaded(ScriptedPolicy):
        async def sample(self, *args: Any, on_text: Any, **more: Any) -> Any:
            drawn = await super().sample(*args, **more)
            told = asyncio.Event()

            def tell() -> None:  # as an engine's thread does, through call_soon_threadsafe
                on_text(drawn.text)
                told.set()

            contextvars.Context().run(asyncio.get_running_loop().call_soon, tell)
            await told.wait()
            return drawn

    events: list[Any] = []
    done = await asyncio.wait_for(
        rollout(PROBLEMS[0], strategy="plain", policy=Gauge(Threaded(["the answer"])), on_event=events.append), 30
    )
    assert done.error is None
    assert any(event.get("text", "").startswith("the answer") for event in events)


# A collection in a process of its own, to be killed. Each finished key goes to stdout only after it was kept.
PROCESS = """
import asyncio, sys
from toolreason.collect import collect
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.runs import Manifest, RunWriter
from toolreason.types import *

async def rollout(problem, *, sample, policy, **_):
    drawn = await policy.sample([policy.prompt([{"role": "user", "content": problem.question}])], Sampling(), max_tokens=99)
    return Trajectory(problem.id + str(sample), problem.id, "plain", "scripted", (drawn.segment(),), StopReason.ANSWERED, sample)

async def right(problem, trajectory):
    return Verdict(Judgement.CORRECT)

async def main():
    problems = [Problem(f"p{i}", "?") for i in range(int(sys.argv[2]))]
    with RunWriter.open(sys.argv[1], Manifest("plain", {}, "scripted", Sampling(), "here", "hash")) as writer:
        def progress(tally):
            print(tally.finished, flush=True)
        policy = ScriptedPolicy(lambda prompt, i: "word " * 8, delay_s=float(sys.argv[3]))
        await collect(problems, strategy="plain", policy=policy, sessions=None, verifier=right, writer=writer,
                      samples=2, concurrency=8, on_progress=progress, rollout=rollout)

asyncio.run(main())
"""


def started(path: Path, problems: int, delay_s: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROCESS, str(path), str(problems), str(delay_s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def interrupted(path: Path, more: int, how: signal.Signals) -> tuple[int, int]:
    """Start, wait until `more` rollouts are reported beyond those from before, interrupt: (reported as done, exit code)."""
    with started(path, 1000, 0.01) as process:
        assert process.stdout is not None
        try:
            before = reported = int(process.stdout.readline())  # the readline ends with the process, and the process with its work
            while reported < before + more:
                reported = int(process.stdout.readline())
            process.send_signal(how)
            rest, _ = process.communicate(timeout=60)
            return int((str(reported) + "\n" + rest).split()[-1]), process.returncode
        finally:
            process.kill()


def keys_of(path: Path) -> Counter[tuple[str, int]]:
    data = (path / "trajectories.jsonl").read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    return Counter((row["problem_id"], row["sample"]) for row in map(json.loads, whole.splitlines()))


def test_a_collection_killed_at_any_instant_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    kept: Counter[tuple[str, int]] = Counter()
    for round_ in range(3):
        reported, code = interrupted(tmp_path, 5 + 4 * round_, signal.SIGKILL)
        assert code == -signal.SIGKILL
        now = keys_of(tmp_path)
        assert len(now) >= reported  # all that was reported as done is there
        assert not kept - now  # and all from before
        kept = now
    with started(tmp_path, len(kept), 0.0) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    final = keys_of(tmp_path)
    assert set(final) >= {(f"p{i}", sample) for i in range(len(kept)) for sample in range(2)}
    assert set(final.values()) == {1}  # nothing twice


def test_ctrl_c_ends_a_collection_soon_and_keeps_whole_lines(tmp_path: Path) -> None:
    reported, code = interrupted(tmp_path, 5, signal.SIGINT)
    assert code != 0
    assert (tmp_path / "trajectories.jsonl").read_bytes().endswith(b"\n")
    assert len(keys_of(tmp_path)) >= reported
    assert len(keys_of(tmp_path)) < 2000
