"""Charts as SVG files, through matplotlib (the extra `charts`): same numbers, same bytes; nothing is loaded from elsewhere.

The background is white, so that a chart reads in light and in dark pages. Lines differ in dash as well as in colour.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolreason.errors import InputError, SetupError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart; the first line, the baseline as a rule, is black
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#D55E00", "#0072B2", "#CC79A7")
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (8, 2)))
STYLE: Any = {
    "svg.hashsalt": "toolreason",  # ids of elements are random without it
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 10,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@dataclass(frozen=True, slots=True)
class Line:
    """A condition: `steps` are (tokens, accuracy in 0..1) where its accuracy changes; `low` and `high` its interval at the end."""

    name: str
    steps: tuple[tuple[int, float], ...]
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Rounds:
    """A condition, round by round: accuracy by way of choosing the answer, the interval of the first way, tokens so far."""

    name: str
    accuracy: dict[str, tuple[float | None, ...]]
    interval: tuple[tuple[float, float], ...]
    tokens: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """`points` are (step, value). `band`, if there is one: (low, high) at each. `noisy`: drawn faint, with its running mean."""

    name: str
    points: tuple[tuple[float, float], ...]
    band: tuple[tuple[float, float], ...] = ()
    noisy: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves with one scale. `share`: values in 0..1, drawn as per cent."""

    title: str
    curves: tuple[Curve, ...]
    share: bool = False


def check() -> None:
    """Raises SetupError where charts cannot be drawn here."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise SetupError("charts need matplotlib: pip install 'toolreason[charts]'") from None


def accuracy_within(lines: Sequence[Line], budget: int, file: Path) -> None:
    """Accuracy against the tokens allowed, a line each; at the right end the 95 % intervals at the whole budget.

    Raises SetupError without matplotlib, InputError where `file` cannot be written.
    """
    with _figure(file) as figure:
        axes: Axes = figure.add_subplot()
        room = budget / 40  # between two intervals
        for number, (line, look) in enumerate(zip(lines, _looks(), strict=False)):
            tokens, shares = zip(*_clipped(line.steps, budget), strict=True)
            axes.step(tokens, [100 * share for share in shares], where="post", label=line.name, **look)
            end, at = 100 * shares[-1], budget + room * (number + 1)
            bars = [[max(0.0, end - 100 * line.low)], [max(0.0, 100 * line.high - end)]]
            axes.errorbar([at], [end], yerr=bars, color=look["color"], marker="o", markersize=4, capsize=3, linewidth=1.5)
        axes.axvline(budget, color="#999999", linewidth=0.8)
        axes.set_xlim(0, budget + room * (len(lines) + 1))
        axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= budget])  # beyond are the intervals
        axes.set_ylim(0, 100)
        axes.set_xlabel(f"tokens allowed, of {budget} (prompt not counted)")
        axes.set_ylabel("right, %")
        axes.set_title("Right within so many tokens; bars: 95 % at the whole budget", loc="left", fontsize=11)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)


def _clipped(steps: Sequence[tuple[int, float]], budget: int) -> list[tuple[int, float]]:
    """The steps up to the budget, and the level there."""
    inside = [step for step in steps if step[0] <= budget]
    return [*inside, (budget, inside[-1][1] if inside else 0.0)]


def by_round(conditions: Sequence[Rounds], file: Path) -> None:
    """Above: accuracy over rounds by each way to choose the answer, with the interval of the first. Below: tokens over rounds.

    Raises SetupError without matplotlib, InputError where `file` cannot be written.
    """
    with _figure(file, height=6.4) as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        for one, look in zip(conditions, _looks(), strict=False):
            numbers = list(range(1, len(one.tokens) + 1))
            for (way, shares), dash in zip(one.accuracy.items(), cycle(DASHES)):
                values = [float("nan") if share is None else 100 * share for share in shares]
                label = f"{one.name}, {way}" if len(conditions) > 1 else way
                above.plot(numbers, values, label=label, marker="o", markersize=4, color=look["color"], linestyle=dash)
            lows, highs = zip(*one.interval, strict=True)
            above.fill_between(
                numbers, [100 * x for x in lows], [100 * x for x in highs], color=look["color"], alpha=0.12, linewidth=0
            )
            below.plot(numbers, one.tokens, label=one.name, marker="o", markersize=4, color=look["color"])
        below.set_xticks(range(1, max(len(one.tokens) for one in conditions) + 1))
        above.set_ylim(0, 100)
        below.set_ylim(bottom=0)
        above.set_ylabel("right, %")
        below.set_ylabel("tokens")
        below.set_xlabel("rounds")
        above.set_title("Right by the answer that is chosen; band: 95 % of the last", loc="left", fontsize=11)
        above.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
        if len(conditions) > 1:
            below.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)


def panels(shown: Sequence[Panel], file: Path, *, xlabel: str, columns: int = 2, window: int = 10) -> None:
    """A grid of panels over one axis. Running means are over `window` points.

    Raises SetupError without matplotlib, InputError where `file` cannot be written.
    """
    rows = -(-len(shown) // columns)
    with _figure(file, width=5.2 * columns, height=2.6 * rows) as figure:
        places = figure.subplots(rows, columns, sharex=True, squeeze=False).flatten()
        for panel, axes in zip(shown, places, strict=False):
            scale = 100 if panel.share else 1
            for curve, look in zip(panel.curves, _looks(), strict=False):
                steps, values = [x for x, _ in curve.points], [scale * y for _, y in curve.points]
                if curve.band:
                    lows, highs = ([scale * pair[side] for pair in curve.band] for side in (0, 1))
                    axes.fill_between(steps, lows, highs, color=look["color"], alpha=0.12, linewidth=0)
                if curve.noisy and len(values) > window:
                    axes.plot(steps, values, color=look["color"], alpha=0.2, linewidth=0.8)
                    values = [
                        sum(part) / len(part) for end in range(len(values)) if (part := values[max(0, end - window + 1) : end + 1])
                    ]
                axes.plot(steps, values, label=curve.name, marker="" if len(values) > 30 else "o", markersize=3, **look)
            axes.set_title(panel.title + (", %" if panel.share else ""), loc="left", fontsize=10)
            if len(panel.curves) > 1:
                axes.legend(frameon=False, fontsize=8)
        for axes in places[len(shown) :]:
            axes.set_axis_off()
        for axes in places[max(0, len(shown) - columns) : len(shown)]:
            axes.set_xlabel(xlabel)
            axes.tick_params(labelbottom=True)
        figure.tight_layout()


def _looks() -> Iterator[dict[str, Any]]:
    for number, colour in enumerate(cycle(COLOURS)):
        yield {"color": colour, "linestyle": DASHES[number % len(DASHES)], "linewidth": 1.8}


@contextlib.contextmanager
def _figure(file: Path, *, width: float = 8.0, height: float = 4.4) -> Iterator[Figure]:
    """A figure of this size in inches, saved as `file` at the end. No backend of a screen is touched."""
    check()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not what a matplotlibrc on this machine says
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(width, height))
        yield figure
        try:
            figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
        except OSError as error:
            raise InputError(f"cannot write {file}: {error.strerror}; name another file with --chart") from error
