"""`toolreason tools consolidate`, as its user types it: look, apply, take back; and stop it in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.tools import kin, samples
from toolreason.cli import app
from toolreason.tools.library import open_library
from toolreason.tools.package import Status, ToolPackage, Use

LOCAL = ("--sandbox", "local")


async def _fill(packages: list[ToolPackage]) -> None:
    async with open_library() as library:
        await library.add_all([replace(one, status=Status.ADMITTED) for one in packages])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory, and a home with a library of two copies and a tool that fails its tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "220")
    monkeypatch.setenv("TOOLREASON_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TOOLREASON_LIBRARY", raising=False)
    wrong = replace(samples.digits(), code=samples.CODE.replace("divmod(number, base)", "divmod(number, 10)"))
    asyncio.run(_fill([kin.factorial(), kin.copy(), wrong]))
    return tmp_path


def consolidate(*args: str, answer: str | None = None) -> Any:
    return CliRunner().invoke(app, ["tools", "consolidate", *args], catch_exceptions=False, input=answer)


def statuses() -> dict[str, str]:
    done = CliRunner().invoke(app, ["tools", "list", "--json"], catch_exceptions=False)
    return {row["name"]: f"{row['version']} {row['status']}" for row in json.loads(done.stdout)["tools"]}


BEFORE = {"digit_counts": "1 admitted", "factorial": "1 admitted", "product_up_to": "1 admitted"}
AFTER = {"digit_counts": "1 deprecated", "factorial": "2 admitted", "product_up_to": "1 deprecated"}


def test_help_teaches_with_examples() -> None:
    told = consolidate("--help").output
    assert "toolreason tools consolidate --dry-run" in told
    assert "--undo" in told


def test_a_library_is_looked_at_consolidated_and_put_back(here: Path) -> None:
    done = consolidate("--dry-run", *LOCAL)
    assert done.exit_code == 0, done.output
    for said in (
        "stands for product_up_to@1 too",
        "factorial stands for it",
        "its tests do not pass any more: test_binary error: KeyError",
    ):
        assert said in done.stdout
    assert ("66.7 %" in done.stdout, "100.0 %" in done.stdout) == (True, True), "stability before and after"
    assert (statuses(), [*here.glob("*.json")]) == (BEFORE, [])

    done = consolidate(*LOCAL, answer="n\n")
    assert (done.exit_code, statuses()) == (0, BEFORE)

    done = consolidate("--yes", "--plan", "plan.json", "--json", *LOCAL)
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert [(step["action"], step["progress"]) for step in said["steps"]] == [("merge", "done")] + [("deprecate", "done")] * 2
    assert statuses() == AFTER
    assert json.loads((here / "plan.json").read_text())["after"]["sizes"]["admitted"] == 1

    done = consolidate("--undo", "plan.json")
    assert (done.exit_code, "3 of 3 steps are taken back" in done.stderr) == (0, True), done.output
    assert statuses() == BEFORE
    done = consolidate("--apply", "plan.json", *LOCAL)
    assert (done.exit_code, "3 of 3 steps are done" in done.stderr) == (0, True), done.output
    assert statuses() == AFTER
    assert json.loads(consolidate("--dry-run", "--json", *LOCAL).stdout)["steps"] == []


def test_a_plan_is_kept_for_later_and_refused_where_the_library_has_changed(here: Path) -> None:
    consolidate("--dry-run", "--plan", "plan.json", "--no-tests", *LOCAL)
    assert [step["tool"] for step in json.loads((here / "plan.json").read_text())["steps"]] == ["factorial", "product_up_to"]
    CliRunner().invoke(app, ["tools", "remove", "product_up_to", "--reason", "slow"])
    done = consolidate("--apply", "plan.json", *LOCAL)
    assert (done.exit_code, "product_up_to has changed since the plan was made" in done.stderr) == (2, True), done.output
    assert statuses()["factorial"] == "1 admitted"


def test_health_alone(here: Path) -> None:
    said = json.loads(consolidate("--health", "--json", *LOCAL).stdout)
    assert (said["tools"], said["offered"], said["ran"]) == (3, 3, 3)
    assert (round(said["stability"], 3), round(said["redundancy"], 3), said["reuse"]) == (0.667, 0.667, None)
    assert 0.5 < said["coverage"] <= 1
    assert "share of lines that tests run" in consolidate("--health", *LOCAL).stdout


def test_a_policy_writes_what_stands_for_several(here: Path) -> None:
    asyncio.run(_fill([kin.scale(), kin.shift()]))
    (here / "replies.json").write_text(json.dumps([f"```python\n{kin.GENERAL}```"]))
    done = consolidate("--yes", "--json", "--no-tests", "--policy", "scripted:replies.json", "--plan", "p.json", *LOCAL)
    assert done.exit_code == 0, done.output
    shown = json.loads(CliRunner().invoke(app, ["tools", "show", "scale", "--json"]).stdout)
    assert (shown["author"], shown["parents"]) == ("scripted:replies.json", ["scale@1", "scale_shift@1"])
    assert json.loads(done.stdout)["tokens"] > 0


def test_what_nobody_reuses(here: Path) -> None:
    async def use() -> None:
        async with open_library() as library:
            await library.record(Use("factorial@1", "p1", True))

    asyncio.run(use())
    done = consolidate("--dry-run", "--json", "--no-tests", "--unused-days", "0.0000001", *LOCAL)
    found = {step["tool"]: step["reason"] for step in json.loads(done.stdout)["steps"]}
    assert "never called on another problem" in found["digit_counts"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dry-run", "--health"], "give one"),
        (["--json"], "give --dry-run, or --yes"),
        (["--undo", "nothing.json"], "cannot be read"),
        (["--apply", "nothing.json"], "cannot be read"),
        (["--dry-run", "--sandbox", "none"], "tools run in a sandbox"),
        (["--unused-days", "0", "--sandbox", "local"], "not above 0"),
        (["--dry-run", "--no-tests", "--plan", "no/such/folder.json", "--sandbox", "local"], "name another file with --plan"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(here: Path, arguments: list[str], said: str) -> None:
    done = consolidate(*arguments)
    assert (done.exit_code, said in done.stderr) == (2, True), done.output


def test_nothing_that_a_model_wrote_acts_on_the_terminal(here: Path) -> None:
    async def fail() -> None:
        async with open_library() as library:
            await library.set_status("digit_counts", Status.ADMITTED, "x")
            code = samples.CODE.replace('"base is outside 2 to 10"', '"\\x1b]0;gotcha\\x07\\u202e"').replace(
                "2 <= base", "9 <= base"
            )
            await library.add(replace(samples.digits(code), status=Status.ADMITTED))

    asyncio.run(fail())
    output = consolidate("--dry-run", *LOCAL).output
    assert "gotcha" in output
    assert "\x1b]0" not in output
    assert "\u202e" not in output


def test_ctrl_c_leaves_a_plan_that_says_how_far_it_went(here: Path) -> None:
    """Many tools that fail: the process is interrupted while it takes them back, one by one."""
    failing = replace(samples.square(), code=samples.SQUARE.replace("n * n", "n"))
    many = [
        replace(
            failing,
            name=f"square_{n}",
            code=failing.code.replace("square", f"square_{n}"),
            tests=failing.tests.replace("square", f"square_{n}"),
        )
        for n in range(2000)
    ]
    asyncio.run(_fill(many))
    steps = [
        {"action": "deprecate", "tool": one.name, "version": 1, "status": "admitted", "reason": "it is a copy", "old_reason": ""}
        for one in many
    ]
    (here / "plan.json").write_text(json.dumps({"format": 1, "steps": steps, "left": []}))
    command = [sys.executable, "-m", "toolreason", "tools", "consolidate", "--apply", "plan.json", *LOCAL]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy())
    end = time.monotonic() + 200
    while time.monotonic() < end and process.poll() is None:
        if '"done"' in (here / "plan.json").read_text():
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.005)
    _, told = process.communicate(timeout=200)
    assert process.returncode == 130, told
    done = [step["progress"] == "done" for step in json.loads((here / "plan.json").read_text())["steps"]]
    gone = [status == "1 deprecated" for name, status in statuses().items() if name.startswith("square_")]
    assert 0 < sum(done) < 2000
    assert sum(done) <= sum(gone) <= sum(done) + 1, "the step that was being taken is taken"
    assert "consolidate --apply it for the rest, or --undo it" in told
    assert consolidate("--undo", "plan.json").exit_code == 0
    assert all(status == "1 admitted" for name, status in statuses().items() if name.startswith("square_"))


@pytest.mark.docker
def test_in_a_container(here: Path) -> None:
    done = consolidate("--yes", "--json", "--plan", "plan.json", "--sandbox", "shared")
    assert done.exit_code == 0, done.output
    assert statuses() == AFTER
    assert json.loads(done.stdout)["before"]["coverage"] > 0.5
