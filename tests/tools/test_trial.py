"""The trial, in real sessions of the local sandbox: what passes, and what only pretends to."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.tools import samples
from toolreason.errors import InputError
from toolreason.execution import ScriptedSandbox
from toolreason.execution.base import Sandbox
from toolreason.tools import signature, trial
from toolreason.tools.package import ToolPackage
from toolreason.types import CellResult, Outcome


def tool(code: str, tests: str) -> ToolPackage:
    """A package as it is, through no gate."""
    return ToolPackage(name="square", description="", code=code, tests="from toolbox import square\n" + tests)


GOOD_TESTS = "def test_a():\n    assert square(3) == 9\ndef test_b():\n    assert square(4) == 16\n"


def outcomes(report: trial.TrialReport) -> list[str]:
    return [one.outcome.value for one in report.tests]


async def test_a_good_tool_passes_and_its_tests_notice_a_wrong_one(sandbox: Sandbox) -> None:
    report = await trial.run(samples.digits(), sandbox)
    assert report.ok, report.reasons
    assert [(one.name, one.outcome, one.noticed) for one in report.tests] == [
        ("test_decimal", "passed", True),
        ("test_binary", "passed", True),
        ("test_a_base_that_there_is_not", "passed", True),
    ]


async def test_a_tool_that_uses_another_is_tried_with_it(sandbox: Sandbox) -> None:
    assert (await trial.run(samples.cube(), sandbox, needed=[samples.square()])).ok
    report = await trial.run(samples.cube(), sandbox)
    assert "square" in report.trouble


async def test_what_fails_comes_with_its_traceback(sandbox: Sandbox) -> None:
    code = "def square(n: int) -> int:\n    if n == 4:\n        return 1 // 0\n    return n\n"
    report = await trial.run(tool(code, GOOD_TESTS), sandbox)
    failed, error = report.tests
    assert (failed.outcome, failed.error) == ("failed", "AssertionError")
    assert "assert square(3) == 9" in failed.traceback
    assert (error.outcome, error.error) == ("error", "ZeroDivisionError: integer division or modulo by zero")
    assert 'File "toolbox/square.py", line 3' in error.traceback
    assert "return 1 // 0" in error.traceback
    assert "trial_cell" not in error.traceback
    assert not report.ok
    assert [one.split(":")[0] for one in report.reasons] == ["test_a failed", "test_b error"]


@pytest.mark.parametrize(
    "body",
    [
        "print('passed')\n    import os\n    os._exit(0)",
        "raise SystemExit(0)",
        "print('1 passed'); assert square(3) == 10",
        "import signal, os\n    os.kill(os.getpid(), signal.SIGKILL)",
        "while True:\n        pass",
        "import threading\n    raise KeyboardInterrupt",
        "x = []\n    while True:\n        x.append('x' * 10**8)",
    ],
)
async def test_to_leave_early_or_to_say_so_is_no_way_to_pass(sandbox: Sandbox, body: str) -> None:
    report = await trial.run(tool(samples.SQUARE, GOOD_TESTS + f"def test_c():\n    {body}\n"), sandbox, timeout_s=1)
    assert outcomes(report)[:2] == ["passed", "passed"]
    assert outcomes(report)[2] in ("failed", "error")
    assert not report.ok


@pytest.mark.parametrize(
    "tests",
    [
        "def test_a():\n    assert square(3) or True\ndef test_b():\n    square(2)\n",
        "def test_a():\n    assert square(3) is not None\ndef test_b():\n    assert isinstance(square(3), int)\n",
        "def test_a():\n    assert square(3) == square(3)\ndef test_b():\n    assert square(3) == 9\n",
        "def test_a():\n    try:\n        assert square(3)\n    except TypeError:\n        pass\ndef test_b():\n    pass\n",
    ],
)
async def test_tests_that_always_pass_are_worth_nothing(sandbox: Sandbox, tests: str) -> None:
    report = await trial.run(tool(samples.SQUARE, tests), sandbox)
    assert outcomes(report) == ["passed", "passed"]
    assert not report.ok
    assert "pass for wrong results too" in report.trouble


async def test_no_tests_and_unreadable_ones_are_no_pass(sandbox: Sandbox) -> None:
    assert (await trial.run(tool(samples.SQUARE, ""), sandbox)).trouble == "there are no tests"
    assert "no Python" in (await trial.run(tool(samples.SQUARE, "def ("), sandbox)).trouble


@pytest.mark.parametrize(
    "line", ["import os; os._exit(0)", "raise ValueError('no')", "while True: pass", "def f(:", "raise SystemExit"]
)
async def test_code_that_ends_the_session_on_import_is_refused_and_hurts_nobody(sandbox: Sandbox, line: str) -> None:
    report = await trial.run(tool(f"{line}\n{samples.SQUARE}", GOOD_TESTS), sandbox, timeout_s=1)
    assert not report.tests
    assert "cannot be imported" in report.trouble
    assert (await trial.run(samples.square(), sandbox)).ok


async def test_one_test_leaves_nothing_for_the_next(sandbox: Sandbox) -> None:
    tests = (
        "import json\n"
        "def test_a():\n    json.dumps = None\n    open('left', 'w').close()\n    assert square(3) == 9\n"
        "def test_b():\n    import os\n    assert json.dumps and not os.path.exists('left') and square(2) == 4\n"
    )
    assert (await trial.run(tool(samples.SQUARE, tests), sandbox)).ok


async def test_a_wrong_result_is_of_the_same_kind(sandbox: Sandbox) -> None:
    """So that tests which look at the kind alone notice nothing."""
    for value in ("True", "3", "2.5", "'a'", "[1]", "(1,)", "{'a': 1}", "{1}", "1e300"):
        tests = f"def test_a():\n    assert square(1) == {value}\ndef test_b():\n    assert type(square(1)) is type({value})\n"
        report = await trial.run(tool(f"def square(n):\n    return {value}\n", tests), sandbox)
        assert [one.noticed for one in report.tests] == [True, False], value


async def test_a_report_is_data_whatever_stands_in_it() -> None:
    for value in ("'{}'", "'[1]'", '\'{"failed": true, "error": 7}\'', "None", "'" + "x" * 100 + "'"):

        def answer(code: str, value: str = value) -> CellResult:
            return CellResult(Outcome.OK, value=value)

        report = await trial.run(samples.square(), ScriptedSandbox(answer))
        assert not report.ok, value


async def test_installed_tools_are_imported_composed_and_replaced(sandbox: Sandbox) -> None:
    session = await sandbox.session()
    await trial.install(session, [samples.square(), samples.cube()])
    assert (await session.run("from toolbox import cube, square\ncube(2) + square(3)")).value == "17"
    assert (await session.run("import toolbox.cube\ntoolbox.cube(2)")).value == "8"  # the function, however it was imported
    assert (await session.run("import toolbox\ntoolbox.nothing")).error == "AttributeError: there is no tool nothing"
    assert (await session.run("from toolbox import nothing")).outcome is Outcome.ERROR
    assert (await session.run("while True: pass", timeout_s=0.3)).outcome is Outcome.TIMEOUT
    assert (await session.run("cube(3)")).value == "27"
    changed = replace(samples.square(), code=samples.SQUARE.replace("n * n", "n * n + 1"))
    await trial.install(session, [changed])
    assert (await session.run("from toolbox import cube, square\ncube(2), square(3)")).value == "(10, 10)"
    other = await session.fork()
    assert (await other.run("from toolbox import cube\ncube(1)")).value == "2"
    assert "names" not in (await session.run("dir()")).value.split("'")  # type: ignore[union-attr]


async def test_a_broken_tool_is_in_nobodys_way(sandbox: Sandbox) -> None:
    session = await sandbox.session()
    await trial.install(session, [tool("raise ValueError('broken')", ""), samples.digits()])
    assert (await session.run("from toolbox import digit_counts\ndigit_counts(7)")).value == "{'7': 1}"
    assert (await session.run("from toolbox import square")).error == "ValueError: broken"


async def called(sandbox: Sandbox, code: str, arguments: dict[str, Any], **more: Any) -> CellResult:
    package = signature.package(code, "")
    session = await sandbox.session()
    try:
        await trial.install(session, [package])
        return await trial.call(session, package, arguments, **more)
    finally:
        await session.close()


CALLS: list[tuple[str, str, Any, Any]] = [
    ("int", "x", 3, 3),
    ("tuple[int, int]", "{x: 'a'}[(1, 2)]", [1, 2], "a"),
    ("list[tuple[int, int]]", "len(set(x))", [[1, 2], [1, 2]], 1),
    ("dict[int, int]", "x[1]", {"1": 5}, 5),
    ("set[int]", "x | {3, 1}", [2], [1, 2, 3]),
    ("str", "x * 2", "ä\n'\"", "ä\n'\"ä\n'\""),
    ("int", "__import__('fractions').Fraction(x, 3)", 1, "1/3"),
    ("int", "__import__('numpy').array([x, 1])", 2, [2, 1]),
    ("int", "__import__('numpy').int64(x)", 2, 2),
    ("int", "__import__('sympy').Integer(x)", 7, 7),
    ("int", "{(1, 2): (3,), None: float('inf')}", 0, {"[1, 2]": [3], "None": "inf"}),
    ("int", "None", 0, None),
    ("int", "2**200", 0, 2**200),
]


async def test_a_call_takes_and_gives_json(sandbox: Sandbox) -> None:
    session = await sandbox.session()
    for hint, body, argument, result in CALLS:
        package = signature.package(f"def f(x: {hint}) -> object:\n    print('working')\n    return {body}\n", "")
        await trial.install(session, [package])
        done = await trial.call(session, package, {"x": argument})
        assert (done.outcome, done.stdout) == (Outcome.OK, "working\n"), done
        assert json.loads(done.value or "") == result


def deeper(levels: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(levels):
        made = [made]
    return made


async def test_what_goes_wrong_in_a_call_is_its_result(sandbox: Sandbox) -> None:
    divide = "def f(x: int) -> float:\n    return 1 / x\n"
    done = await called(sandbox, divide, {"x": 0})
    assert (done.outcome, done.error) == (Outcome.ERROR, "ZeroDivisionError: division by zero")
    assert done.traceback.splitlines()[0] == '  File "toolbox/f.py", line 2, in f'
    done = await called(sandbox, divide, {"y": 0})
    assert "unexpected keyword argument 'y'" in (done.error or "")
    done = await called(sandbox, "def f(x: int) -> int:\n    while True: pass\n", {"x": 1}, timeout_s=0.3)
    assert done.outcome is Outcome.TIMEOUT
    done = await called(sandbox, "import os\ndef f(x: int) -> int:\n    os._exit(0)\n", {"x": 1})
    assert done.outcome is Outcome.CRASHED
    done = await called(sandbox, "def f(x: int) -> str:\n    open('/nowhere')\n", {"x": 1})
    assert (done.outcome, done.traceback) == (Outcome.ERROR, done.error)
    nested = await called(sandbox, divide, {"x": deeper(150)})
    assert (nested.outcome, nested.value) == (Outcome.ERROR, None)
    done = await called(sandbox, "def f(x: int) -> str:\n    return 'x' * 100_000\n", {"x": 1})
    assert done.ok
    assert done.value is not None
    assert done.value.endswith("characters more]")
    assert (len(done.value) < 4000, done.dropped > 90_000) == (True, True)
    for bad in ({"x": {1}}, {"x": float("nan")}, {1: {2: object()}}, {"n": deeper(900)}, {"n": 10**5000}):
        with pytest.raises(InputError, match="no JSON"):
            trial.call_code(samples.square(), bad)  # type: ignore[arg-type]


async def test_a_tool_that_patches_another_or_json_leaves_no_trace(sandbox: Sandbox) -> None:
    """Its own result may be a lie; the next call, of whatever tool, is as before."""
    evil = signature.package(
        "def evil(n: int) -> int:\n"
        "    import json, toolbox\n"
        '    def lie(*args, **kwargs):\n        return \'{"value": "666"}\'\n'
        "    json.dumps = lie\n    toolbox.square = lie\n"
        "    open('toolbox/square.py', 'w').write('def square(n):\\n    return 666')\n"
        "    return 1\n",
        "",
    )
    session = await sandbox.session()
    await trial.install(session, [samples.square(), evil])
    assert (await trial.call(session, evil, {"n": 1})).value == "666"
    assert (await trial.call(session, samples.square(), {"n": 3})).value == "9"
    assert (await session.run("import json\njson.dumps([1])")).value == "'[1]'"
