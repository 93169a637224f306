"""Rollouts as spans, by OpenTelemetry's conventions for generative AI, and as LangSmith runs.

    invoke_agent STRATEGY          a rollout: model, settings, tokens, how it stopped
      text_completion MODEL        a call of the policy (`chat` for one that takes messages)
      execute_tool python          a cell, with its outcome

Spans go to the tracer provider that the program has set up; without one, or without the library, nothing is done. What was said,
written and printed is recorded only if `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` says so. LangGraph tells LangSmith of
its graphs and nodes itself, where `LANGSMITH_TRACING` is on; calls of the policy and cells are added below their nodes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from toolreason.types import CellResult, Sampling, Segment, Source, StopReason, Trajectory

SCOPE = "toolreason"
CONTENT = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
LONGEST = 10_000  # characters of a recorded text

Attributes = Mapping[str, Any]


class Span:
    """What is told of one thing that happens. All of it is nothing where nobody listens."""

    __slots__ = ("_run", "_span")

    def __init__(self, span: Any = None, run: Any = None) -> None:
        self._span, self._run = span, run

    def tell(self, attributes: Attributes, content: Attributes, error: str | None = None) -> None:
        """How it ended. `content` is what the user may not want recorded."""
        if self._span is not None:
            told = {**attributes, **({name: str(text)[:LONGEST] for name, text in content.items()} if _recorded() else {})}
            self._span.set_attributes({name: value for name, value in told.items() if value is not None})
            if error is not None:
                from opentelemetry.trace import StatusCode

                self._span.set_attribute("error.type", error)
                self._span.set_status(StatusCode.ERROR, error)
        if self._run is not None:
            self._run.end(outputs={**attributes, **content}, error=error)


@contextmanager
def rollout(strategy: str, policy: str, sampling: Sampling, settings: Mapping[str, Any], key: str) -> Iterator[Span]:
    """A rollout, under whatever span is current. LangGraph itself tells LangSmith of it."""
    request = {"gen_ai.agent.name": strategy, "gen_ai.response.id": key, "gen_ai.request.max_tokens": settings.get("max_tokens")}
    with _span(f"invoke_agent {strategy}", "invoke_agent", policy, {**_drawn(sampling), **request}) as span:
        yield Span(span)


def ended(span: Span, done: Trajectory) -> None:
    """Tell a rollout's span what came of it. Hints and results are input: the model did not write them."""
    read = done.tokens(Source.PROMPT, Source.HINT, Source.TOOL)
    usage = {"gen_ai.usage.input_tokens": read, "gen_ai.usage.output_tokens": done.tokens(Source.MODEL)}
    attributes = {**usage, "gen_ai.response.finish_reasons": (done.stop.value,), "toolreason.calls": len(done.cells)}
    error = (done.error or "aborted").partition(":")[0] if done.stop is StopReason.ABORTED else None
    span.tell(attributes, {"gen_ai.output.messages": done.response}, error)


async def sample(policy: Any, segments: Sequence[Segment], sampling: Sampling, **how: Any) -> Any:
    """`policy.sample`, told of."""
    operation = "text_completion" if policy.exact else "chat"
    model = policy.name.partition(":")[2] or policy.name
    request = _drawn(sampling) | {f"gen_ai.request.{name}": how.get(name) for name in ("seed", "max_tokens")}
    said = {"segments": [segment.text for segment in segments]}
    spanned = _span(f"{operation} {model}", operation, policy.name, request, client=True)
    with spanned as one, _run(model, "llm", said, request) as run:
        done = await policy.sample(segments, sampling, **how)
        read = sum(len(segment.token_ids) for segment in segments)
        usage = {"gen_ai.usage.input_tokens": read, "gen_ai.usage.output_tokens": len(done.token_ids)}
        told = {**usage, "gen_ai.response.finish_reasons": (done.finish.value,)}
        Span(one, run).tell(told, {"gen_ai.output.messages": done.text})
        return done


async def execute(sessions: Any, key: str, call_id: str, code: str, **how: Any) -> CellResult:
    """`sessions.run`, told of."""
    request = {"gen_ai.tool.name": "python", "gen_ai.tool.call.id": call_id, "gen_ai.tool.type": "extension"}
    if _recorded():
        request["gen_ai.tool.call.arguments"] = code[:LONGEST]
    with _span("execute_tool python", "execute_tool", None, request) as one, _run("python", "tool", {"code": code}, {}) as run:
        result: CellResult = await sessions.run(key, call_id, code, **how)
        told = {"toolreason.outcome": result.outcome.value, "toolreason.cell_seconds": result.duration_s}
        printed = {"gen_ai.tool.call.result": result.stdout or result.value or result.error or ""}
        Span(one, run).tell(told, printed, None if result.ok else result.outcome.value)
        return result


def _drawn(sampling: Sampling) -> dict[str, Any]:
    named = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k or None, "seed": sampling.seed}
    return {f"gen_ai.request.{name}": value for name, value in named.items()}


@contextmanager
def _span(name: str, operation: str, policy: str | None, attributes: Attributes, client: bool = False) -> Iterator[Any]:
    """A current span, or none where no provider was set up: then nothing has imported the library, or its stand-in is in place."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None or isinstance(provider := api.get_tracer_provider(), api.ProxyTracerProvider):
        yield None
        return
    told = {"gen_ai.operation.name": operation, **attributes}
    if policy is not None:
        kind, _, model = policy.partition(":")
        told |= {"gen_ai.provider.name": kind, "gen_ai.request.model": model or policy}
    kept = {key: value for key, value in told.items() if value is not None}
    tracer = provider.get_tracer(SCOPE)
    kind_of = api.SpanKind.CLIENT if client else api.SpanKind.INTERNAL
    with tracer.start_as_current_span(name, kind=kind_of, attributes=kept) as span:
        yield span


def _run(name: str, kind: str, inputs: Mapping[str, Any], metadata: Attributes) -> AbstractContextManager[Any]:
    """A LangSmith run below the current one, where tracing is on."""
    langsmith = sys.modules.get("langsmith.utils")
    if langsmith is None or not langsmith.tracing_is_enabled():
        return nullcontext()
    from langsmith import trace

    return trace(name, run_type=kind, inputs=dict(inputs), metadata=dict(metadata))  # type: ignore[arg-type]


def _recorded() -> bool:
    return os.environ.get(CONTENT, "").lower() in ("true", "1", "span_only", "span_and_event")
