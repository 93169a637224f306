"""How a plan of consolidation and a library's health are shown."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from toolreason.commands import common, tools_common

if TYPE_CHECKING:
    from rich.table import Table

    from toolreason.tools.health import Health
    from toolreason.tools.plan import Plan

STYLES = {"merge": "cyan", "classify": "blue", "deprecate": "yellow"}
MEANINGS = {
    "redundancy": "redundancy: share of those on offer that are alike",
    "reuse": "reuse: share called on a problem not its own",
    "stability": "stability: share whose tests pass now",
    "coverage": "coverage: share of lines that tests run",
}


def show(plan: Plan) -> None:
    console = common.stdout()
    if plan.steps:
        console.print(steps_table(plan))
    for one in plan.left:
        common.say(f"stays apart: {', '.join(one.tools)}: {tools_common.first_line(one.reason, 200)}", "dim")
    if plan.before is not None:
        console.print(health_table({"now": plan.before} | ({"then": plan.after} if plan.after and plan.steps else {})))
    if not plan.steps:
        common.say("there is nothing to do", "green")


def steps_table(plan: Plan) -> Table:
    from rich.table import Table

    table = Table("", "step", "tool", "what", "why", box=None, pad_edge=False)
    for number, step in enumerate(plan.steps, 1):
        texts = [str(number), step.action.value, f"{step.tool}@{step.version}", step.what, step.reason]
        table.add_row(*(common.harmless(text, STYLES[step.action] if place == 1 else "") for place, text in enumerate(texts)))
    return table


def shares(health: Health) -> dict[str, Any]:
    return asdict(health) | {"tools": health.tools, "offered": health.offered}


def health_table(by_title: dict[str, Health]) -> Table:
    from rich.table import Table

    table = Table("health", *by_title, box=None, pad_edge=False)
    sizes = {title: ", ".join(f"{n} {status}" for status, n in one.sizes.items() if n) or "0" for title, one in by_title.items()}
    table.add_row("size", *sizes.values())
    for name, meaning in MEANINGS.items():
        table.add_row(meaning, *(_percent(getattr(one, name)) for one in by_title.values()))
    return table


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.1f} %"
