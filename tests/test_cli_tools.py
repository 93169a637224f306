"""The commands around the tool library, as their user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.tools import samples
from toolreason.cli import app

LOCAL = ("--sandbox", "local")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a tool and its tests; the library is in a home of its own."""
    (tmp_path / "digits.py").write_text(samples.CODE)
    (tmp_path / "test_digits.py").write_text(samples.TESTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TOOLREASON_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TOOLREASON_LIBRARY", raising=False)
    return tmp_path


def tools(*args: str) -> Any:
    return CliRunner().invoke(app, ["tools", *args], catch_exceptions=False)


def read(*args: str) -> Any:
    """What a command prints with --json."""
    done = tools(*args, "--json")
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "command",
    ["list", "show", "test", "add", "edit", "remove", "history", "rollback", "search", "export", "import", "mcp", "consolidate"],
)
def test_help_teaches_with_an_example(command: str) -> None:
    assert f"toolreason tools {command}" in tools(command, "--help").output


def test_to_list_tools_starts_nothing_heavy() -> None:
    code = (
        "import sys; from toolreason.cli import app\n"
        "try: app(['tools', '--help'])\n"
        "finally: print(sorted({'langgraph', 'langchain_core', 'docker', 'torch', 'mcp', 'symtable'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.rstrip().endswith("[]")


def test_a_tool_goes_in_is_shown_used_changed_and_taken_back(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read("list") == {"tools": []}
    done = tools("add", "digits.py", "--category", "numbers", *LOCAL)
    assert (done.exit_code, "digit_counts@1 is admitted: the gate and 3 tests" in done.stderr) == (0, True), done.output
    assert (here / "home" / "tools.sqlite").is_file()

    (row,) = read("list", "--status", "admitted")["tools"]
    assert (row["name"], row["version"], row["author"], row["category"]) == ("digit_counts", 1, "human", "numbers")
    assert row["usage"]["calls"] == 0
    assert "digit_counts@1" in tools("list").stdout
    shown = tools("show", "digit_counts").stdout
    assert "made by human" in shown
    assert "digits.append(str(digit))" in shown
    assert "def test_binary" in shown
    assert read("show", "digit_counts@1")["parameters"]["required"] == ["number"]
    assert [hit["name"] for hit in read("search", "digits of a number")["hits"]] == ["digit_counts"]

    (here / "editor.sh").write_text("#!/bin/sh\nsed -i 's/digits = /digits: list[str] = /' \"$1\"\n")
    (here / "editor.sh").chmod(0o755)
    monkeypatch.setenv("EDITOR", str(here / "editor.sh"))
    monkeypatch.delenv("VISUAL", raising=False)
    assert read("edit", "digit_counts", *LOCAL)["version"] == 2
    monkeypatch.setenv("EDITOR", "true")
    assert read("edit", "digit_counts", *LOCAL) == {"name": "digit_counts", "version": 2, "status": "admitted", "changed": False}

    assert [one["ok"] for one in read("test", "digit_counts", "digit_counts@1", *LOCAL)["tools"]] == [True, True]
    assert read("rollback", "digit_counts", "1", "--reason", "2 is slower")["version"] == 1
    told = read("history", "digit_counts")
    assert (told["head"], [one["version"] for one in told["versions"]]) == (1, [1, 2])
    assert told["versions"][1]["parents"] == ["digit_counts@1"]
    assert told["events"][-1]["reason"] == "2 is slower"
    assert "2 is slower" in tools("history", "digit_counts").stdout

    assert read("remove", "digit_counts", "--reason", "wrong for negative numbers")["status"] == "deprecated"
    assert read("search", "digits of a number") == {"hits": []}
    assert "wrong for negative numbers" in tools("show", "digit_counts").stdout


def test_what_does_not_pass_is_refused_with_reasons_and_kept(here: Path) -> None:
    (here / "digits.py").write_text(samples.CODE.replace("divmod(number, base)", "divmod(number, 10)"))
    done = tools("add", "digits.py", *LOCAL)
    assert done.exit_code == 2
    assert "test_binary error: KeyError" in done.stderr
    (here / "digits.py").write_text("import os\n" + samples.CODE)
    done = tools("add", "digits.py", "--json", *LOCAL)
    assert done.exit_code == 2
    assert json.loads(done.stdout)["reasons"] == ["os is not among the modules that a tool may import [import], line 1"]
    assert [one["status"] for one in read("list")["tools"]] == ["candidate"]
    assert tools("test", "digit_counts@1", *LOCAL).exit_code == 1


def test_the_answer_of_the_problem_is_not_let_in(here: Path) -> None:
    done = tools("add", "digits.py", "--answer", "1223", *LOCAL)
    assert (done.exit_code, "holds the answer of the problem" in done.stderr) == (2, True)


def test_an_edit_that_is_no_python_is_not_lost(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools("add", "digits.py", *LOCAL)
    (here / "editor.sh").write_text('#!/bin/sh\necho "def (" >> "$1"\n')
    (here / "editor.sh").chmod(0o755)
    monkeypatch.setenv("VISUAL", str(here / "editor.sh"))
    done = tools("edit", "digit_counts", *LOCAL)
    assert done.exit_code == 2
    kept = Path(done.stderr.split("tools add ")[1].split("`")[0])
    assert kept.read_text().endswith("def (\n")
    monkeypatch.setenv("VISUAL", "no-such-editor")
    assert tools("edit", "digit_counts", *LOCAL).exit_code == 3


def test_the_library_goes_out_to_a_folder_and_comes_back(here: Path) -> None:
    tools("add", "digits.py", *LOCAL)
    assert read("export", "lib") == {"folder": "lib", "tools": ["digit_counts@1"]}
    assert tools("export", "lib").exit_code == 2
    done = tools("import", "lib", "--library", "other.sqlite", *LOCAL)
    assert (done.exit_code, "1 came in, 0 were refused, 0 were here" in done.stderr) == (0, True), done.output
    assert read("import", "lib", "--library", "other.sqlite", *LOCAL)["tools"][0]["new"] is False
    with (here / "lib" / "toolbox" / "digit_counts.py").open("a") as out:
        out.write("print('hello')\n")
    done = tools("import", "lib", "--library", "other.sqlite", *LOCAL)
    assert (done.exit_code, "acts on import" in done.stderr) == (2, True)
    assert read("list", "--library", "other.sqlite")["tools"][0]["status"] == "admitted"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "nothing"], "nothing"),
        (["show", "digits@x"], "NAME@NUMBER"),
        (["list", "--status", "good"], "candidate, admitted, deprecated, broken"),
        (["add", "nowhere.py"], "write test_nowhere.py"),
        (["add", "digits.py", "--tests", "nowhere.py"], "cannot be read"),
        (["add", "digits.py", "--sandbox", "none"], "tools run in a sandbox"),
        (["add", "digits.py", "--sandbox", "sand"], "there is no sandbox 'sand'"),
        (["import", "nowhere", "--sandbox", "local"], "is no folder"),
        (["rollback", "nothing", "1"], "nothing"),
        (["list", "--library", "mysql://x"], "no place of a tool library"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(here: Path, arguments: list[str], said: str) -> None:
    done = tools(*arguments)
    assert done.exit_code == 2
    assert said in done.stderr


def test_nothing_that_a_model_wrote_acts_on_the_terminal(here: Path) -> None:
    """A refused candidate keeps what it was refused for."""
    (here / "digits.py").write_text(samples.CODE.replace("How often", "\x1b]0;gotcha\x07\u202eHow often"))
    assert tools("add", "digits.py", *LOCAL).exit_code == 2
    for output in (tools("list").output, tools("show", "digit_counts").output, tools("history", "digit_counts").output):
        assert "\x1b]0" not in output
        assert "\u202e" not in output
    assert os.environ["TOOLREASON_HOME"] == str(here / "home")
