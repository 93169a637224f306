"""Rollouts as OpenTelemetry spans and LangSmith runs: the tree, what is told, what is not, and nothing where nobody listens."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from toolreason import reasoner
from toolreason.errors import PolicyError
from toolreason.execution import SessionBook
from toolreason.execution.scripted import ScriptedSandbox
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.rollouts import rollout
from toolreason.strategies.artist import ArtistSettings
from toolreason.tracing import CONTENT
from toolreason.types import CellResult, Outcome, Problem, Sampling

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
    assert not [value for value in values if "6*7" in value or "42" in value]
    spans.clear()
    monkeypatch.setenv(CONTENT, "true")
    await rolled(CALL, ANSWER)
    first, cell, _, agent = map(told, spans.get_finished_spans())
    assert "print(6*7)" in first["gen_ai.output.messages"]
    assert (cell["gen_ai.tool.call.arguments"].strip(), cell["gen_ai.tool.call.result"]) == ("print(6*7)", "42\n")
    assert "\\boxed{42}" in agent["gen_ai.output.messages"]


async def test_a_cell_that_fails_and_a_rollout_that_is_aborted_are_errors(spans: InMemorySpanExporter) -> None:
    await rolled(CALL, ANSWER, **{"print(6*7)": CellResult(Outcome.TIMEOUT)})
    cell, agent = spans.get_finished_spans()[1], spans.get_finished_spans()[-1]
    assert (told(cell)["error.type"], cell.status.status_code) == ("timeout", StatusCode.ERROR)
    assert agent.status.status_code is StatusCode.UNSET  # the model's mistake, not the rollout's
    spans.clear()
    down = PolicyError("the engine is down")
    await rolled(down, down, down)
    *calls, agent = spans.get_finished_spans()
    assert [span.status.status_code for span in calls] == [StatusCode.ERROR] * 3
    assert (told(agent)["error.type"], agent.status.status_code) == ("PolicyError", StatusCode.ERROR)


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


async def test_langsmith_sees_calls_and_cells_below_their_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    from langsmith import Client
    from langsmith import utils as langsmith_utils
    from langsmith.run_helpers import tracing_context

    kept: list[dict[str, Any]] = []

    class Kept(Client):
        def create_run(self, name: str, inputs: Any, run_type: Any, **rest: Any) -> None:
            kept.append({"name": name, "type": run_type, "inputs": inputs, "parent": rest.get("parent_run_id")})

        def update_run(self, run_id: Any, **rest: Any) -> None:
            kept[0].setdefault("ended", []).append(rest.get("outputs"))

    langsmith_utils.get_env_var.cache_clear()
    client = Kept(api_url="http://127.0.0.1:9", api_key="none", auto_batch_tracing=False, info={})
    with tracing_context(enabled=True, client=client):
        await rolled(CALL, ANSWER)
    runs = [(run["type"], run["name"]) for run in kept if run["type"] in ("llm", "tool")]
    assert runs == [("llm", "small"), ("tool", "python"), ("llm", "small")]
    [cell] = [run for run in kept if run["type"] == "tool"]
    assert cell["inputs"]["code"].strip() == "print(6*7)"
    assert cell["parent"] is not None
