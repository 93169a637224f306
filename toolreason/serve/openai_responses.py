"""The Responses API's shapes: items that come in, items and responses that go out."""

from __future__ import annotations

from typing import Any

from toolreason.adapters.parts import Part
from toolreason.errors import InputError
from toolreason.serve import openai_wire as wire
from toolreason.types import Outcome, Trajectory


def items(request: wire.ResponsesRequest) -> list[wire.Message]:
    """The messages of a Responses request. Raises InputError for items that are none; those that we gave before are understood."""
    given = [{"role": "user", "content": request.input}] if isinstance(request.input, str) else request.input
    messages = [wire.Message(role="developer", content=request.instructions)] if request.instructions else []
    for item in given:
        if not isinstance(item, dict):
            raise InputError("an item of `input` is an object")
        if item.get("type", "message") == "message":
            messages.append(wire.Message(role=str(item.get("role")), content=item.get("content")))
        elif item["type"] not in ("reasoning", "code_interpreter_call"):
            raise InputError(f"an item of `input` of type {item['type']!r} is not understood: messages are")
    if not messages:
        raise InputError("`input` is empty")
    return messages


def item(part: Part, identity: str, result: Part | None = None) -> dict[str, Any]:
    """An output item. A call has its result in it."""
    match part.kind:
        case "text":
            content = [{"type": "output_text", "text": part.text, "annotations": [], "logprobs": []}]
            return {"type": "message", "id": identity, "role": "assistant", "status": "completed", "content": content}
        case "reasoning":
            content = [{"type": "reasoning_text", "text": part.text}]
            return {"type": "reasoning", "id": identity, "summary": [], "content": content, "status": "completed"}
    logs = [] if result is None else [{"type": "logs", "logs": result.text}]
    good = result is not None and result.outcome == Outcome.OK
    return {
        "type": "code_interpreter_call",
        "id": identity,
        "code": part.text,
        "container_id": "toolreason",
        "outputs": logs,
        "status": "completed" if good else "failed",
    }


def output(parts: list[Part]) -> list[dict[str, Any]]:
    """All output items of a rollout."""
    results = {one.call_id: one for one in parts if one.kind == "result"}
    return [item(one, item_id(one, place), results.get(one.call_id)) for place, one in enumerate(parts) if one.kind != "result"]


def item_id(part: Part, place: int) -> str:
    return f"{ {'text': 'msg', 'reasoning': 'rs'}.get(part.kind, 'ci') }_{place}"


def response(
    identity: str, model: str, created: float, request: wire.ResponsesRequest, done: Trajectory | None, parts: list[Part]
) -> dict[str, Any]:
    """A response, of a rollout that has ended or (without `done`) is under way."""
    cut = done is not None and done.stop in wire.LENGTH
    counted = None
    if done is not None:
        found = wire.usage(done)
        counted = {
            "input_tokens": found["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": found["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": found["total_tokens"],
        }
    return {
        "id": identity,
        "object": "response",
        "created_at": created,
        "status": "in_progress" if done is None else "incomplete" if cut else "completed",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata or {},
        "model": model,
        "output": output(parts) if done is not None else [],
        "parallel_tool_calls": False,
        "previous_response_id": request.previous_response_id,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "tool_choice": "auto",
        "tools": [],
        "usage": counted,
        **({wire.OWN: wire.about(done)} if done is not None else {}),
    }
