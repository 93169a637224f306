"""`langgraph dev` over `graphs/langgraph.json`: LangGraph's own server and SDK, the real sandbox, a scripted policy."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from toolreason.execution import reaper
from toolreason.execution.engine import Engine

ROOT = Path(__file__).parent.parent
SERVER = ROOT / ".venv-langgraph" / "bin" / "langgraph"
CODE = "import time\ntime.sleep(1.5)\nprint(6 * 7)"
REPLIES = [f"<think>Let me compute.</think>\n<python>\n{CODE}\n</python>", "<answer>\\boxed{42}</answer>"]
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "What is six times seven?"}]}

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    assert SERVER.exists(), "LangGraph's server is not here: make langgraph"
    folder = tmp_path_factory.mktemp("dev")
    (folder / "replies.json").write_text(json.dumps(REPLIES * 20))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"TOOLREASON_POLICY": f"scripted:{folder / 'replies.json'}", "TOOLREASON_SANDBOX": "shared"}
    quiet = {"LANGGRAPH_CLI_NO_ANALYTICS": "1", "LANGSMITH_TRACING": "false", "NO_COLOR": "1"}
    command = [
        str(SERVER),
        "dev",
        "--config",
        str(ROOT / "graphs" / "langgraph.json"),
        "--port",
        str(port),
        "--no-browser",
        "--no-reload",
    ]
    log = (folder / "log").open("w+")
    with subprocess.Popen(command, cwd=folder, env={**os.environ, **own, **quiet}, stdout=log, stderr=log) as process:
        try:
            yield ready(f"http://127.0.0.1:{port}", process, folder / "log")
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
            log.close()
    deadline = time.monotonic() + 30
    while (left := containers(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left


def ready(address: str, process: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(240):
        try:
            if httpx.get(f"{address}/ok").status_code == 200:
                return address
        except httpx.TransportError:
            time.sleep(0.25)
        assert process.poll() is None, log.read_text()[-3000:]
    raise AssertionError(log.read_text()[-3000:])


def containers(pid: int) -> list[str]:
    client = Engine.find().client()
    try:
        return [one["Id"] for one in client.api.containers(all=True, filters={"label": f"{reaper.LABEL}.pid={pid}"})]
    finally:
        client.close()


@pytest.fixture
async def client(url: str) -> AsyncIterator[LangGraphClient]:
    opened = get_client(url=url, api_key=None)
    yield opened
    await opened.aclose()


def answered(state: Any) -> None:
    """The last message is the answer, with its blocks and its trajectory."""
    last = state["messages"][-1]
    assert last["type"] == "ai"
    kinds = [block["type"] for block in last["content"] if block.get("text", "said").strip()]
    assert kinds == ["reasoning", "server_tool_call", "server_tool_result", "text"]
    trajectory = last["response_metadata"]["trajectory"]
    [cell] = [segment["cell"] for segment in trajectory["segments"] if segment["cell"]]
    assert (cell["code"], cell["result"]["stdout"]) == (CODE, "42\n")


async def test_every_graph_that_is_named_is_offered_and_one_answers(client: LangGraphClient) -> None:
    named = json.loads((ROOT / "graphs" / "langgraph.json").read_text())["graphs"]
    assert {one["graph_id"] for one in await client.assistants.search()} == set(named)
    thread = await client.threads.create()
    answered(await client.runs.wait(thread["thread_id"], "artist", input=ASK))


async def test_a_stream_carries_text_calls_and_results_as_they_come(client: LangGraphClient) -> None:
    thread = await client.threads.create()
    how: dict[str, Any] = {"stream_mode": ["custom", "values"], "stream_subgraphs": True}
    seen: list[dict[str, Any]] = []
    last: Any = None
    async for part in client.runs.stream(thread["thread_id"], "artist", input=ASK, **how):
        if part.event.startswith("custom"):
            seen.append(dict(part.data))
        elif part.event == "values":
            last = part.data
    assert "Let me compute." in "".join(event["text"] for event in seen if event["kind"] == "text")
    assert [event["code"] for event in seen if event["kind"] == "call"] == [CODE]
    assert [event["outcome"] for event in seen if event["kind"] == "result"] == ["ok"]
    answered(last)


async def test_who_lost_the_connection_joins_again_and_gets_the_end(client: LangGraphClient) -> None:
    thread = await client.threads.create()
    run = await client.runs.create(thread["thread_id"], "artist", input=ASK, stream_mode=["values"], stream_resumable=True)
    async for _ in client.runs.join_stream(thread["thread_id"], run["run_id"]):
        break  # gone, while the cell runs
    values = [part.data async for part in client.runs.join_stream(thread["thread_id"], run["run_id"]) if part.event == "values"]
    answered(values[-1])
    answered((await client.threads.get_state(thread["thread_id"]))["values"])


async def test_a_thread_is_a_conversation(client: LangGraphClient) -> None:
    thread = await client.threads.create()
    for _ in range(2):
        state = await client.runs.wait(thread["thread_id"], "artist", input=ASK)
    prompt = state["messages"][-1]["response_metadata"]["trajectory"]["segments"][0]["text"]  # type: ignore[index, call-overload]
    assert prompt.count("What is six times seven?") == 2
    assert len(state["messages"]) == 4  # type: ignore[call-overload]
