"""ARTIST's rollout (arXiv 2505.01441, section 3): thinking, tool queries and tool outputs interleaved in one completion.

1. The model thinks until it writes a call, gives its answer, or ends its turn.
2. A call is run, and its output, "print missing" or the error is inserted after it. In the paper each call runs alone
   (`stateful=false`); with `stateful=true` variables live on from call to call.
3. Again, until it answers or a limit strikes: turns, calls, tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from toolreason import formats
from toolreason.strategies.base import Action, View
from toolreason.strategies.interpreter import InterpreterSettings, go_on


@dataclass(frozen=True, slots=True)
class ArtistSettings(InterpreterSettings):
    """`format`: "tagged", as in the paper, or "fenced"."""

    format: str = "tagged"

    def __post_init__(self) -> None:
        InterpreterSettings.__post_init__(self)
        formats.get(self.format)


def decide(view: View, settings: ArtistSettings) -> Action:
    return go_on(view, settings, formats.get(settings.format))  # 1 to 3
