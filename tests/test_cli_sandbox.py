"""The commands around the sandbox, as their user types them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from toolreason.cli import app
from toolreason.commands import sandbox_shell
from toolreason.errors import InputError
from toolreason.execution import ScriptedSandbox
from toolreason.types import CellResult, Outcome

PNG = "iVBORw0KGgo="
docker = pytest.mark.docker


def invoke(*arguments: str, input: str | None = None) -> Any:
    return CliRunner().invoke(app, ["sandbox", *arguments], input=input, catch_exceptions=False)


@pytest.mark.parametrize("command", ["build", "check", "shell", "stats", "serve", "mcp"])
def test_help_teaches_with_an_example(command: str) -> None:
    assert f"toolreason sandbox {command}" in invoke(command, "--help").output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "--density", "dense"], "container, shared and both"),
        (["check", "--only", "luck"], "conformance and attacks"),
        (["shell", "--density", "dense"], "container and shared"),
        (["serve", "--density", "dense"], "container and shared"),
        (["serve", "--host", "0.0.0.0"], "token"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TOOLREASON_SANDBOX_TOKEN", raising=False)
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert said in result.output


@docker
@pytest.mark.parametrize(("code", "out", "status"), [("print('hi')\n6 * 7", "hi\n42\n", 0), ("1/0", "", 1)])
def test_a_pipe_into_the_shell_is_one_cell(code: str, out: str, status: int) -> None:
    command = [sys.executable, "-m", "toolreason", "sandbox", "shell"]
    done = subprocess.run(command, input=code, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == (out, status)
    assert ("ZeroDivisionError" in done.stderr) is bool(status)


def typed(monkeypatch: pytest.MonkeyPatch, lines: Iterable[str]) -> None:
    waiting = iter(lines)

    def ask(_: str) -> str:
        try:
            return next(waiting)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", ask)


async def test_the_prompt_runs_whole_cells_and_its_own_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "here.txt").write_text("data")
    monkeypatch.chdir(tmp_path)
    lines = ["def f():", "    return 1", "", ":put here.txt there.txt", ":files", ":get there.txt back.txt", ":undo 9", "x"]
    typed(monkeypatch, lines)
    async with ScriptedSandbox(lambda code: CellResult(Outcome.OK, value="'\x1b[31m'")) as sandbox:
        assert await sandbox_shell.prompt(sandbox)
    assert [code for _, code in sandbox.calls] == ["def f():\n    return 1\n", "x"]
    assert (tmp_path / "back.txt").read_text() == "data"
    said = capsys.readouterr()
    assert "4  there.txt" in said.out
    assert "cannot be taken back" in said.err
    assert "\x1b[31m" not in said.out


@pytest.mark.parametrize(
    ("code", "whole"),
    [("1", True), ("if x:", False), ("if x:\n  y", False), ("if x:\n  y\n", True), ("(1,", False), ("1 +", True), ("'''", False)],
)
def test_a_cell_is_whole_where_pythons_prompt_would_run_it(code: str, whole: bool) -> None:
    assert sandbox_shell.complete(code) is whole


def test_figures_are_written_to_files_that_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    sandbox_shell.show(CellResult(Outcome.OK, figures=(PNG,)))
    (line,) = capsys.readouterr().err.replace("\n", "").split("figure: ")[1:]
    assert Path(line).read_bytes().startswith(b"\x89PNG")


@docker
async def test_stats_tell_whose_a_container_is() -> None:
    from toolreason.execution import open_sandbox

    async with open_sandbox("docker", density="shared", slots=2, pool=0) as sandbox:
        await sandbox.session()
        command = [sys.executable, "-m", "toolreason", "sandbox", "stats", "--json"]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)  # noqa: ASYNC221
    mine = [row for row in found["containers"] if row["density"] == "shared" and "alive" in row["owner"]]
    assert mine
    assert mine[0]["processes"] >= 2
    assert mine[0]["memory_mb"] > 10


@docker
async def test_a_check_tells_what_holds_and_goes_on_after_what_does_not() -> None:
    from toolreason.execution import Session, open_sandbox
    from toolreason.execution.attacks import attacks
    from toolreason.execution.check import check
    from toolreason.execution.conformance import Check, Failed, checks

    async def lie(session: Session) -> None:
        await session.close()
        raise Failed("found 1; due was 2")

    async def stumble(session: Session) -> None:
        raise KeyError("no")

    cases = [Check("g", "lies", True, False, lie), Check("g", "stumbles", True, False, stumble), checks()[0], attacks()[0]]
    rows = [row async for row in check(cases, lambda limits: open_sandbox("docker", limits, pool=2))]
    assert [(row.suite, row.ok) for row in rows] == [
        ("conformance", False),
        ("conformance", False),
        ("conformance", True),
        ("attacks", True),
    ]
    assert "due was 2" in rows[0].detail
    assert "the check itself failed: KeyError" in rows[1].detail


def test_a_missing_file_is_said_and_ends_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert issubclass(InputError, Exception)
    typed(monkeypatch, [":put /nonexistent/file", ":nonsense", "1"])

    async def go() -> list[tuple[int, str]]:
        async with ScriptedSandbox({"1": "one"}) as sandbox:
            await sandbox_shell.prompt(sandbox)
            return sandbox.calls

    import asyncio

    assert asyncio.run(go()) == [(1, "1")]
    said = capsys.readouterr()
    assert "No such file" in said.err
    assert ":undo" in said.out
