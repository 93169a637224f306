"""Charts: the same bytes for the same numbers, nothing from elsewhere, readable on any page, and plain about what is missing."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import pytest

from toolreason import charts
from toolreason.charts import Line, Rounds
from toolreason.errors import InputError, SetupError

LINES = [
    Line("plain", ((0, 0.0), (40, 0.25), (90, 0.5)), 0.15, 0.85),
    Line("hint", ((0, 0.0), (60, 0.75), (130, 1.0)), 0.51, 1.0),
]
ROUNDS = [Rounds("hint", {"last": (0.2, 0.4), "certain": (None, 0.3)}, ((0.1, 0.3), (0.3, 0.5)), (100.0, 180.0))]
SVG = "{http://www.w3.org/2000/svg}"


def words(file: Path) -> str:
    """What is written in the picture: matplotlib notes each text beside the outlines that it draws."""
    return "\n".join(re.findall(r"<!-- (.*?) -->", file.read_text(encoding="utf-8")))


def path(file: Path, colour: str) -> list[tuple[float, float]]:
    """The points of the first line of this colour, in the picture's coordinates."""
    for element in ElementTree.parse(file).iter(f"{SVG}path"):
        if f"stroke: {colour}" in element.get("style", "") and "fill: none" in element.get("style", ""):
            points = re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", element.get("d", ""))
            return [(float(x), float(y)) for x, y in points]
    raise AssertionError(f"no line in {colour}")


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        charts.accuracy_within(LINES, 120, tmp_path / name)
        charts.by_round(ROUNDS, tmp_path / f"rounds-{name}")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "rounds-a.svg").read_bytes() == (tmp_path / "rounds-b.svg").read_bytes()


def test_a_line_goes_up_where_the_accuracy_does_and_ends_at_the_budget(tmp_path: Path) -> None:
    charts.accuracy_within(LINES, 120, tmp_path / "a.svg")
    plain, hint = (path(tmp_path / "a.svg", colour.lower()) for colour in charts.COLOURS[:2])
    assert plain[0] == hint[0]  # both begin with nothing right for no tokens
    assert plain[-1][0] == hint[-1][0]  # and end at the budget: the step at 130 tokens is beyond it
    up = {round(first[1] - second[1], 3) for first, second in pairwise(plain) if first[1] != second[1]}
    assert len(up) == 1  # two equal steps of a quarter
    assert (hint[0][1] - hint[-1][1]) == pytest.approx(3 * up.pop(), abs=0.01)


def test_a_chart_is_legible_on_dark_pages_and_loads_nothing(tmp_path: Path) -> None:
    charts.accuracy_within(LINES, 120, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "fill: #ffffff" in text
    assert all(link.startswith("#") for link in re.findall(r'href="([^"]*)"', text))
    assert not re.search(r"<(image|script|style[^>]*>@import)", text)
    assert {"plain", "hint", "right, %"} <= set(words(tmp_path / "a.svg").splitlines())


def test_rounds_without_a_value_leave_a_gap(tmp_path: Path) -> None:
    charts.by_round(ROUNDS, tmp_path / "r.svg")
    assert {"last", "certain", "tokens", "rounds"} <= set(words(tmp_path / "r.svg").splitlines())
    two = [*ROUNDS, Rounds("wait", {"last": (0.1, 0.1)}, ((0.0, 0.2), (0.0, 0.2)), (90.0, 150.0))]
    charts.by_round(two, tmp_path / "two.svg")
    assert {"hint, last", "wait, last"} <= set(words(tmp_path / "two.svg").splitlines())


def test_names_are_no_formulas_and_no_markup(tmp_path: Path) -> None:
    evil = r"$\frac{x}$ --> <script>alert(1)</script> \notacommand_{"
    charts.accuracy_within([Line(evil, ((0, 0.0), (5, 1.0)), 0.2, 1.0)], 10, tmp_path / "a.svg")
    assert "<script" not in {element.tag for element in ElementTree.parse(tmp_path / "a.svg").iter()}
    assert f"{SVG}script" not in {element.tag for element in ElementTree.parse(tmp_path / "a.svg").iter()}


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere/a\.svg: No such file or directory; name another file with --chart"):
        charts.accuracy_within(LINES, 120, tmp_path / "nowhere" / "a.svg")


def test_missing_matplotlib_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SetupError, match=re.escape("pip install 'toolreason[charts]'")):
        charts.accuracy_within(LINES, 120, tmp_path / "a.svg")


def test_matplotlib_is_loaded_only_to_draw() -> None:
    code = (
        "import sys, toolreason.charts, toolreason.compare.files, toolreason.commands.compare; print('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
