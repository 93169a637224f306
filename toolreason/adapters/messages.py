"""Conversations in LangChain's messages: a question from them, and an answer as one of them, with standard content blocks."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.messages.ai import UsageMetadata

from toolreason.adapters.parts import Part, parts
from toolreason.errors import InputError
from toolreason.types import Outcome, Problem, Source, StopReason, Trajectory, Turn, from_json, to_json

KEY = "trajectory"  # of the response metadata
ROLES = {"system": "system", "human": "user", "ai": "assistant"}
FINISH = {StopReason.LENGTH: "length", StopReason.CONTEXT_FULL: "length"}


def problem(messages: Sequence[Any]) -> Problem:
    """The last message as a question, those before it as its history. Raises InputError where there is none, or nothing to read."""
    said = convert_to_messages(list(messages))
    if not said or not isinstance(said[-1], HumanMessage) or not said[-1].text.strip():
        raise InputError("the last message has to be the user's, with a text: it is the question")
    history = tuple(Turn(ROLES[one.type], one.text) for one in said[:-1] if one.type in ROLES and one.text)
    return Problem(said[-1].id or uuid.uuid4().hex, said[-1].text, history=history)


def message(done: Trajectory) -> AIMessage:
    """The rollout as an answer. Its content are standard blocks: reasoning, server_tool_call, server_tool_result, text."""
    return AIMessage(
        content=[block(part) for part in parts(done)],
        id=f"run-{done.id}",
        response_metadata=metadata(done),
        usage_metadata=usage(done),
    )


def block(part: Part) -> dict[str, Any]:
    """One part as a content block."""
    match part.kind:
        case "text":
            return {"type": "text", "text": part.text}
        case "reasoning":
            return {"type": "reasoning", "reasoning": part.text}
        case "call":
            return {"type": "server_tool_call", "id": part.call_id, "name": "python", "args": {"code": part.text}}
        case "result":
            status = "success" if part.outcome == Outcome.OK else "error"
            return {"type": "server_tool_result", "tool_call_id": part.call_id, "status": status, "output": part.text}
    raise AssertionError(part.kind)


def metadata(done: Trajectory) -> dict[str, Any]:
    """What a message says of where it comes from; the whole trajectory too, as plain data that any checkpointer keeps."""
    return {
        "model_name": done.policy,
        "finish_reason": FINISH.get(done.stop, "stop"),
        "stop_reason": done.stop.value,
        "strategy": done.strategy,
        KEY: json.loads(to_json(done)),
    }


def trajectory(answer: BaseMessage) -> Trajectory:
    """The trajectory that a message of ours carries. Raises InputError for another's."""
    kept = answer.response_metadata.get(KEY)
    if kept is None:
        raise InputError("this message carries no trajectory: it is not a reasoner's")
    return from_json(Trajectory, json.dumps(kept))


def usage(done: Trajectory) -> UsageMetadata:
    """Tokens in LangChain's words. Hints and results stand in the output."""
    prompt, rest = done.tokens(Source.PROMPT), done.tokens(Source.MODEL, Source.HINT, Source.TOOL)
    return UsageMetadata(input_tokens=prompt, output_tokens=rest, total_tokens=prompt + rest)
