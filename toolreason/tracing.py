"""Rollouts as spans, by OpenTelemetry's conventions for generative AI, and as LangSmith runs.

    invoke_agent STRATEGY          a rollout: model, settings, tokens, how it stopped
      text_completion MODEL        a call of the policy (`chat` for one that takes messages)
      execute_tool python          a cell, with its outcome

Spans go to the tracer provider that the program has set up; without one, or without the library, nothing is done. What was said,
written and printed is recorded only if `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` says so. LangGraph tells LangSmith of
its graphs and nodes itself, where `LANGSMITH_TRACING` is on; calls of the policy and cells are added below their nodes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
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
            self._span.set_attributes(_plain({**attributes, **(content if _recorded() else {})}))
            if error is not None:
                _failed(self._span, error)
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
    usage = _usage(done.tokens(Source.PROMPT, Source.HINT, Source.TOOL), done.tokens(Source.MODEL))
    attributes = {**usage, "gen_ai.response.finish_reasons": (done.stop.value,), "toolreason.calls": len(done.cells)}
    error = (done.error or "aborted").partition(":")[0] if done.stop is StopReason.ABORTED else None
    span.tell(attributes, {"gen_ai.output.messages": _message("assistant", done.response, finish_reason=done.stop.value)}, error)


async def sample(policy: Any, segments: Sequence[Segment], sampling: Sampling, **how: Any) -> Any:
    """`policy.sample`, told of."""
    operation = "text_completion" if policy.exact else "chat"
    model = policy.name.partition(":")[2] or policy.name
    request = _drawn(sampling) | {f"gen_ai.request.{name}": how.get(name) for name in ("seed", "max_tokens")}
    spanned = _span(f"{operation} {model}", operation, policy.name, request, client=True)
    said = {"segments": [segment.text for segment in segments]}
    below = _run(model, "llm", said, _for_langsmith(policy.name, model, sampling, how), wanted=policy.exact)
    with spanned as one, below as run:
        done = await policy.sample(segments, sampling, **how)
        usage = _usage(sum(len(segment.token_ids) for segment in segments), len(done.token_ids))
        told = {**usage, "gen_ai.response.finish_reasons": (done.finish.value,)}
        asked = "".join(segment.text for segment in segments) if one is not None and _recorded() else ""
        wrote = _message("assistant", done.text, finish_reason=done.finish.value)
        Span(one).tell(told, {"gen_ai.input.messages": _message("user", asked), "gen_ai.output.messages": wrote})
        if run is not None:
            counted = {name.rpartition(".")[2]: count for name, count in usage.items()}
            run.end(outputs={"text": done.text, "usage_metadata": {**counted, "total_tokens": sum(counted.values())}})
        return done


async def execute(sessions: Any, key: str, call_id: str, code: str, **how: Any) -> CellResult:
    """`sessions.run`, told of."""
    request = {"gen_ai.tool.name": "python", "gen_ai.tool.call.id": call_id, "gen_ai.tool.type": "extension"}
    if _recorded():
        request["gen_ai.tool.call.arguments"] = json.dumps({"code": code[:LONGEST]})
    with _span("execute_tool python", "execute_tool", None, request) as one, _run("python", "tool", {"code": code}, {}) as run:
        result: CellResult = await sessions.run(key, call_id, code, **how)
        told = {"toolreason.outcome": result.outcome.value, "toolreason.cell_seconds": result.duration_s}
        printed = {"gen_ai.tool.call.result": (result.stdout or result.value or result.error or "")[:LONGEST]}
        Span(one, run).tell(told, printed, None if result.ok else result.outcome.value)
        return result


class Caller:
    """ASGI middleware: what a request asks for is part of the trace that its `traceparent` names, unless the server has a span."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        api = sys.modules.get("opentelemetry.trace")
        if api is None or api.get_current_span().get_span_context().is_valid:
            await self.app(scope, receive, send)
            return
        from opentelemetry import context, propagate

        sent = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope.get("headers", ())}
        here = context.attach(propagate.extract(sent))
        try:
            await self.app(scope, receive, send)
        finally:
            context.detach(here)


def _message(role: str, text: str, **more: str) -> str:
    """As the conventions write messages."""
    return json.dumps([{"role": role, "parts": [{"type": "text", "content": text[:LONGEST]}], **more}])


def _usage(read: int, wrote: int) -> dict[str, int]:
    """Nothing where a policy that takes messages counts no tokens."""
    return {"gen_ai.usage.input_tokens": read, "gen_ai.usage.output_tokens": wrote} if read else {}


def _for_langsmith(policy: str, model: str, sampling: Sampling, how: Mapping[str, Any]) -> dict[str, Any]:
    named = {"ls_provider": policy.partition(":")[0], "ls_model_name": model, "ls_model_type": "llm"}
    return {**named, "ls_temperature": sampling.temperature, "ls_max_tokens": how.get("max_tokens")}


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
    tracer = provider.get_tracer(SCOPE)
    kind_of = api.SpanKind.CLIENT if client else api.SpanKind.INTERNAL
    how = {"kind": kind_of, "attributes": _plain(told), "record_exception": False, "set_status_on_exception": False}
    with tracer.start_as_current_span(_clean(name), **how) as span:
        try:
            yield span
        except BaseException as error:
            from langgraph.errors import GraphBubbleUp

            if not isinstance(error, GraphBubbleUp):  # to wait for a person is no error
                _failed(span, type(error).__name__)
            raise


def _failed(span: Any, why: str) -> None:
    """An error is told by its name: its text may quote what was said, and an interrupt holds the code."""
    span.set_attribute("error.type", why)
    span.set_status(sys.modules["opentelemetry.trace"].StatusCode.ERROR)


def _plain(attributes: Attributes) -> dict[str, Any]:
    """Without what is not known, and in texts that an exporter can write: half a surrogate would lose it the whole batch."""
    return {name: _clean(value) if isinstance(value, str) else value for name, value in attributes.items() if value is not None}


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _run(name: str, kind: str, inputs: Mapping[str, Any], metadata: Attributes, wanted: bool = True) -> AbstractContextManager[Any]:
    """A LangSmith run below the current one, where tracing is on. A chat model tells of itself: it is not wanted twice."""
    langsmith = sys.modules.get("langsmith.utils")
    if not wanted or langsmith is None or not langsmith.tracing_is_enabled():
        return nullcontext()
    from langsmith import trace

    return trace(name, run_type=kind, inputs=dict(inputs), metadata=dict(metadata))  # type: ignore[arg-type]


def _recorded() -> bool:
    return os.environ.get(CONTENT, "").lower() in ("true", "1", "span_only", "span_and_event")
