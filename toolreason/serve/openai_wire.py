"""What clients of the OpenAI API send, and what they are given: requests that are checked, and answers in that API's shapes.

What the API has no word for stands under `toolreason`, which the client passes on: the calls and results of a chat completion, the
trajectory's id and stop reason.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from toolreason.adapters.parts import Part
from toolreason.errors import InputError
from toolreason.types import Problem, Source, StopReason, Trajectory, Turn

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
OWN = "toolreason"
LENGTH = (StopReason.LENGTH, StopReason.CONTEXT_FULL)
Stop = str | list[str] | None


class Own(BaseModel):
    """`extra_body={"toolreason": {"settings": {"max_calls": 2}}}`: settings of the strategy, for this request."""

    model_config = ConfigDict(extra="forbid")
    settings: dict[str, Any] = Field(default_factory=dict)


class _Request(BaseModel):
    """What is not named here is let pass and means nothing: clients send much."""

    model_config = ConfigDict(extra="ignore")
    model: str
    stream: bool = False
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = None
    tools: list[Any] | None = None
    stop: Any = None
    logprobs: bool | None = None
    logit_bias: dict[str, Any] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    toolreason: Own = Field(default_factory=Own)


class Message(BaseModel):
    model_config = ConfigDict(extra="ignore")
    role: str
    content: Any = None


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")
    include_usage: bool = False


class ChatRequest(_Request):
    messages: list[Message] = Field(min_length=1)
    n: Literal[1] = 1
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stream_options: StreamOptions | None = None
    response_format: dict[str, Any] | None = None


class ResponsesRequest(_Request):
    input: str | list[Any]
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    previous_response_id: str | None = None
    metadata: dict[str, str] | None = None


class CompletionRequest(BaseModel):
    model_config = ConfigDict(extra="ignore")
    model: str
    prompt: str | list[int] | list[str]
    max_tokens: int = Field(16, ge=1)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int = 0
    stop: Stop = None
    n: Literal[1] = 1
    stream: bool = False
    echo: Literal[False] = False


def asked(identity: str, messages: Iterable[Message]) -> Problem:
    """The last message as a question in the light of those before. Raises InputError for what is no text, or no question."""
    turns = [Turn(_role(one.role), text_of(one.content)) for one in messages]
    if turns[-1].role != "user" or not turns[-1].text.strip():
        raise InputError("the last message has to be the user's, with a text: it is the question")
    return Problem(identity, turns[-1].text, history=tuple(turn for turn in turns[:-1] if turn.text))


def _role(role: str) -> str:
    if role not in ROLES:
        raise InputError(f"messages are by {', '.join(ROLES)}, not {role!r}: tools are run here, not by the client")
    return ROLES[role]


def text_of(content: Any) -> str:
    """A message's text, which may come in parts."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list) and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        return "".join(part["text"] for part in content)
    raise InputError("the content of a message is a text, or a list of text parts; pictures are not taken here")


def check(request: _Request) -> None:
    """Raises InputError for what is not offered, and would be missed."""
    if request.tools:
        raise InputError("tools of the client's are not called here: this model runs its own. Send the request without `tools`")
    for name in ("stop", "logprobs", "logit_bias", "presence_penalty", "frequency_penalty"):
        if getattr(request, name):
            raise InputError(f"`{name}` is not offered: send the request without it")
    form = (getattr(request, "response_format", None) or {}).get("type", "text")
    if form != "text":
        raise InputError(f"response_format {form!r} is not offered: only text is")


# chat completions


def chat_id(done: Trajectory) -> str:
    return f"chatcmpl-{done.id}"


def finish(done: Trajectory) -> str:
    return "length" if done.stop in LENGTH else "stop"


def usage(done: Trajectory) -> dict[str, Any]:
    """Tokens: the prompt's, and all that stand after it, hints and results too. `toolreason` says whose they are."""
    prompt = done.tokens(Source.PROMPT)
    by = {source.value: done.tokens(source) for source in (Source.MODEL, Source.HINT, Source.TOOL)}
    rest = sum(by.values())
    return {"prompt_tokens": prompt, "completion_tokens": rest, "total_tokens": prompt + rest, OWN: by}


def about(done: Trajectory) -> dict[str, Any]:
    return {"trajectory_id": done.id, "stop_reason": done.stop.value, "strategy": done.strategy}


def chat(model: str, done: Trajectory, parts: list[Part]) -> dict[str, Any]:
    """A chat completion."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": said(parts, "text"),
        OWN: {"parts": [delta_part(one) for one in parts]},
    }
    if reasoning := said(parts, "reasoning"):
        message["reasoning_content"] = reasoning
    return {
        "id": chat_id(done),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish(done), "logprobs": None}],
        "usage": usage(done),
        OWN: about(done),
    }


def said(parts: Iterable[Part], kind: str) -> str:
    return "".join(one.text for one in parts if one.kind == kind)


def delta_part(part: Part) -> dict[str, Any]:
    """A part as it is passed on under `toolreason`."""
    told: dict[str, Any] = {"type": part.kind, "text": part.text}
    if part.call_id:
        told["id"] = part.call_id
    if part.outcome:
        told["outcome"] = part.outcome
    return told


def chunk(identity: str, model: str, created: int, delta: dict[str, Any], end: str | None = None, **more: Any) -> dict[str, Any]:
    """A piece of a streamed chat completion."""
    choice = {"index": 0, "delta": delta, "finish_reason": end, "logprobs": None}
    return {"id": identity, "object": "chat.completion.chunk", "created": created, "model": model, "choices": [choice], **more}


def delta(part: Part) -> dict[str, Any]:
    match part.kind:
        case "text":
            return {"content": part.text}
        case "reasoning":
            return {"reasoning_content": part.text}
    return {OWN: delta_part(part)}
