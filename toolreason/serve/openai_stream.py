"""The streams of the OpenAI API, event by event: chunks of a chat completion, and the typed events of a response."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from toolreason.adapters.parts import Part, joined
from toolreason.serve import openai_responses
from toolreason.serve import openai_wire as wire
from toolreason.types import Trajectory

Line = tuple[str | None, dict[str, Any]]
"""The event's name, if it has one, and its data."""


class ChatStream:
    """Chunks: text as `content`, reasoning as `reasoning_content`, calls and results under `toolreason`; the last one says why it
    ended and carries the trajectory's id. With `usage` one more has the tokens.
    """

    def __init__(self, identity: str, model: str, usage: bool) -> None:
        self._model, self._usage = model, usage
        self._id, self._created = f"chatcmpl-{identity}", int(time.time())
        self._begun = False

    def part(self, part: Part) -> Iterator[Line]:
        delta = wire.delta(part)
        if not self._begun:
            self._begun, delta = True, {"role": "assistant", **delta}
        yield None, self._chunk(delta)

    def end(self, done: Trajectory) -> Iterator[Line]:
        yield None, self._chunk({}, wire.finish(done), **{wire.OWN: wire.about(done)})
        if self._usage:
            yield None, self._chunk({}) | {"choices": [], "usage": wire.usage(done)}

    def failed(self, error: dict[str, Any]) -> Iterator[Line]:
        yield None, error

    def _chunk(self, delta: dict[str, Any], end: str | None = None, **more: Any) -> dict[str, Any]:
        return wire.chunk(self._id, self._model, self._created, delta, end, **more)


class ResponseStream:
    """Events of the Responses API: each part is an output item that is added, grows and is done."""

    def __init__(self, identity: str, request: wire.ResponsesRequest, created: float) -> None:
        self._request, self._created = request, created
        self._id, self._number = f"resp_{identity}", -1
        self._parts: list[Part] = []
        self._open: Part | None = None  # the last item, while it may grow

    def part(self, part: Part) -> Iterator[Line]:
        if not self._parts:
            yield from self._opened()
        if part.kind == "result":
            yield from self._closed(part)
            self._parts.append(part)
            return
        if self._open is not None and self._open.kind == part.kind and part.kind != "call":
            self._open = joined([self._open, part])[0]
            self._parts[-1] = self._open
        else:
            yield from self._closed()
            self._open = part
            self._parts.append(part)
            item = openai_responses.item(Part(part.kind, "", part.call_id), self._item_id) | {"status": "in_progress"}
            item |= {"content": []} if part.kind != "call" else {}
            yield self._event("response.output_item.added", item=item)
            if part.kind == "text":
                empty = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
                yield self._event("response.content_part.added", **self._at, content_index=0, part=empty)
            elif part.kind == "call":
                yield self._event("response.code_interpreter_call.in_progress", **self._at)
        yield from self._grown(part)

    def _grown(self, part: Part) -> Iterator[Line]:
        match part.kind:
            case "text":
                yield self._event("response.output_text.delta", **self._at, content_index=0, delta=part.text, logprobs=[])
            case "reasoning":
                yield self._event("response.reasoning_text.delta", **self._at, content_index=0, delta=part.text)
            case "call":
                yield self._event("response.code_interpreter_call_code.delta", **self._at, delta=part.text)
                yield self._event("response.code_interpreter_call_code.done", **self._at, code=part.text)
                yield self._event("response.code_interpreter_call.interpreting", **self._at)

    def _closed(self, result: Part | None = None) -> Iterator[Line]:
        """The open item is done."""
        if (part := self._open) is None:
            return
        self._open = None
        item = openai_responses.item(part, self._item_id, result)
        match part.kind:
            case "text":
                yield self._event("response.output_text.done", **self._at, content_index=0, text=part.text, logprobs=[])
                yield self._event("response.content_part.done", **self._at, content_index=0, part=item["content"][0])
            case "reasoning":
                yield self._event("response.reasoning_text.done", **self._at, content_index=0, text=part.text)
            case "call":
                yield self._event("response.code_interpreter_call.completed", **self._at)
        yield self._event("response.output_item.done", item=item)

    def end(self, done: Trajectory) -> Iterator[Line]:
        if not self._parts:
            yield from self._opened()
        yield from self._closed()
        whole = openai_responses.response(self._id, self._request.model, self._created, self._request, done, self._parts)
        yield self._event("response.incomplete" if whole["status"] == "incomplete" else "response.completed", None, response=whole)

    def failed(self, error: dict[str, Any]) -> Iterator[Line]:
        told = error["error"]
        yield self._event("error", None, message=told["message"], code=told["type"], param=None)

    def _opened(self) -> Iterator[Line]:
        empty = openai_responses.response(self._id, self._request.model, self._created, self._request, None, [])
        yield self._event("response.created", None, response=empty)
        yield self._event("response.in_progress", None, response=empty)

    @property
    def _place(self) -> int:
        """Of the last item among the output: results are in their calls."""
        return sum(part.kind != "result" for part in self._parts) - 1

    @property
    def _item_id(self) -> str:
        last = max(place for place, part in enumerate(self._parts) if part.kind != "result")
        return openai_responses.item_id(self._parts[last], last)

    @property
    def _at(self) -> dict[str, Any]:
        return {"item_id": self._item_id}

    def _event(self, kind: str, place: int | None = -1, **data: Any) -> Line:
        self._number += 1
        where = {} if place is None else {"output_index": self._place}
        return kind, {"type": kind, "sequence_number": self._number, **where, **data}
