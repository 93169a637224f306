"""A library's health: each measure is of what it says, and the sandbox's word on coverage is bounded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.tools import samples
from tests.tools.packages import admitted
from toolreason.errors import SandboxError
from toolreason.execution import ScriptedSandbox, open_sandbox
from toolreason.execution.base import Sandbox
from toolreason.tools import signature
from toolreason.tools.admission import admit
from toolreason.tools.health import Run, coverage, each, health, run, run_all
from toolreason.tools.library import Library, open_library
from toolreason.tools.package import Status, Ticket, ToolPackage, Use
from toolreason.types import CellResult, Outcome


async def test_coverage_counts_the_lines_of_functions_that_tests_run(sandbox: Sandbox) -> None:
    assert await coverage(samples.digits(), sandbox) == (8, 8)  # the def too: to be called is to run it
    half = '''from functools import cache


def f(n: int) -> int:
    """Half of it."""
    if n < 0:
        return _never(n)
    return [one // 2 for one in [n]][0]


@cache
def _never(n: int) -> int:
    text = (
        "never"
    )
    return len(text)
'''
    tests = "from toolbox import f\ndef test_a():\n    assert f(4) == 2\ndef test_b():\n    assert f(7) == 3\n"
    lines, ran = await coverage(signature.package(half, tests), sandbox)
    assert (lines, ran) == (8, 3)  # of `_never` nothing; a statement over two lines is two lines


async def test_what_another_tool_runs_is_not_this_ones_coverage(sandbox: Sandbox) -> None:
    lines, ran = await coverage(samples.cube(), sandbox, [samples.square()])
    assert lines == ran == 2


async def test_tests_that_fail_or_trace_themselves_leave_a_number(sandbox: Sandbox) -> None:
    tests = samples.SQUARE_TESTS + "\ndef test_c():\n    import sys\n    sys.settrace(None)\n    assert square(1) == 2\n"
    assert await coverage(replace(samples.square(), tests=tests), sandbox) == (2, 2)
    endless = replace(samples.square(), tests=samples.SQUARE_TESTS + "\ndef test_c():\n    raise SystemExit\n")
    assert await coverage(endless, sandbox) == (0, 0)


@pytest.mark.parametrize(
    "value",
    ["None", "'7'", "'{}'", '\'{"lines": 900, "ran": 1}\'', '\'{"lines": 2, "ran": 3}\'', '\'{"lines": -1, "ran": -1}\'', "["],
)
async def test_what_cannot_be_is_no_coverage(value: str) -> None:
    sandbox = ScriptedSandbox(lambda code: CellResult(Outcome.OK, value=value))
    assert await coverage(samples.square(), sandbox) == (0, 0)


async def test_a_tool_is_run_with_what_it_imports_even_if_that_is_deprecated(library: Library, sandbox: Sandbox) -> None:
    for package in (samples.square(), samples.cube()):
        assert (await admit(library, package, sandbox)).admitted
    await library.set_status("square", Status.DEPRECATED, "old")
    assert await run(library, samples.cube(), sandbox) == Run(True, "", 2, 2)
    worse = replace(await library.get("square"), code=samples.SQUARE.replace("n * n", "n + n"))
    await library.add(replace(worse, status=Status.ADMITTED))
    after = await run(library, samples.cube(), sandbox)
    assert (after.ok, "test_three failed" in after.reason) == (False, True)
    orphan = replace(samples.cube(), code=samples.CUBE.replace("import square", "import squares"))
    assert "no tool 'squares'" in (await run(library, orphan, sandbox)).reason


async def test_a_failing_tool_is_tried_twice() -> None:
    """The first session is too slow; what passes in the second is no failing tool."""
    async with open_sandbox("local") as real, open_library("memory") as library:

        class Slow:
            sessions = 0

            async def session(self) -> object:
                self.sessions += 1
                if self.sessions > 1:
                    return await real.session()
                return await ScriptedSandbox(slow).session()

        def slow(code: str) -> CellResult:
            return CellResult(Outcome.OK if "names['install']" in code else Outcome.TIMEOUT)

        assert (await run(library, samples.square(), Slow())).ok  # type: ignore[arg-type]


async def test_a_sandbox_that_fails_says_nothing_of_a_tool(library: Library) -> None:
    def fails(code: str) -> Exception:
        return SandboxError("no engine")

    with pytest.raises(SandboxError, match="no engine"):
        await run_all(library, [samples.square(), samples.digits()], ScriptedSandbox(fails), {}, 2, lambda done, of: None)


async def test_equal_content_is_run_once_and_what_is_known_not_at_all(library: Library, sandbox: Sandbox) -> None:
    told: list[tuple[int, int]] = []
    square, known = samples.square(), {samples.digits().hash: Run(False, "known")}
    runs = await run_all(library, [samples.digits(), square], sandbox, known, 2, lambda done, of: told.append((done, of)))
    assert (runs[square.hash].ok, runs[samples.digits().hash].reason) == (True, "known")
    assert sorted(told) == [(1, 2), (2, 2)]


async def test_the_first_failure_ends_the_rest() -> None:
    ended: list[int] = []

    async def work(number: int) -> None:
        if number == 0:
            raise SandboxError("first")
        ended.append(number)

    with pytest.raises(SandboxError):
        await each(range(100), work, 1)
    assert len(ended) < 100


async def test_each_measure_is_of_what_it_says(library: Library) -> None:
    ticket = Ticket("need", problem_id="p0")
    made: list[ToolPackage] = [admitted("a", ticket=ticket), admitted("b"), admitted("c", body="return n + 1"), admitted("d")]
    await library.add_all(made)
    await library.set_status("d", Status.BROKEN, "it failed")
    for problem in ("p0", "p0", "p1"):
        await library.record(Use("b@1", problem, True))
    await library.record(Use("a@1", "p0", True))  # where it was made: no reuse
    heads = await library.list()
    by_name = {one.name: one.hash for one in heads}
    runs = {by_name["a"]: Run(True, "", 10, 5), by_name["b"]: Run(False, "no"), by_name["d"]: Run(False)}
    found = health(heads, await library.usages(), runs, [["a", "b"]])
    assert found.sizes == {"candidate": 0, "admitted": 3, "deprecated": 0, "broken": 1}
    assert (found.tools, found.offered, found.ran) == (4, 3, 2)
    assert (found.redundancy, found.reuse) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert (found.stability, found.coverage) == (0.5, 0.5)


async def test_what_is_not_known_is_none(library: Library) -> None:
    empty = health([], {}, {}, [])
    assert (empty.tools, empty.redundancy, empty.reuse, empty.stability, empty.coverage) == (0, None, None, None, None)
    await library.add(admitted("a"))
    unused = health(await library.list(), await library.usages(), {}, [])
    assert (unused.redundancy, unused.reuse, unused.stability) == (0.0, None, None)
