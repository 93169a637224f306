"""Rollouts as OpenTelemetry spans and LangSmith runs: the tree, what is told, what is not, and nothing where nobody listens."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langsmith import Client
from langsmith import utils as langsmith_utils
from langsmith.run_helpers import tracing_context
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from toolreason import reasoner
from toolreason.errors import PolicyError
from toolreason.execution import SessionBook
from toolreason.execution.scripted import ScriptedSandbox
from toolreason.policies.chat import ChatPolicy
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.rollouts import rollout
from toolreason.strategies.artist import ArtistSettings
from toolreason.tracing import CONTENT, Caller
from toolreason.types import CellResult, Outcome, Problem, Sampling

from .serve.endpoint import endpoint

FENCED = ArtistSettings(format="fenced", max_tokens=200)
CALL, ANSWER = "Let me see.\n```python\nprint(6*7)\n```\n", "So \\boxed{42}."
PROBLEM = Problem("p", "What is six times seven?")


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """A provider of this test alone: the library lets a program set its own only once."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield exporter
    provider.shutdown()


class Kept(Client):
    """A client of LangSmith that keeps what it is told, and reaches nobody."""

    def __init__(self) -> None:
        langsmith_utils.get_env_var.cache_clear()
        super().__init__(api_url="http://127.0.0.1:9", api_key="none", auto_batch_tracing=False, info={})
        self.kept: list[dict[str, Any]] = []
        self.outputs: dict[Any, Any] = {}

    def create_run(self, name: str, inputs: Any, run_type: Any, **rest: Any) -> None:
        self.kept.append({"name": name, "type": run_type, "inputs": inputs, "parent": rest.get("parent_run_id"), **rest})

    def update_run(self, run_id: Any, **rest: Any) -> None:
        self.outputs[run_id] = rest.get("outputs")


async def rolled(*replies: Any, **results: Any) -> Any:
    box = ScriptedSandbox({"print(6*7)": "42\n", **results})
    policy = ScriptedPolicy(list(replies), name="vllm:small")
    sampling = Sampling(temperature=0.5, seed=3)
    return await rollout(PROBLEM, strategy="artist", settings=FENCED, policy=policy, sessions=SessionBook(box), sampling=sampling)


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_rollout_is_a_span_with_its_calls_and_cells_below_it(spans: InMemorySpanExporter) -> None:
    done = await rolled(CALL, ANSWER)
    found = spans.get_finished_spans()
    assert [span.name for span in found] == [
        "text_completion small",
        "execute_tool python",
        "text_completion small",
        "invoke_agent artist",
    ]
    *below, agent = found
    assert agent.context is not None
    assert agent.parent is None
    assert {span.parent.span_id for span in below if span.parent} == {agent.context.span_id}
    assert {name: told(agent)[name] for name in told(agent) if name.startswith("gen_ai")} == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "small",
        "gen_ai.agent.name": "artist",
        "gen_ai.response.id": done.id,
        "gen_ai.request.max_tokens": 200,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 1.0,
        "gen_ai.request.seed": 3,
        "gen_ai.usage.input_tokens": len(done.token_ids) - sum(len(s.token_ids) for s in done.segments if s.source == "model"),
        "gen_ai.usage.output_tokens": sum(len(s.token_ids) for s in done.segments if s.source == "model"),
        "gen_ai.response.finish_reasons": ("answered",),
    }
    first, cell, second = map(told, below)
    assert (first["gen_ai.response.finish_reasons"], second["gen_ai.usage.output_tokens"]) == (
        ("stop",),
        len(done.segments[-1].token_ids),
    )
    assert (cell["gen_ai.tool.name"], cell["gen_ai.tool.call.id"], cell["toolreason.outcome"]) == ("python", f"{done.id}:0", "ok")


async def test_what_was_said_is_recorded_only_where_it_is_asked_for(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rolled(CALL, ANSWER)
    values = [str(value) for span in spans.get_finished_spans() for value in told(span).values()]
    assert not [value for value in values if "6*7" in value or "boxed" in value or "six times" in value]
    spans.clear()
    monkeypatch.setenv(CONTENT, "true")
    await rolled(CALL, ANSWER)
    first, cell, _, agent = map(told, spans.get_finished_spans())
    assert PROBLEM.question in json.loads(first["gen_ai.input.messages"])[0]["parts"][0]["content"]
    assert json.loads(first["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": CALL}], "finish_reason": "stop"}
    ]
    assert (json.loads(cell["gen_ai.tool.call.arguments"]), cell["gen_ai.tool.call.result"]) == ({"code": "print(6*7)\n"}, "42\n")
    assert "\\boxed{42}" in json.loads(agent["gen_ai.output.messages"])[0]["parts"][0]["content"]


async def test_a_cell_that_fails_and_a_rollout_that_is_aborted_are_errors(spans: InMemorySpanExporter) -> None:
    await rolled(CALL, ANSWER, **{"print(6*7)": CellResult(Outcome.TIMEOUT)})
    cell, agent = spans.get_finished_spans()[1], spans.get_finished_spans()[-1]
    assert (told(cell)["error.type"], cell.status.status_code) == ("timeout", StatusCode.ERROR)
    assert agent.status.status_code is StatusCode.UNSET  # the model's mistake, not the rollout's
    spans.clear()
    down = PolicyError("the engine is down, asked for a secret")
    await rolled(down, down, down)
    assert len(spans.get_finished_spans()) == 4
    for one in spans.get_finished_spans():
        assert (told(one)["error.type"], one.status.status_code) == ("PolicyError", StatusCode.ERROR)
        assert "secret" not in one.to_json()


