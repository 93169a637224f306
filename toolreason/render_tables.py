"""Collections in numbers for human eyes: one, several beside each other, two against each other."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from toolreason import failures
from toolreason.render import percent, visible
from toolreason.stats import Paired, Summary
from toolreason.types import Source


def accuracy(summary: Summary) -> str:
    """`7/12 = 58.3 % (32.0 to 80.7)`."""
    if not summary.scored:
        return "nothing scored"
    return f"{summary.correct}/{summary.scored} = {percent(summary.accuracy)} ({100 * summary.low:.1f} to {100 * summary.high:.1f})"


def summary_table(summary: Summary, title: str = "") -> Table:
    """One collection, a line a number."""
    table = Table(title=Text(visible(title)) if title else None, show_header=False, box=None, title_justify="left", pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in _summary_rows(summary):
        table.add_row(name, Text(visible(value)))
    return table


def _summary_rows(summary: Summary) -> list[tuple[str, str]]:
    there = f", {summary.resumed} of them from before" if summary.resumed else ""
    rows = [
        ("finished", f"{summary.finished} of {summary.total}{there}"),
        ("correct", accuracy(summary) + ("; 95 % interval" if summary.scored else "")),
        ("unscored", _counts(summary.unscored_reasons) if summary.unscored else "0"),
        ("aborted", f"{summary.aborted}" + (f", the last: {summary.last_error}" if summary.last_error else "")),
        ("calls per rollout", f"{summary.calls:.2f}"),
        ("failing calls", ", ".join(f"{percent(share)} {name}" for name, share in summary.failing_cells.items()) or "none"),
        ("stopped by", _counts(summary.stops)),
        ("format faults", _counts(summary.faults)),
        ("failure modes", _modes(summary)),
        ("tokens", ", ".join(f"{count} {source}" for source, count in summary.tokens.items())),
        ("speed", f"{summary.tokens_per_s:.1f} sampled tokens/s over {summary.wall_s:.1f} s"),
    ]
    if summary.idle_share is not None:
        rows.append(("policy idle", f"{percent(summary.idle_share)} of the time"))
    return rows


def _modes(summary: Summary) -> str:
    """`4.0 % delayed computation, 0.0 % distrust of results, of 25 rollouts with calls`."""
    shares = ", ".join(f"{percent(share)} {failures.MODES.get(name, name)}" for name, share in summary.failures.items())
    return f"{shares}, of {summary.with_calls} rollouts with calls" if shares else "no calls"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"


def comparison_table(rows: Mapping[str, Summary]) -> Table:
    """Conditions beside each other."""
    table = Table(pad_edge=False)
    table.add_column("condition")
    for name in ("correct (95 % interval)", "calls", "tokens", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, one in rows.items():
        tokens = sum(count for source, count in one.tokens.items() if source != Source.PROMPT)
        table.add_row(Text(visible(name)), accuracy(one), str(one.cells), str(tokens), f"{one.wall_s:.1f}")
    return table


def paired_text(first: str, second: str, pairs: Paired) -> Text:
    """The paired comparison of two conditions in a sentence."""
    return Text(
        f"{visible(first)} against {visible(second)}: only the first right {pairs.only_first}, only the second right "
        f"{pairs.only_second}, exact McNemar p = {pairs.p:.3f}"
    )
