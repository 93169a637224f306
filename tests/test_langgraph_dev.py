"""`langgraph dev` over `graphs/langgraph.json`: LangGraph's own server and SDK, the real sandbox, a scripted policy."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient

from toolreason.execution import reaper
from toolreason.execution.engine import Engine
from toolreason.types import StopReason, Trajectory, from_json

ROOT = Path(__file__).parent.parent
SERVER = ROOT / ".venv-langgraph" / "bin" / "langgraph"
CODE = "import time\ntime.sleep(1.5)\nprint(6 * 7)"
REPLIES = [f"<think>Let me compute.</think>\n<python>\n{CODE}\n</python>", "<answer>\\boxed{42}</answer>"]
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "What is six times seven?"}]}

pytestmark = pytest.mark.docker


class Server(NamedTuple):
    url: str
    pid: int


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    assert SERVER.exists(), "LangGraph's server is not here: make langgraph"
    folder = tmp_path_factory.mktemp("dev")
    (folder / "replies.json").write_text(json.dumps(REPLIES * 20))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {
        "TOOLREASON_POLICY": f"scripted:{folder / 'replies.json'}",
        "TOOLREASON_SANDBOX": "shared",
        "TOOLREASON_STRATEGY": "artist",
        "TOOLREASON_HOME": str(folder),
    }
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
        "--allow-blocking",
    ]
    log = (folder / "log").open("w+")
    with subprocess.Popen(command, cwd=folder, env={**os.environ, **own, **quiet}, stdout=log, stderr=log) as process:
        try:
            yield Server(ready(f"http://127.0.0.1:{port}", process, folder / "log"), process.pid)
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
async def client(server: Server) -> AsyncIterator[LangGraphClient]:
    opened = get_client(url=server.url, api_key=None)
    yield opened
    await opened.aclose()


def answered(state: Any) -> None:
    """The last message is the answer, with its blocks and its trajectory."""
    last = state["messages"][-1]
    assert last["type"] == "ai"
    kinds = [block["type"] for block in last["content"] if block.get("text", "said").strip()]
    assert kinds == ["reasoning", "server_tool_call", "server_tool_result", "text"]
    as_planned(last["response_metadata"]["trajectory"])


def as_planned(trajectory: Any) -> None:
    [cell] = [segment["cell"] for segment in trajectory["segments"] if segment["cell"]]
    assert (cell["code"], cell["result"]["stdout"]) == (CODE, "42\n")


async def test_every_graph_that_is_named_is_offered(client: LangGraphClient) -> None:
    named = json.loads((ROOT / "graphs" / "langgraph.json").read_text())["graphs"]
    assert {one["graph_id"] for one in await client.assistants.search()} == set(named)


@pytest.mark.parametrize("strategy", ["plain", "artist", "hint_infer", "uct"])
async def test_an_agent_answers_by_its_strategy(client: LangGraphClient, strategy: str) -> None:
    state: Any = await client.runs.wait(None, strategy, input=ASK)
    last = state["messages"][-1]
    assert last["type"] == "ai"
    assert last["response_metadata"]["trajectory"]["strategy"] == strategy


async def test_what_runs_in_the_sandbox_is_the_servers_and_ends_with_it(client: LangGraphClient, server: Server) -> None:
    thread = await client.threads.create()
    answered(await client.runs.wait(thread["thread_id"], "artist", input=ASK))
    assert containers(server.pid)  # and none is left when the server has gone: see `server`


async def test_a_stream_carries_text_calls_and_results_as_they_come(client: LangGraphClient) -> None:
    thread = await client.threads.create()
    how: dict[str, Any] = {"stream_mode": ["custom", "messages-tuple", "values"], "stream_subgraphs": True}
    seen: list[dict[str, Any]] = []
    said: list[Any] = []
    last: Any = None
    async for part in client.runs.stream(thread["thread_id"], "artist", input=ASK, **how):
        if part.event.startswith("custom"):
            seen.append(dict(part.data))
        elif part.event.startswith("messages"):
            said.append(part.data)
        elif part.event == "values":
            last = part.data
    assert "Let me compute." in "".join(event["text"] for event in seen if event["kind"] == "text")
    assert [event["code"] for event in seen if event["kind"] == "call"] == [CODE]
    assert [event["outcome"] for event in seen if event["kind"] == "result"] == ["ok"]
    assert [message["id"] for message, _ in said] == [last["messages"][-1]["id"]]
    answered(last)


async def test_who_lost_the_connection_joins_again_and_misses_nothing(client: LangGraphClient) -> None:
    thread = await client.threads.create()
    how: dict[str, Any] = {"stream_mode": ["custom", "values"], "stream_subgraphs": True, "stream_resumable": True}
    run = await client.runs.create(thread["thread_id"], "artist", input=ASK, **how)
    here = thread["thread_id"], run["run_id"]
    seen: list[Any] = []
    async for part in client.runs.join_stream(*here, last_event_id="-1"):
        seen.append(part)
        if part.event.startswith("custom") and part.data["kind"] == "call":
            break  # gone, while the cell runs
    assert (await client.runs.get(*here))["status"] == "running"
    seen += [part async for part in client.runs.join_stream(*here, last_event_id=seen[-1].id)]
    events = [part.data for part in seen if part.event.startswith("custom")]
    assert [event["kind"] for event in events if event["kind"] != "text"] == ["call", "result"]
    text = "".join(event["text"] for event in events if event["kind"] == "text")
    assert [text.count(piece) for piece in ("Let me compute.", "boxed{42}")] == [1, 1]
    answered([part.data for part in seen if part.event == "values"][-1])
    answered((await client.threads.get_state(thread["thread_id"]))["values"])


async def test_who_comes_late_and_has_nothing_gets_the_end(client: LangGraphClient) -> None:
    thread = await client.threads.create()
    run = await client.runs.create(thread["thread_id"], "artist", input=ASK)
    answered(await client.runs.join(thread["thread_id"], run["run_id"]))


async def test_a_problem_becomes_a_trajectory(client: LangGraphClient) -> None:
    state: Any = await client.runs.wait(None, "rollout", input={"problem": {"id": "six", "question": "6*7?", "answer": "42"}})
    assert set(state) == {"trajectory"}
    done = from_json(Trajectory, json.dumps(state["trajectory"]))
    assert (done.problem_id, done.strategy, done.stop) == ("six", "artist", StopReason.ANSWERED)
    as_planned(state["trajectory"])


@pytest.mark.parametrize(
    ("graph", "asked", "why"),
    [
        ("rollout", {"problem": {"id": "six"}}, "no question"),
        ("rollout", {"problem": {"question": "What is in it?", "attachments": ["/etc/passwd"]}}, "attachments"),
        ("artist", {"messages": [{"role": "assistant", "content": "42"}]}, "the last message has to be the user's"),
    ],
)
async def test_input_that_asks_nothing_is_told_why(client: LangGraphClient, graph: str, asked: dict[str, Any], why: str) -> None:
    with pytest.raises(Exception, match=why):
        await client.runs.wait(None, graph, input=asked)


async def test_a_thread_is_a_conversation(client: LangGraphClient) -> None:
    thread = await client.threads.create()
    for _ in range(2):
        state = await client.runs.wait(thread["thread_id"], "artist", input=ASK)
    prompt = state["messages"][-1]["response_metadata"]["trajectory"]["segments"][0]["text"]  # type: ignore[index, call-overload]
    assert prompt.count("What is six times seven?") == 2
    assert len(state["messages"]) == 4  # type: ignore[call-overload]


def test_what_a_server_keeps_is_in_no_source_distribution(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore", "toolreason/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for room in ("graphs", "sandbox"):
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns(".langgraph_api", "__pycache__"))
    (tmp_path / "graphs" / ".langgraph_api").mkdir()
    (tmp_path / "graphs" / ".langgraph_api" / "store.pckl").write_bytes(b"a conversation")
    build = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", "out", "."]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    with tarfile.open(next((tmp_path / "out").glob("*.tar.gz"))) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert {"toolreason/graphs/artist.py", "toolreason/graphs/langgraph.json", "toolreason/sandbox/runner.py"} <= names
    assert not [name for name in names if "langgraph_api" in name or name.startswith(("graphs/", "sandbox/"))]