async def test_a_node_that_waits_for_a_person_is_no_error_and_does_not_tell_the_code(spans: InMemorySpanExporter) -> None:
    policy, box = ScriptedPolicy([CALL, ANSWER]), ScriptedSandbox({"print(6*7)": "42\n"})
    graph = StateGraph(MessagesState)
    graph.add_node("reason", reasoner("artist", policy=policy, sandbox=box, settings=FENCED, review=True))
    graph.add_edge(START, "reason")
    waiting = await graph.compile(checkpointer=InMemorySaver()).ainvoke(
        {"messages": [HumanMessage("Six times seven?")]}, {"configurable": {"thread_id": "t"}}
    )
    assert waiting["__interrupt__"]
    _, agent = spans.get_finished_spans()
    assert (agent.name, agent.status.status_code) == ("invoke_agent artist", StatusCode.UNSET)
    assert "6*7" not in agent.to_json()


async def test_a_rollout_that_is_cancelled_ends_its_spans(spans: InMemorySpanExporter) -> None:
    policy = ScriptedPolicy([ANSWER * 50], delay_s=0.05)
    task = asyncio.ensure_future(rollout(PROBLEM, strategy="plain", policy=policy))
    while not policy.calls:  # noqa: ASYNC110 (it tells of it in no other way)
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [told(one)["error.type"] for one in spans.get_finished_spans()] == ["CancelledError"] * 2


async def test_a_chat_model_counts_no_tokens_and_tells_langsmith_itself(spans: InMemorySpanExporter) -> None:
    client = Kept()
    with tracing_context(enabled=True, client=client):
        await rollout(PROBLEM, strategy="plain", policy=ChatPolicy(FakeListChatModel(responses=[ANSWER]), name="chat:x"))
    assert [run["name"] for run in client.kept if run["type"] == "llm"] == ["FakeListChatModel"]
    assert [one.name for one in spans.get_finished_spans()] == ["chat x", "invoke_agent plain"]
    assert not [name for one in spans.get_finished_spans() for name in told(one) if "usage" in name]


async def test_half_a_surrogate_does_not_reach_the_exporter(spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONTENT, "span_only")
    policy = ScriptedPolicy([ANSWER], name="vllm:\ud800")
    await rollout(Problem("p", "\ud800?"), strategy="plain", policy=policy, key="k\ud800")
    for one in spans.get_finished_spans():
        "".join((one.name, *map(str, told(one).values()))).encode()


@pytest.mark.parametrize(
    ("sent", "parent"), [("00-" + "4b" * 16 + "-" + "0f" * 8 + "-01", "0f" * 8), ("nonsense", None), (None, None)]
)
async def test_a_request_is_part_of_its_callers_trace(spans: InMemorySpanExporter, sent: str | None, parent: str | None) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await rollout(PROBLEM, strategy="plain", policy=ScriptedPolicy([ANSWER]))

    await Caller(app)({"type": "http", "headers": [(b"traceparent", sent.encode())] if sent else []}, None, None)
    *_, agent = spans.get_finished_spans()
    assert (f"{agent.parent.span_id:016x}" if agent.parent else None) == parent
    assert not trace.get_current_span().get_span_context().is_valid


def test_the_endpoint_goes_on_with_its_callers_trace(spans: InMemorySpanExporter) -> None:
    asked = {"model": "reasoner", "messages": [{"role": "user", "content": "Python: 6*7?"}]}
    headers = {"traceparent": "00-" + "4b" * 16 + "-" + "0f" * 8 + "-01"}
    with endpoint() as served:
        httpx.post(f"{served.url}/v1/chat/completions", json=asked, headers=headers, timeout=30).raise_for_status()
    found = spans.get_finished_spans()
    assert "invoke_agent artist" in [one.name for one in found]
    assert {f"{one.context.trace_id:032x}" for one in found if one.context} == {"4b" * 16}


async def test_it_hangs_below_the_span_of_the_caller_in_a_graph_too(spans: InMemorySpanExporter) -> None:
    policy = ScriptedPolicy([ANSWER], name="scripted:x")
    with trace.get_tracer_provider().get_tracer("caller").start_as_current_span("request") as request:
        await reasoner("plain", policy=policy, sandbox=None).ainvoke({"messages": [("user", "What?")]})
    call, agent, outer = spans.get_finished_spans()
    assert (outer.name, agent.name, call.name) == ("request", "invoke_agent plain", "text_completion x")
    assert agent.parent is not None
    assert agent.parent.span_id == request.get_span_context().span_id
    assert call.parent is not None
    assert agent.context is not None
    assert call.parent.span_id == agent.context.span_id


@pytest.mark.parametrize("there", [True, False])
def test_without_a_provider_and_without_the_library_a_rollout_is_as_ever(there: bool) -> None:
    code = f"""
import asyncio, sys
if not {there}:
    sys.modules["opentelemetry"] = None
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.rollouts import rollout
from toolreason.types import Problem
print(asyncio.run(rollout(Problem("p", "?"), strategy="plain", policy=ScriptedPolicy(["\\\\boxed{{1}}"]))).stop)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("answered\n", "")


async def test_langsmith_sees_calls_and_cells_below_their_nodes() -> None:
    client = Kept()
    with tracing_context(enabled=True, client=client):
        await rolled(CALL, ANSWER)
    runs = [run for run in client.kept if run["type"] in ("llm", "tool")]
    assert [(run["type"], run["name"]) for run in runs] == [("llm", "small"), ("tool", "python"), ("llm", "small")]
    first, cell, _ = runs
    assert cell["inputs"]["code"].strip() == "print(6*7)"
    assert cell["parent"] is not None
    assert first["extra"]["metadata"].items() >= {"ls_provider": "vllm", "ls_model_name": "small"}.items()
    usage = client.outputs[first["id"]]["usage_metadata"]
    assert usage["input_tokens"] + usage["output_tokens"] == usage["total_tokens"] > 0
