"""Thinking with an interpreter at hand: the part that ARTIST and START share."""

from __future__ import annotations

from dataclasses import dataclass

from toolreason.formats import Format
from toolreason.policies.base import Finish
from toolreason.strategies.base import Act, Action, End, Settings, Think, View, at_least, limit
from toolreason.types import StopReason


@dataclass(frozen=True, slots=True)
class InterpreterSettings(Settings):
    """`max_calls` bounds the tool calls; the call beyond it ends the rollout. `stateful`: variables live on between calls."""

    max_turns: int = 48
    stateful: bool = False
    max_calls: int = 6
    cell_timeout_s: float = 10.0

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        at_least(self, 0, "max_calls")
        at_least(self, 0.1, "cell_timeout_s")


def go_on(
    view: View, settings: InterpreterSettings, written: Format, execute: bool = True, *, max_calls: int | None = None
) -> Action:
    """Run the call that has just been written; end where the model ended; else let it think on. `max_calls`: the settings'.

    A stop string may stand elsewhere than after a call (a block in another language): then the model simply goes on.
    """
    code = written.call(said(view)) if execute and view.finish in (Finish.STOP, Finish.END) else None
    if code is not None:
        return End(StopReason.CALL_LIMIT) if view.calls >= (max_calls or settings.max_calls) else Act(code)
    answered = view.answered(written)
    if view.finish is Finish.END or (view.stop == "</answer>" and answered):
        return End(StopReason.ANSWERED if answered else StopReason.NO_ANSWER)
    return limit(view, settings) or Think(written.stops if execute else ())  # nothing to run: no stop, and no turn spent on it


def said(view: View) -> str:
    """The tail up to its stop string: the token that completed it may hold more, `></` after `</python`, say."""
    at = view.tail.rfind(view.stop) if view.stop else -1
    return view.tail[: at + len(view.stop or "")] if at >= 0 else view.tail
