"""ARTIST's rollout (arXiv 2505.01441, section 3): thinking, tool queries and tool outputs interleaved in one completion.

1. The model thinks until it writes a call, gives its answer, or ends its turn.
2. A call is run, and its output, "print missing" or the error is inserted after it. In the paper each call runs alone
   (`stateful=false`); with `stateful=true` variables live on from call to call.
3. Again, until it answers or a limit strikes: turns, calls, tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from toolreason import formats
from toolreason.errors import SettingsError
from toolreason.strategies.base import Action, View
from toolreason.strategies.interpreter import InterpreterSettings, go_on


@dataclass(frozen=True, slots=True)
class ArtistSettings(InterpreterSettings):
    """`format`: "tagged", as in the paper, or "fenced". `offered`: the prompt says that Python can be run and how. Without, it is
    `hint_infer`'s, so that a model trained on hinted traces is asked as it was in them; only fences can be understood untold.
    """

    format: str = "tagged"
    offered: bool = True

    def __post_init__(self) -> None:
        InterpreterSettings.__post_init__(self)
        formats.get(self.format)
        if not self.offered and self.format != "fenced":
            raise SettingsError(f"offered=false says nothing of the format {self.format}: add format=fenced")


def decide(view: View, settings: ArtistSettings) -> Action:
    return go_on(view, settings, formats.get(settings.format))  # 1 to 3
