"""What README and docs say can be typed: commands that the parser takes, blocks that run, links that lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from toolreason.adapters import messages
from toolreason.cli import app
from toolreason.execution import ScriptedSandbox
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.types import StopReason

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {page.name: page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
REPLIES = ["print(6*7)\n```\n", "So \\boxed{42}"]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


EMBED, SERVE, STEP_BACK = blocks(README, "python")
(SANDBOX,) = blocks(PAGES["sandbox.md"], "python")


def commands() -> Iterator[tuple[str, str]]:
    for page, text in PAGES.items():
        for line in re.findall("`(toolreason [^`]+)`", text):
            yield page, line
        for block in blocks(text, "bash"):
            yield from ((page, line) for line in block.splitlines() if line.startswith("toolreason "))


def idle(command: Any) -> Any:
    """The command line with its parser, and nothing behind it."""
    for sub in getattr(command, "commands", {}).values():
        idle(sub)
    if not getattr(command, "commands", None):
        command.callback = lambda **_: None
    return command


@pytest.mark.parametrize(("page", "line"), list(commands()), ids=lambda value: str(value)[:60])
def test_the_command_line_takes_every_command_as_it_is_written(page: str, line: str) -> None:
    _, *args = shlex.split(line, comments=True)
    idle(typer.main.get_command(app)).main(args, "toolreason", standalone_mode=False)


def test_a_command_that_there_is_not_would_be_noticed() -> None:
    for wrong in (["collcet", "p.jsonl"], ["collect", "p.jsonl", "--out", "run", "--sample", "4", "x"], ["show"]):
        with pytest.raises(Exception, match=r"No such|unexpected|Missing"):
            idle(typer.main.get_command(app)).main(wrong, "toolreason", standalone_mode=False)


@pytest.mark.parametrize("block", [block for text in PAGES.values() for block in blocks(text, "python")])
def test_every_python_block_compiles_and_what_it_imports_is_there(block: str) -> None:
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(ast.unparse(node), {})


async def test_the_embedded_reasoner_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def open_policy(spec: str) -> ScriptedPolicy:
        return ScriptedPolicy(REPLIES)

    monkeypatch.setattr("toolreason.policies.open_policy", open_policy)
    monkeypatch.setattr("toolreason.execution.open_sandbox", lambda name: ScriptedSandbox({"print(6*7)": "42\n"}))
    names: dict[str, Any] = {}
    exec(EMBED, names)
    done = await names["agent"].compile().ainvoke({"messages": [("user", "6 * 7?")]})
    kept = messages.trajectory(done["messages"][-1])
    assert kept.stop is StopReason.ANSWERED
    assert [cell.result.stdout for cell in kept.cells] == ["42\n"]


async def test_the_server_answers_every_question() -> None:
    names: dict[str, Any] = {}
    exec(SERVE, names)

    async def open_policy(spec: str) -> ScriptedPolicy:
        return ScriptedPolicy(lambda prompt, index: REPLIES["```output" in prompt])

    sandbox = ScriptedSandbox({"print(6*7)": "42\n"})
    names |= {"open_policy": open_policy, "open_sandbox": lambda name: sandbox}
    done = await names["serve"](["6 * 7?", "7 * 6?", "42?"])
    assert [(one.problem_id, one.stop) for one in done] == [(q, StopReason.ANSWERED) for q in ("6 * 7?", "7 * 6?", "42?")]
    assert len(sandbox.calls) == 3
    assert sandbox.open == 0


@pytest.mark.docker
async def test_the_step_back_is_one() -> None:
    from toolreason import open_sandbox

    names: dict[str, Any] = {"open_sandbox": open_sandbox}
    last = "        await other.undo()\n"
    exec(STEP_BACK.replace(last, last + '        return (await other.run("x")).value\n'), names)
    assert await names["step_back"]() == "1"


@pytest.mark.docker
async def test_what_the_page_on_the_sandbox_shows_holds() -> None:
    names: dict[str, Any] = {}
    exec(SANDBOX, names)
    await names["main"]()


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 120
