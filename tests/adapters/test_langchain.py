"""The LangChain tool: LangChain's own suites over real containers, and what it promises beyond them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.tools import BaseTool
from langchain_tests.integration_tests import ToolsIntegrationTests
from langchain_tests.unit_tests import ToolsUnitTests

from toolreason.adapters.langchain import PythonTool
from toolreason.errors import SandboxError
from toolreason.execution import Limits, ScriptedSandbox
from toolreason.execution.docker import DockerSandbox
from toolreason.types import CellResult, Outcome


@pytest.fixture(scope="module")
def python() -> Iterator[PythonTool]:
    with PythonTool(sandbox=DockerSandbox(Limits(cell_timeout_s=20, memory_mb=256), density="shared", pool=1)) as tool:
        yield tool


class TestUnit(ToolsUnitTests):
    @property
    def tool_constructor(self) -> type[BaseTool]:
        return PythonTool

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"code": "print(6 * 7)"}


@pytest.mark.docker
class TestIntegration(ToolsIntegrationTests):
    @property
    def tool_constructor(self) -> type[BaseTool]:
        return PythonTool

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"code": "print(6 * 7)"}

    @pytest.fixture
    def tool(self, python: PythonTool) -> BaseTool:
        return python


def thread(name: str) -> Any:
    return {"configurable": {"thread_id": name}}


def call(code: str) -> dict[str, Any]:
    return {"name": "python", "args": {"code": code}, "id": "1", "type": "tool_call"}


@pytest.mark.docker
def test_calls_of_a_thread_share_variables_and_files_and_threads_share_nothing(python: PythonTool) -> None:
    assert python.invoke({"code": "x = 1\nopen('f', 'w').write('here')"}, thread("a")) == "4"
    assert python.invoke({"code": "x, open('f').read()"}, thread("a")) == "(1, 'here')"
    assert "NameError" in python.invoke({"code": "x"}, thread("b"))
    assert python.invoke({"code": "import os\nos.path.exists('f')"}, thread("b")) == "False"
    python.release("a")
    assert "NameError" in python.invoke({"code": "x"}, thread("a"))


@pytest.mark.docker
async def test_the_synchronous_call_works_inside_a_running_loop_and_both_share_the_session(python: PythonTool) -> None:
    assert python.invoke({"code": "y = 20"}, thread("mixed")) == "[the code ran and printed nothing: print() what you want to see]"
    assert await python.ainvoke({"code": "y += 1; y"}, thread("mixed")) == "21"
    values = await asyncio.gather(*(python.ainvoke({"code": f"{n} * y"}, thread("mixed")) for n in range(5)))
    assert values == ["0", "21", "42", "63", "84"]


@pytest.mark.docker
def test_the_artifact_is_the_result_and_figures_are_image_blocks(python: PythonTool) -> None:
    message = python.invoke(call("import sys\nprint('err', file=sys.stderr)\n1 / 0"), thread("c"))
    assert "ZeroDivisionError" in message.content
    assert isinstance(message.artifact, CellResult)
    assert (message.artifact.outcome, message.artifact.stderr) == (Outcome.ERROR, "err\n")
    message = python.invoke(call("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nprint('drawn')"), thread("c"))
    text, figure = message.content_blocks
    assert (text["type"], text["text"]) == ("text", "drawn")
    assert (figure["type"], figure["mime_type"], base64.b64decode(figure["base64"])[:4]) == ("image", "image/png", b"\x89PNG")


@pytest.mark.docker
async def test_a_cancelled_call_leaves_the_thread_usable_as_it_was(python: PythonTool) -> None:
    await python.ainvoke({"code": "z = 5"}, thread("d"))
    waiting = asyncio.create_task(python.ainvoke({"code": "z = 6\nwhile True: pass"}, thread("d")))
    await asyncio.sleep(0.5)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await python.ainvoke({"code": "z"}, thread("d")) == "5"  # its cells ran again in another session


def test_a_model_that_gives_every_call_the_same_id_gets_each_of_them_run() -> None:
    sandbox = ScriptedSandbox(lambda code: f"{len(sandbox.calls)}\n")
    with PythonTool(sandbox=sandbox) as tool:
        assert [tool.invoke(call("x += 1")).content for _ in range(3)] == ["1", "2", "3"]
    assert sandbox.sessions == 1


def test_beyond_the_most_threads_the_longest_unused_is_ended() -> None:
    sandbox = ScriptedSandbox(lambda code: "x")
    with PythonTool(sandbox=sandbox, max_threads=2) as tool:
        for name in ("a", "b", "a", "c", "a", "c"):
            tool.invoke({"code": "1"}, thread(name))
        assert (sandbox.sessions, sandbox.open) == (3, 2)
        tool.invoke({"code": "1"}, thread("b"))
        assert (sandbox.sessions, sandbox.open) == (4, 2)


def test_a_sandbox_that_fails_is_an_exception_and_a_closed_tool_says_so() -> None:
    with (
        PythonTool(sandbox=ScriptedSandbox({"1": SandboxError("no engine")})) as tool,
        pytest.raises(SandboxError, match="no engine"),
    ):
        tool.invoke({"code": "1"})
    tool.close()
    with pytest.raises(SandboxError, match="closed"):
        tool.invoke({"code": "1"})


def test_the_model_is_told_name_purpose_and_argument() -> None:
    schema = PythonTool().tool_call_schema.model_json_schema()
    assert set(schema["properties"]) == {"code"}
    assert schema["properties"]["code"]["description"]
