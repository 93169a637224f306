"""What is told of a rollout while it runs: to the graph's custom stream, or to the one that runs it and asked for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from langgraph.runtime import Runtime

if TYPE_CHECKING:
    from toolreason.graphs.state import RolloutContext


class Event(TypedDict, total=False):
    """What the custom stream carries. kind: "text" (source, text), "call" (call_id, code), "result" (call_id, outcome, and the text
    that the model reads of it) or "cut" (characters taken back from the end of what was streamed). A call that the sandbox failed
    is announced again when it is tried again, with the same call_id.
    """

    kind: str
    source: str
    text: str
    call_id: str
    code: str
    outcome: str
    characters: int


def emit(runtime: Runtime[RolloutContext], event: Event) -> None:
    """Tell of it. The stream of a graph takes a task and a wake-up of the loop for each piece of text; `on_event` takes a call."""
    (runtime.context.on_event or runtime.stream_writer)(event)
