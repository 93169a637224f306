"""The trial: a tool's tests in a session of their own, and its calls. All of it runs in the sandbox, nothing here.

A test passes where its cell ends in a token that the host made up for it: what a test prints is nothing, and leaving early is no
way to pass. Then the tests run against the tool with its results made wrong, and have to notice. What is not covered: a test
shares its interpreter with the tool, so code written to fool them can (the gate turns away the plain ways).
"""

from __future__ import annotations

import ast
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any

from toolreason.errors import InputError, SandboxError
from toolreason.execution.base import Sandbox, Session
from toolreason.tools import signature, typehints
from toolreason.tools.gate_tests import test_names
from toolreason.tools.package import ToolPackage, check_name
from toolreason.types import CellResult, Outcome

TEST_S = 10.0
MOST_RESULT = 3000  # characters of a result that come back: below what any session's limits cut
NOTICE = 2  # tests that must fail where the tool's results are wrong


class TestOutcome(StrEnum):
    __test__ = False

    PASSED = "passed"
    FAILED = "failed"  # an assertion
    ERROR = "error"  # anything else: an exception, a limit, a crash


@dataclass(frozen=True, slots=True)
class TestResult:
    """One test. `noticed`: whether it fails where the tool is wrong; None where that was not tried."""

    __test__ = False

    name: str
    outcome: TestOutcome
    error: str = ""
    traceback: str = ""
    duration_s: float = 0.0
    noticed: bool | None = None


