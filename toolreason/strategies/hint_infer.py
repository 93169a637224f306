"""START's Hint-infer (arXiv 2503.04625, section 3.1), first version: one hint, at the start or at the end of the reasoning.

1. The model reasons, without an interpreter, until it ends its turn or closes its thinking. (Empty with `hint="start"`.)
2. The ending is taken back, on a token boundary, and the hint is written in the model's voice: one sentence and an open code fence.
3. The model goes on, now with an interpreter, at most `max_calls` calls, until it ends or a limit strikes.

With `execute=false`, the control, step 3 has no interpreter: the code that the hint draws is never run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from toolreason import formats, hints
from toolreason.policies.base import Finish
from toolreason.strategies.base import Action, Insert, Think, View, limit
from toolreason.strategies.interpreter import InterpreterSettings, go_on

THINK_END = "</think>"


@dataclass(frozen=True, slots=True)
class HintInferSettings(InterpreterSettings):
    """`hint`: where it goes. `wording`: which of the library's wordings. `execute=false`: the control without execution."""

    stateful: bool = True
    hint: Literal["start", "end"] = "start"
    wording: int = 0
    execute: bool = True

    def __post_init__(self) -> None:
        InterpreterSettings.__post_init__(self)
        hints.choose(self.hint, self.wording)


def decide(view: View, settings: HintInferSettings) -> Action:
    if view.hinted:  # 3
        return go_on(view, settings, formats.get("fenced"), settings.execute)
    if settings.hint == "start":
        return Insert(hints.choose("start", settings.wording).text)
    if view.finish is Finish.END or view.stop == THINK_END:
        return _at_end(view, settings)  # 2
    return limit(view, settings) or Think((THINK_END,))  # 1


def _at_end(view: View, settings: HintInferSettings) -> Insert:
    """The hint on a paragraph of its own, before the end token or before the end of thinking."""
    text = view.segments[-1].text
    keep = text.rfind(THINK_END) if view.stop == THINK_END else len(text) - view.end_characters
    lead = "" if text[:keep].endswith("\n\n") else "\n\n"
    return Insert(lead + hints.choose("end", settings.wording).text, cut_at=keep)
