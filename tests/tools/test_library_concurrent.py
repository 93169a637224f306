"""Many writers at once, in processes of their own: nothing that was said to be done is lost, and numbers are given once."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from langgraph.store.memory import InMemoryStore

from tests.tools.packages import tool
from toolreason.errors import InfrastructureError
from toolreason.tools import log
from toolreason.tools.library import Library, open_library
from toolreason.tools.package import ToolPackage
from toolreason.tools.stores import Place

ROOT = Path(__file__).parent.parent.parent
WRITERS, ROUNDS = 4, 15


def writer(spec: str, number: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.tools.writer", spec, str(number), str(count)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


async def test_four_processes_lose_nothing_and_give_each_number_once(shared_spec: str) -> None:
    processes = [writer(shared_spec, number, ROUNDS) for number in range(WRITERS)]
    outputs = [await asyncio.to_thread(process.communicate, timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0] * WRITERS, outputs
    told = [line.split() for out, _ in outputs for line in out.splitlines()]
    async with open_library(shared_spec) as library:
        numbers = [package.version for package in await library.history("shared")]
        assert numbers == list(range(1, WRITERS * ROUNDS + 1))
        assert sorted(int(line[1]) for line in told if line[0] == "version") == numbers, "no number was given twice"
        for number in range(WRITERS):
            assert [package.version for package in await library.history(f"own_{number}")] == list(range(1, ROUNDS + 1))
        usage = await library.usage("shared")
        assert {problem: use.calls for problem, use in usage.by_problem.items()} == {f"p{n}": ROUNDS for n in range(WRITERS)}
        assert len(await library.events()) == 2 * WRITERS * ROUNDS
        assert len({event.clock for event in await library.events()}) == 2 * WRITERS * ROUNDS


async def test_a_killed_writer_leaves_what_it_was_told_is_done_and_a_library_that_others_write(shared_spec: str) -> None:
    for attempt in range(3):
        process = writer(shared_spec, attempt, 10_000)
        assert process.stdout is not None
        lines = [process.stdout.readline().split() for _ in range(20 + 7 * attempt)]
        os.kill(process.pid, signal.SIGKILL)
        rest, _ = await asyncio.to_thread(process.communicate, timeout=60)
        whole = rest.rpartition("\n")[0]
        lines += [line.split() for line in whole.splitlines()]
        async with open_library(shared_spec) as library:
            own = [package.version for package in await library.history(f"own_{attempt}")]
            assert own == list(range(1, len(own) + 1))
            assert len(own) >= max(int(line[1]) for line in lines if line[0] == "own")
            used = (await library.usage("shared")).by_problem[f"p{attempt}"].calls
            assert used >= sum(line[0] == "use" for line in lines)
            after = await library.add(tool("shared", body=f"return 'after {attempt}'"))
            assert after.version == len(await library.history("shared"))


async def test_threads_with_loops_of_their_own_lose_nothing(shared_spec: str) -> None:
    async def add(number: int) -> None:
        async with open_library(shared_spec) as library:
            for round in range(5):
                await library.add(tool("shared", body=f"return {number * 100 + round}"))

    threads = [threading.Thread(target=asyncio.run, args=(add(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    async with open_library(shared_spec) as library:
        assert [package.version for package in await library.history("shared")] == list(range(1, 21))


class SlowStore(InMemoryStore):
    """A store that takes its time, so that others come in between; it fails where told to."""

    failing = 0

    async def abatch(self, ops: Any) -> Any:
        ops = list(ops)
        await asyncio.sleep(0.001)
        result = await super().abatch(ops)
        await asyncio.sleep(0.001)
        if self.failing:
            self.failing -= 1
            raise OperationalError("the connection was lost, and whether it was written is not known")
        return result


class OperationalError(Exception):
    pass


async def test_without_a_lock_two_that_claim_one_number_both_survive_and_all_agree() -> None:
    store = SlowStore()
    place = Place(store, nullcontext, exclusive=False)
    libraries = [Library(place, ("x",)) for _ in range(3)]

    async def add(number: int) -> None:
        for round in range(10):
            await libraries[number].add(tool("shared", body=f"return {100 * number + round}"))

    await asyncio.gather(*map(add, range(3)))
    claimed = [entry.value["json"] for entry in await store.asearch(("x", "entries"), limit=100)]
    assert sum('"clock": 1,' in content for content in claimed) > 1, "they did meet"
    histories = [await library.history("shared") for library in libraries]
    assert [package.version for package in histories[0]] == list(range(1, 31))
    assert len({package.hash for package in histories[0]}) == 30
    assert histories[0] == histories[1] == histories[2]
    heads = [await library.get("shared") for library in libraries]
    assert heads[0] == heads[1] == heads[2]
    for library in libraries:
        library.close()


async def test_a_connection_that_fails_for_a_moment_costs_nothing_and_doubles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    store = SlowStore()
    monkeypatch.setattr(log, "WAIT_S", 0.001)
    async with open_library(store) as library:
        for number in range(5):
            store.failing = 2
            assert (await library.add(tool("shared", body=f"return {number}"))).version == number + 1
        store.failing = 1000
        with pytest.raises(InfrastructureError, match="the connection was lost"):
            await library.add(tool("shared", body="return 99"))
        store.failing = 0
        last: ToolPackage = await library.add(tool("shared", body="return 100"))
        assert last.version in (6, 7), "the one whose fate was unknown may be there"
        assert [package.version for package in await library.history("shared")] == list(range(1, last.version + 1))