@dataclass(frozen=True, slots=True)
class TrialReport:
    """`trouble` is set where no test could be run, or the tests as a whole are worth nothing."""

    tests: tuple[TestResult, ...] = ()
    trouble: str = ""

    @property
    def ok(self) -> bool:
        return not self.trouble and bool(self.tests) and all(one.outcome is TestOutcome.PASSED for one in self.tests)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not ok."""
        failing = [f"{one.name} {one.outcome}: {one.error}" for one in self.tests if one.outcome is not TestOutcome.PASSED]
        return tuple(failing + ([self.trouble] if self.trouble else []))


async def run(
    package: ToolPackage, sandbox: Sandbox, *, needed: Sequence[ToolPackage] = (), timeout_s: float = TEST_S
) -> TrialReport:
    """Try `package` in a fresh session; `needed` are the tools that it imports, and theirs. Raises SandboxError."""
    try:
        names = test_names(package.tests)
    except InputError as error:
        return TrialReport(trouble=str(error))
    session = await sandbox.session()
    try:
        await install(session, [*needed, package])
        loaded = await session.run(f"import toolbox\ntoolbox.{package.name}\nNone", timeout_s=timeout_s, keep=False)
        if not loaded.ok:
            return TrialReport(trouble=f"it cannot be imported: {_why(loaded)}")
        results = [await _test(session, package, name, timeout_s) for name in names]
        if not results or any(one.outcome is not TestOutcome.PASSED for one in results):
            return TrialReport(tuple(results), "" if results else "there are no tests")
        spoilt = [await _test(session, package, name, timeout_s, spoil=True) for name in names]
    finally:
        await session.close()
    results = [replace(one, noticed=other.outcome is not TestOutcome.PASSED) for one, other in zip(results, spoilt, strict=True)]
    noticed = sum(bool(one.noticed) for one in results)
    trouble = f"the tests pass for wrong results too: {NOTICE} have to fail there, {noticed} did" if noticed < NOTICE else ""
    return TrialReport(tuple(results), trouble)


async def _test(session: Session, package: ToolPackage, name: str, timeout_s: float, *, spoil: bool = False) -> TestResult:
    token = secrets.token_hex(16)
    report = _cell("test", package.tests, name, package.name, spoil)
    result = await session.run(f"report = {report}\n{token!r} if report is None else report", timeout_s=timeout_s, keep=False)
    if result.ok and result.value == repr(token):
        return TestResult(name, TestOutcome.PASSED, duration_s=result.duration_s)
    said = _said(result)
    if said is None:
        return TestResult(name, TestOutcome.ERROR, _why(result), result.traceback, result.duration_s)
    outcome = TestOutcome.FAILED if said.get("failed") is True else TestOutcome.ERROR
    return TestResult(name, outcome, str(said.get("error"))[:300], str(said.get("traceback"))[:2000], result.duration_s)


async def install(session: Session, packages: Sequence[ToolPackage]) -> None:
    """Make tools importable in a session: `from toolbox import NAME`. A later version replaces an earlier one. It is one cell.

    Raises SandboxError where the session's folder does not take them.
    """
    result = await session.run(install_code(packages))
    if not result.ok:
        raise SandboxError(f"the tools could not be put into the session: {_why(result)}")


def install_code(packages: Sequence[ToolPackage], *, recorded: bool = False) -> str:
    """The cell that `install` runs, for those who run cells by a `SessionBook`, which replays them. `recorded`: the toolbox notes
    its calls, for `notes_code` to ask about.
    """
    for package in packages:
        check_name(package.name)
    files = {"__init__": _source("toolbox.py")} | {package.name: package.code for package in packages}
    return _cell("install", files, recorded)


def notes_code(seen: dict[str, list[int]]) -> str:
    """The cell whose value are the tallies of this session's calls that differ from those `seen` (calls and faults by tool);
    `toolreason.tools.notes` reads it.
    """
    return _cell("notes", seen, MOST_RESULT)


async def call(
    session: Session, package: ToolPackage, arguments: dict[str, Any], *, timeout_s: float | None = None, keep: bool = False
) -> CellResult:
    """Call an installed tool with JSON arguments. `value` of an `ok` result is its result as JSON text.

    By default nothing that the call does to the session outlives it. A result that is too long is cut (`dropped`), and no JSON
    then. Raises InputError for arguments that are no JSON.
    """
    result = await session.run(call_code(package, arguments), timeout_s=timeout_s, keep=keep)
    said = _said(result)
    if said is None:  # a limit, or a tool that meddled with its report
        error = result.error or (f"{package.name} gave no result" if result.ok else None)
        return replace(
            result, outcome=Outcome.ERROR if result.ok else result.outcome, value=None, error=error, traceback=error or ""
        )
    if isinstance(value := said.get("value"), str):
        dropped = said.get("dropped")
        cut = dropped if type(dropped) is int and dropped > 0 else 0
        return replace(result, value=f"{value} [... {cut} characters more]" if cut else value, dropped=result.dropped + cut)
    error, trace = str(said.get("error"))[:300], str(said.get("traceback"))[:2000]
    return replace(result, outcome=Outcome.ERROR, value=None, error=error, traceback=trace)


def call_code(package: ToolPackage, arguments: dict[str, Any]) -> str:
    """The cell that calls the tool. Arguments become what the annotations mean: a list is a tuple where a tuple is wanted."""
    kinds = signature.annotated(package.code)
    try:
        plain = json.loads(json.dumps(arguments, allow_nan=False))
        meant = repr({name: typehints.from_json(kinds.get(name), value) for name, value in plain.items()})
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the arguments of {package.name} are no JSON: {error}") from error
    return _cell("call", package.name, meant, MOST_RESULT)


def _cell(function: str, *arguments: Any) -> str:
    """The code of an expression that calls one of `trial_cell`'s functions. It leaves no names behind."""
    return f"(lambda names: (exec({_source('trial_cell.py')!r}, names), names[{function!r}](*{arguments!r})))({{}})[1]"


@cache
def _source(file: str) -> str:
    return (resources.files("toolreason.tools") / file).read_text(encoding="utf-8")


def _said(result: CellResult) -> dict[str, Any] | None:
    """The report of a test, if there is one. Anything may stand there."""
    text = _literal(result.value) if result.ok and result.value else None
    try:
        said = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _why(result: CellResult) -> str:
    if result.outcome is Outcome.TIMEOUT:
        return f"it took longer than {result.duration_s:.0f} s"
    return (result.error or ("it ended early" if result.ok else str(result.outcome)))[:300]
