"""UCT's online task loop (arXiv 2602.01983): the agent reasons, runs code with a library's tools, and asks for missing ones.

1. A tool that the last cell found faulty is repaired first.
2. The model thinks until it writes a cell, a build ticket (a block marked `tool`), or ends its turn.
3. A cell is run; the library's tools can be imported in it.
4. A ticket becomes a tool, or is refused; what came of it is inserted, and the task goes on either way.
5. Again, until it answers or a limit strikes: turns, calls, tokens (those of the builder count).
"""

from __future__ import annotations

from dataclasses import dataclass

from toolreason import formats
from toolreason.errors import SettingsError
from toolreason.policies.base import Finish
from toolreason.strategies.base import Action, Build, View, at_least, limit
from toolreason.strategies.interpreter import InterpreterSettings, go_on, said

TICKET = "tool"
FROZEN = "The library takes no new tools now. Write the code yourself."
ENOUGH = "There have been enough tickets for this problem. Write the code yourself."
EMPTY = "The ticket is empty: say in a sentence what the function takes and what it returns."
LONG = "The ticket is too long: say in a few sentences what the function takes and what it returns."
MOST = 2_000  # characters of a ticket


@dataclass(frozen=True, slots=True)
class UctSettings(InterpreterSettings):
    """`library`: where the tools are kept, a SQLite file (made if absent) or a `postgresql://` address; empty: the default one.
    `frozen`: it is used as it stands, nothing is built, repaired or counted in it: for a test split.

    `offered`: the most tools that the prompt names. `max_tickets` a rollout may open, repairs included; each gets `attempts`, and
    each call of the builder at most `build_tokens`. `critic`: whether one reads what passed the trial. `repair`: whether a tool
    that fails in use is mended.
    """

    max_tokens: int = 4096
    stateful: bool = True
    max_calls: int = 12
    library: str = ""
    frozen: bool = False
    offered: int = 5
    max_tickets: int = 2
    attempts: int = 3
    build_tokens: int = 800
    critic: bool = True
    repair: bool = True

    def __post_init__(self) -> None:
        InterpreterSettings.__post_init__(self)
        at_least(self, 0, "offered", "max_tickets")
        at_least(self, 1, "attempts", "build_tokens", "max_calls")
        if not self.stateful:
            raise SettingsError("stateful=false leaves no session for the tools to be in: leave it out, or use the strategy artist")


def decide(view: View, settings: UctSettings) -> Action:
    if view.failing and settings.repair and not _closed(view, settings) and limit(view, settings) is None:  # 1
        return Build("", repairs=view.failing[0])
    need = formats.closing_block(said(view), TICKET) if view.finish in (Finish.STOP, Finish.END) else None
    if need is None or view.calls >= settings.max_calls:
        return go_on(view, settings, formats.get("fenced"))  # 2, 3, 5
    need = need.strip()
    return Build(need[:MOST], refused=_closed(view, settings) or (EMPTY if not need else LONG if len(need) > MOST else ""))  # 4


def _closed(view: View, settings: UctSettings) -> str:
    """Why no ticket may be opened, if none may."""
    if settings.frozen:
        return FROZEN
    return ENOUGH if view.tickets >= settings.max_tickets or view.left(settings) <= 0 else ""
