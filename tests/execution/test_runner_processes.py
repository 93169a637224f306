"""What the wire process knows of processes, seen from outside a container."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from toolreason.execution.image import source


@pytest.fixture
def runner_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(source()))
    import runner_processes

    yield runner_processes
    for name in [name for name in sys.modules if name.startswith("runner")]:
        del sys.modules[name]


def test_a_process_that_got_the_id_of_a_killed_one_is_another(runner_processes: Any) -> None:
    processes = runner_processes.Processes(own_ids=False)
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            processes.killed(child.pid)
            assert not processes.is_new(child.pid)  # it is dying
            processes.dying[child.pid] = runner_processes.born(child.pid) - 1  # it was killed before this one was born
            assert processes.is_new(child.pid)
            assert child.pid not in processes.dying
            assert processes.first_new([child.pid]) == child.pid
        finally:
            child.kill()


HUGE = """
import re, sys
sys.path.insert(0, sys.argv[1])
from runner_system import huge_pages
held = [bytearray(1 << 23) for _ in range(4)]
for one in held:
    one[::4096] = b"x" * len(one[::4096])
def huge():
    return int(re.search(r"AnonHugePages: +(\\d+)", open("/proc/self/smaps_rollup").read())[1])
before = huge()
huge_pages()
print(before, huge(), all(one[4096] == ord("x") for one in held))
"""


def test_memory_goes_into_huge_pages_and_keeps_its_content() -> None:
    """Where the kernel has them (Linux 6.1): else nothing changes."""
    command = [sys.executable, "-c", HUGE, str(source())]
    before, after, kept = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert kept == "True"
    release = tuple(map(int, re.findall(r"\d+", Path("/proc/sys/kernel/osrelease").read_text())[:2]))
    assert int(after) > int(before) if release >= (6, 1) else int(after) >= int(before)


def test_the_clock_of_a_cell_starts_when_it_is_seen_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(source()))
    import runner_watch

    settings = {"cell_cpu_s": None, "cpus": 1.0, "output_chars": 100}
    cell = runner_watch.CellRun(settings, {"id": 1, "code": "", "timeout_s": 5, "keep": True}, 1)
    ordered = cell.ordered
    cell.look(ordered + 0.1, begun=True)
    assert (cell.begun, cell.deadline) == (True, ordered + 5)  # it began at once
    late = runner_watch.CellRun(settings, {"id": 1, "code": "", "timeout_s": 5, "keep": True}, 1)
    late.look(late.ordered + 7, begun=False)
    late.look(late.ordered + 8, begun=True)
    assert (late.begun, late.deadline) == (True, late.ordered + 12)  # it has its five seconds yet
    for name in [name for name in sys.modules if name.startswith("runner")]:
        del sys.modules[name]


def test_only_the_process_of_a_cell_reports_or_who_it_says_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(source()))
    import runner_links
    import runner_watch

    settings = {"cell_cpu_s": None, "cpus": 1.0, "output_chars": 100}
    said = runner_links.pack(["ok", "plain"], ["X", None, None])
    cell = runner_watch.CellRun(settings, {"id": 1, "code": "", "timeout_s": 5, "keep": True}, 7)
    cell.hear(said, 8, [])
    assert cell.report is None  # a process that the cell has forked, or one of an earlier cell
    cell.hear(said, 7, [])
    assert (cell.pid, cell.report["value"]) == (7, "X")
    other = runner_watch.CellRun(settings, {"id": 1, "code": "", "timeout_s": 5, "keep": True}, 7)
    other.hear(runner_links.pack(["sheds"], []), 8, [])
    other.hear(said, 8, [])
    assert other.report is None
    other.hear(runner_links.pack(["sheds"], []), 7, [])
    other.hear(said, 8, [])
    assert (other.pid, other.report["value"]) == (8, "X")
    for name in [name for name in sys.modules if name.startswith("runner")]:
        del sys.modules[name]
