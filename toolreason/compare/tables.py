"""A report to read: the same tables in Markdown, for a lab book, and on a terminal. Names from elsewhere do not act in either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolreason.compare.report import SIGN_FLIP, Against, Report
from toolreason.render import percent, visible
from toolreason.stats import Rate

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: its title, its columns, rows of texts. The first column is a name, the others are numbers, or not."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: bool = True


def grids(report: Report) -> list[Grid]:
    """The tables of a report; those with nothing to say are left out."""
    made = [_conditions(report), _against(report), _within(report), _domains(report), _rounds(report), _matched(report)]
    return [grid for grid in made if grid.rows]


def rate_text(rate: Rate) -> str:
    """`7/12 = 58.3 % (32.0 to 80.7)`."""
    if not rate.scored:
        return "-"
    return f"{rate.correct}/{rate.scored} = {percent(rate.accuracy)} ({100 * rate.low:.1f} to {100 * rate.high:.1f})"


def _conditions(report: Report) -> Grid:
    columns = ("condition", "right (95 %)", "tokens", "model", "hint", "tool", "taken back", "calls", "with a call", "seconds")
    rows = tuple(
        (
            one.name,
            rate_text(one.rate),
            *(f"{one.tokens[part]:.0f}" for part in ("spent", "model", "hint", "tool", "taken_back")),
            f"{one.calls:.2f}",
            percent(one.with_call),
            f"{one.seconds:.1f}",
        )
        for one in report.conditions
    )
    return Grid(f"At most {report.plan.budget} tokens a rollout; tokens, calls and seconds per rollout", columns, rows)


def _against(report: Report) -> Grid:
    base = report.plan.baseline
    columns = ("condition", "difference in points (95 %)", "pairs", "only this right", f"only {base} right", "p", "p, Holm")
    return Grid(f"Against {base}", columns, tuple(against_row(one) for one in report.against))


def against_row(one: Against) -> tuple[str, ...]:
    """Name, difference, pairs, how many only one of them has right, and both p-values."""
    if one.difference is None or one.low is None or one.high is None:
        difference = "-"
    else:
        difference = f"{100 * one.difference:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})"
    return one.name, difference, str(one.pairs), str(one.only_this), str(one.only_baseline), p_text(one.p), p_text(one.p_holm)


def p_text(p: float | None) -> str:
    """Two significant digits; small ones as powers of ten."""
    return "-" if p is None else f"{p:.2f}" if p >= 0.1 else f"{p:.2g}"


def _within(report: Report) -> Grid:
    counted = [one for one in report.conditions if one.within]
    limits = [limit for limit, _ in counted[0].within] if counted else []
    rows = tuple((one.name, *(percent(share) for _, share in one.within)) for one in counted)
    return Grid("Right within so many spent tokens", ("condition", *map(str, limits)), rows)


def _domains(report: Report) -> Grid:
    names = sorted({name for one in report.conditions for name in one.domains})
    if len(names) < 2:
        return Grid("", (), ())
    columns = ("domain", *(one.name for one in report.conditions))
    rows = tuple((name, *(_short_rate(one.domains.get(name)) for one in report.conditions)) for name in names)
    return Grid("Right by domain", columns, rows)


def _short_rate(rate: Rate | None) -> str:
    return f"{rate.correct}/{rate.scored}" if rate is not None and rate.scored else "-"


def _rounds(report: Report) -> Grid:
    columns = ("condition", "round", "reached", "right by last (95 %)", "by majority", "by most certain", "tokens", "calls")
    rows = tuple(
        (
            one.condition,
            str(one.round),
            f"{one.reached}/{one.rollouts}",
            rate_text(one.by["last"]),
            *(percent(one.by[way].accuracy) for way in ("majority", "certain")),
            f"{one.spent:.0f}",
            f"{one.calls:.2f}",
        )
        for one in report.rounds
    )
    return Grid("Round by round", columns, rows)


def _matched(report: Report) -> Grid:
    columns = ("condition", "at the tokens of", "right by majority (95 %)", "rollouts", "tokens", "the other's tokens")
    rows = tuple(
        (one.name, one.other, rate_text(one.rate), f"{one.rollouts:.2f}", f"{one.tokens:.0f}", f"{one.limit:.0f}")
        for one in report.matched
    )
    return Grid("Majority of as many rollouts as fit in the tokens that another condition spent on a problem", columns, rows)


def notes(report: Report) -> list[str]:
    """What a reader has to know of these numbers."""
    told = []
    for one in report.conditions:
        parts = [(one.missing, "not done"), (one.aborted, "aborted"), (one.unscored, "unscored")]
        if left := ", ".join(f"{count} {what}" for count, what in parts if count):
            told.append(f"{one.name}: {left}; these count as neither right nor wrong.")
    if cut := ", ".join(f"{one.name} {one.stops['length']}" for one in report.conditions if one.stops.get("length")):
        told.append(f"Rollouts that ran out of tokens: {cut}.")
    if report.plan.samples > 1:
        told.append(
            f"Wilson intervals take the {report.plan.samples} samples of a problem as independent and are too narrow; "
            "the intervals of the differences are not (whole problems are drawn)."
        )
    if any(one.finished and not one.curve for one in report.conditions):
        told.append(
            "The policy counts no tokens for some conditions: the budget bounded each turn, and nothing can be said within a limit."
        )
    tested = [one.test for one in report.against if one.p is not None]
    if tests := sorted(set(tested)):
        told.append(
            f"p: {' and '.join(tests)}, two-sided; Holm's correction over {len(tested)} comparisons. "
            + ("Pair counts are of rollouts. " if SIGN_FLIP in tests else "")
            + "Differences: paired bootstrap over problems, 10,000 resamples; with few discordant pairs trust p and the counts."
        )
    return told


def markdown(report: Report) -> str:
    """The whole report, to paste."""
    plan = report.plan
    sampling, each = plan.sampling, f"{plan.samples} rollout" + ("" if plan.samples == 1 else "s")
    facts = (
        f"{len(plan.domains)} problems of `{_code(plan.problems)}` (content {plan.problems_hash}), {each} each, "
        f"policy `{_code(plan.policy)}`, temperature {sampling.temperature:g}, top-p {sampling.top_p:g}, seed {sampling.seed}, "
        f"at most {plan.budget} tokens a rollout, toolreason {plan.version}, begun {plan.started}."
    )
    parts = ["# Comparison", f"```bash\n{_code(plan.command)}\n```", facts]
    parts += ["## Conditions", markdown_table(_settings(report))]
    for grid in grids(report):
        parts += [f"## {grid.title}", markdown_table(grid)]
    parts.append("\n".join(f"- {_cell(note)}" for note in notes(report)))
    return "\n\n".join(parts) + "\n"


def _settings(report: Report) -> Grid:
    rows = tuple(
        (one.name, one.strategy or "not begun", ", ".join(f"{key}={value}" for key, value in one.changed.items()) or "-")
        for one in report.conditions
    )
    return Grid("Conditions", ("condition", "strategy", "settings that are not its defaults"), rows, numbers=False)


def markdown_table(grid: Grid) -> str:
    """One table, to paste."""
    lines = [grid.columns, ("---", *["---:" if grid.numbers else "---"] * (len(grid.columns) - 1)), *grid.rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _line(text: str) -> str:
    return visible(" ".join(text.split()))


def _code(text: str) -> str:
    return _line(text).replace("`", "'")


def _cell(text: str) -> str:
    return _line(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")


def rich_table(grid: Grid) -> Table:
    """The same for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(visible(grid.title), "bold"), title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(grid.columns):
        table.add_column(Text(visible(column), "dim"), justify="right" if number and grid.numbers else "left", overflow="fold")
    for row in grid.rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    return table


def rich_tables(report: Report) -> Sequence[Table]:
    return [rich_table(grid) for grid in grids(report)]
