"""ARTIST's function calling (arXiv 2505.01441): a conversation in which the model works on an environment by calling its functions.

1. The user says what is wanted. The model reasons until it writes calls, or ends its turn.
2. The calls are made in the environment, and what they gave, or what was wrong with them, is inserted.
3. Again, until the model ends its turn without a call: it has done what it could. Then the user says the next thing.
4. After the user's last turn the rollout ends; before that only at a limit: calls in a turn, turns of the model, tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from toolreason.errors import SettingsError
from toolreason.functions.format import Functions
from toolreason.strategies.base import Action, View, at_least
from toolreason.strategies.interpreter import InterpreterSettings, go_on
from toolreason.types import Source, cells

WRITTEN = Functions()


@dataclass(frozen=True, slots=True)
class FunctionSettings(InterpreterSettings):
    """`max_calls` bounds the calls (the `<tool>` blocks) of each of the user's turns, 20 as in BFCL; the rest are the rollout's.

    `format` is always "functions": what is stored with a trajectory says how its calls are written.
    """

    max_tokens: int = 8192
    max_turns: int = 128
    stateful: bool = True
    max_calls: int = 20
    format: str = WRITTEN.name

    def __post_init__(self) -> None:
        InterpreterSettings.__post_init__(self)
        at_least(self, 1, "max_calls")
        if not self.stateful:
            raise SettingsError("stateful=false leaves no environment for the functions to work on: leave it out")
        if self.format != WRITTEN.name:
            raise SettingsError(f"function calls are written in one format, {WRITTEN.name!r}: leave format out")


def decide(view: View, settings: FunctionSettings) -> Action:
    """`End` with `StopReason.ANSWERED` is the end of the model's turn (3): the graph knows whether the user has more to say."""
    earlier = len(cells(view.segments[: begun(view)]))
    return go_on(view, settings, WRITTEN, max_calls=earlier + settings.max_calls)  # 1, 2, 4


def begun(view: View) -> int:
    """Where the user's turn begins: the segment that holds it."""
    return max(at for at, segment in enumerate(view.segments) if segment.source is Source.PROMPT)
