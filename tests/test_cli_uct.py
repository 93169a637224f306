"""`uct` on the command line, as a new user tries it: solve, collect, show, export, and what goes wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.graphs.competent import CODE, TESTS, TICKET, USE, YES
from toolreason.cli import app

END = "So the answer is \\boxed{14}."
QUESTION = "How many multiples of 7 are there up to 100?"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TOOLREASON_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    use = USE.format(factor=7, most=100)
    (tmp_path / "makes.json").write_text(json.dumps([TICKET, CODE, TESTS, YES, use, END]))
    (tmp_path / "uses.json").write_text(json.dumps([use, END]))
    (tmp_path / "asks.json").write_text(json.dumps([TICKET, END]))
    (tmp_path / "p.jsonl").write_text(json.dumps({"id": "q1", "question": QUESTION, "answer": "14"}) + "\n")
    return tmp_path


def run(*args: str, script: str = "makes", sandbox: str = "local") -> Any:
    more = ["-s", "uct", "-p", f"scripted:{script}.json", "--sandbox", sandbox] if args[0] in ("solve", "collect") else []
    return CliRunner().invoke(app, [*args, *more], catch_exceptions=False)


def test_a_library_grows_is_shown_and_serves_frozen(home: Path) -> None:
    done = run("collect", "p.jsonl", "-o", "run", "--set", "library=t.sqlite", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["tokens"]["builder"] > 0
    (tool,) = json.loads(run("tools", "list", "--library", "t.sqlite", "--json").stdout)["tools"]
    assert (tool["name"], tool["status"], tool["usage"]["calls"]) == ("count_multiples", "admitted", 1)

    shown = run("show", "run", "q1").stdout
    assert "tools made: count_multiples@1\ntools used: count_multiples@1" in shown
    assert "[build:tests by scripted:makes.json:" in shown
    (row,) = json.loads(run("show", "run", "--json").stdout)["trajectories"]
    assert row["spent"] > row["tokens"]
    assert row["tools"]["made"] == ["count_multiples@1"]

    exported = run("export", "run", "-o", "rows.jsonl")
    assert "3 calls of the builder of tools are no rows; --aside" in exported.stderr.replace("\n", " ")
    assert json.loads(run("export", "run", "--aside", "-o", "all.jsonl", "--json").stdout)["rows"] == 4

    frozen = run("solve", QUESTION, "--set", "library=t.sqlite", "--set", "frozen=true", "--answer", "14", script="uses")
    assert "tools offered: count_multiples@1\ntools used: count_multiples@1" in frozen.stdout
    assert "correct (14)" in frozen.stdout
    refused = run("solve", QUESTION, "--set", "library=t.sqlite", "--set", "frozen=true", script="asks")
    assert "ticket refused: The library takes no new tools now" in refused.stdout
    (tool,) = json.loads(run("tools", "list", "--library", "t.sqlite", "--json").stdout)["tools"]
    assert (tool["version"], tool["usage"]["calls"]) == (1, 1)


def test_the_default_library_is_that_of_the_tools_command(home: Path) -> None:
    assert run("solve", QUESTION).exit_code == 0
    assert (home / "home" / "tools.sqlite").is_file()
    assert "count_multiples@1" in run("tools", "list").stdout


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("stateful=false", "leave it out"),
        ("attempts=0", "at least 1"),
        ("max_calls=0", "at least 1"),
        ("frozen=maybe", "valid boolean"),
        ("librry=x", "library, frozen, offered"),
        ("library=.", "Is a directory"),
        ("library=p.jsonl", "cannot be opened as a tool library"),
    ],
)
def test_a_wrong_setting_is_told_with_what_there_is(wrong: str, words: str) -> None:
    done = run("solve", QUESTION, "--set", wrong)
    assert done.exit_code == 2
    assert words in done.stderr.replace("\n", " ")


def test_without_a_sandbox_there_is_no_uct() -> None:
    done = run("solve", QUESTION, sandbox="none")
    assert done.exit_code == 2
    assert "--sandbox docker" in done.stderr.replace("\n", " ")
