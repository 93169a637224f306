"""Worker processes: nothing outlasts its limit, and nothing is left behind.

verl PR #5635 and Math-Verify #55: `signal.alarm` in threads made every reward silently 0. verifiers PR #652: a dead worker was
taken for a timeout.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from toolreason.errors import VerifierError
from toolreason.verify.workers import Overtime, Workers


def alive(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def gone_soon(pid):
    deadline = time.monotonic() + 30
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


async def begun(pool):
    async with asyncio.timeout(30):
        while not pool._busy:  # noqa: ASYNC110 (a test's look inside)
            await asyncio.sleep(0)


@pytest.fixture
async def workers():
    pool = Workers(1)
    yield pool
    await pool.aclose()


async def test_a_job_runs_in_a_process_of_its_own_that_is_used_again(workers):
    pid = await workers.run("os:getpid", timeout_s=30)
    assert pid != os.getpid()
    assert await workers.run("os:getpid", timeout_s=30) == pid


async def test_nothing_starts_before_the_first_job_and_closing_ends_all():
    pool = Workers(2)
    assert not pool._idle
    pid = await pool.run("os:getpid", timeout_s=30)
    await pool.aclose()
    await pool.aclose()
    assert not alive(pid)
    with pytest.raises(VerifierError, match="closed"):
        await pool.run("os:getpid", timeout_s=30)


@pytest.mark.parametrize(("function", "args"), [("time:sleep", (600,)), ("builtins:pow", (9, 9**9))])
async def test_a_job_past_its_limit_is_ended_even_in_one_long_instruction(workers, function, args):
    pid = await workers.run("os:getpid", timeout_s=30)
    with pytest.raises(Overtime):
        await workers.run(function, *args, timeout_s=0.2)
    assert not alive(pid)
    assert await workers.run("math:sqrt", 4, timeout_s=30) == 2


@pytest.mark.parametrize(("function", "args"), [("os:_exit", (0,)), ("os:abort", ())])
async def test_a_dead_worker_is_an_error_of_its_own_and_replaced(workers, function, args):
    with pytest.raises(VerifierError, match="died"):
        await workers.run(function, *args, timeout_s=30)
    assert await workers.run("math:sqrt", 4, timeout_s=30) == 2


async def test_a_worker_that_died_idle_is_replaced(workers):
    pid = await workers.run("os:getpid", timeout_s=30)
    os.kill(pid, signal.SIGKILL)
    assert await asyncio.to_thread(gone_soon, pid)
    assert await workers.run("os:getpid", timeout_s=30) != pid


async def test_a_function_that_raises_keeps_its_worker(workers):
    pid = await workers.run("os:getpid", timeout_s=30)
    with pytest.raises(VerifierError, match="ValueError"):
        await workers.run("math:sqrt", -1, timeout_s=30)
    assert await workers.run("os:getpid", timeout_s=30) == pid


async def test_memory_is_bounded(workers):
    with pytest.raises(VerifierError, match="MemoryError"):
        await workers.run("builtins:bytearray", 4 << 30, timeout_s=30)


async def test_programs_and_files_are_out_of_reach(workers, tmp_path):
    for function, args in [
        ("os:system", (f"touch {tmp_path}/a",)),
        ("builtins:open", (f"{tmp_path}/a", "w")),
        ("os:fork", ()),
        ("socket:socket", ()),
    ]:
        with pytest.raises(VerifierError, match="not allowed"):
            await workers.run(function, *args, timeout_s=30)
    assert list(tmp_path.iterdir()) == []


async def test_workers_are_recycled():
    pool = Workers(1, recycle=1)
    pids = [await pool.run("os:getpid", timeout_s=30) for _ in range(2)]
    await pool.aclose()
    assert pids[0] != pids[1]
    assert not any(map(alive, pids))


async def test_control_c_does_not_reach_a_worker(workers):
    pid = await workers.run("os:getpid", timeout_s=30)
    os.kill(pid, signal.SIGINT)
    assert await workers.run("os:getpid", timeout_s=30) == pid


async def test_a_cancelled_job_ends_its_worker(workers):
    pid = await workers.run("os:getpid", timeout_s=30)
    job = asyncio.create_task(workers.run("time:sleep", 600, timeout_s=600))
    await begun(workers)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert not alive(pid)


async def test_closing_ends_a_running_job():
    pool = Workers(1)
    pid = await pool.run("os:getpid", timeout_s=30)
    job = asyncio.create_task(pool.run("time:sleep", 600, timeout_s=600))
    await begun(pool)
    await pool.aclose()
    with pytest.raises(VerifierError):
        await job
    assert not alive(pid)


SCRIPT = """
import asyncio, signal
from toolreason.verify.workers import Workers
async def main():
    print(await Workers(1).run("os:getpid", timeout_s=60), flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_worker_outlives_its_parent_nor_needs_a_main_module(number):
    parent = subprocess.Popen(
        [sys.executable, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with parent:
        parent.stdin.write(SCRIPT)
        parent.stdin.close()
        worker = int(parent.stdout.readline())
        parent.send_signal(number)
        try:
            parent.wait(30)
        finally:
            parent.kill()
    assert gone_soon(worker)
