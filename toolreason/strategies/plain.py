"""Plain reasoning, the control: no tool, no hint.

1. The model reasons until it ends its turn or a limit strikes.
2. It answered if a final answer stands in its text.
"""

from __future__ import annotations

from dataclasses import dataclass

from toolreason import formats
from toolreason.policies.base import Finish
from toolreason.strategies.base import Action, End, Settings, Think, View, limit
from toolreason.types import StopReason


@dataclass(frozen=True, slots=True)
class PlainSettings(Settings):
    """Nothing beyond what every strategy has."""


def decide(view: View, settings: PlainSettings) -> Action:
    if view.finish is Finish.END:  # 2
        return End(StopReason.ANSWERED if view.answered(formats.get("fenced")) else StopReason.NO_ANSWER)
    return limit(view, settings) or Think()  # 1
