"""Which of the right traces of a problem are kept: 1 to `per_problem`, no program twice, and as many with a tool as asked for.

"1-4 per problem" is START's (section 3.2); how they are chosen is ours.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from toolreason.curate.settings import CurateSettings
from toolreason.curate.steps import Fall, Row, Step
from toolreason.curate.text import identity


def select(rows: Sequence[Row], settings: CurateSettings) -> tuple[list[Row], Step]:
    """The best rows of each problem in order of the problems' first row, and the step that tells the others' fate.

    Equal scores are ordered by the seed. With `tool_share` each problem gives traces with and without a cell in that proportion
    where it has both, and then the lowest scores of the side that is too many go, but never a problem's last row.
    """
    step, draw = Step("selection"), random.Random(settings.seed)
    by_problem: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_problem[row.trajectory.problem_id].append(row)
    chosen = list[Row]()
    for several in by_problem.values():
        distinct = _distinct(_ranked(several, draw), step)
        picked = _picked(distinct, settings, draw)
        chosen += picked
        ids = {row.trajectory.id for row in picked}
        for row in distinct:
            if row.trajectory.id not in ids:
                step.drop(row, Fall(f"more than {settings.per_problem} of a problem", f"score {row.score:.3f}"))
    if settings.tool_share is not None:
        chosen = _balanced(chosen, settings.tool_share, step)
    for row in chosen:
        step.stay(row)
    return chosen, step


def with_tool(row: Row) -> bool:
    return bool(row.trajectory.cells)


def tool_share(rows: Sequence[Row]) -> float | None:
    return sum(map(with_tool, rows)) / len(rows) if rows else None


def _ranked(rows: Sequence[Row], draw: random.Random) -> list[Row]:
    """Best first; the draw is over ids, so that the order of the files does not matter."""
    lots = {row.trajectory.id: draw.random() for row in sorted(rows, key=lambda row: row.trajectory.id)}
    return sorted(rows, key=lambda row: (-row.score, lots[row.trajectory.id]))


def _distinct(ranked: Sequence[Row], step: Step) -> list[Row]:
    seen, left = dict[str, str](), list[Row]()
    for row in ranked:
        key = identity(row.trajectory)
        if key in seen:
            step.drop(row, Fall("the same program again", f"as in {seen[key]}"))
        else:
            seen[key] = row.trajectory.id
            left.append(row)
    return left


def _picked(ranked: list[Row], settings: CurateSettings, draw: random.Random) -> list[Row]:
    """The first `per_problem`; with a share so many with a tool, a fraction of one by lot, gaps filled by the other kind."""
    most = settings.per_problem
    if settings.tool_share is None:
        return ranked[:most]
    exact = settings.tool_share * min(most, len(ranked))
    wanted = int(exact) + (draw.random() < exact - int(exact))
    tools, others = [row for row in ranked if with_tool(row)], [row for row in ranked if not with_tool(row)]
    room = min(most, len(ranked))
    tooled = tools[: max(wanted, room - len(others))]
    return tooled + others[: room - len(tooled)]


def _balanced(chosen: list[Row], share: float, step: Step) -> list[Row]:
    """Without the worst rows of the kind that is too many, as far as each problem keeps one."""
    left = defaultdict[str, int](int)
    for row in chosen:
        left[row.trajectory.problem_id] += 1
    tools = sum(map(with_tool, chosen))
    others = len(chosen) - tools
    too_many = tools > share * len(chosen)
    gone = set[str]()
    for row in sorted(chosen, key=lambda row: (row.score, row.trajectory.id)):
        if with_tool(row) is not too_many or left[row.trajectory.problem_id] == 1:
            continue
        after = (tools - 1, others) if too_many else (tools, others - 1)
        if _off(after, share) >= _off((tools, others), share):
            break
        tools, others = after
        left[row.trajectory.problem_id] -= 1
        gone.add(row.trajectory.id)
        step.drop(row, Fall("balance of traces with and without a tool"))
    return [row for row in chosen if row.trajectory.id not in gone]


def _off(counts: tuple[int, int], share: float) -> float:
    return abs(counts[0] / (sum(counts) or 1) - share)
