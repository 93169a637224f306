"""A number in 0..1 that ranks the right traces of one problem. Ours; the paper only says "scoring".

It looks at no reference, so it can also be asked how well it separates right from wrong (`balance`). The parts, each in 0..1:

    grounded   .30  the answer first appears in what a successful cell gave: 1; it was said before, and a cell confirms it: 0.5
    executed   .20  at least one cell ended `ok`
    clean      .20  1 / (1 + cells that failed)
    fresh      .10  1 - the share of repeated word runs in the model's prose
    format     .10  1 / (1 + format faults)
    short      .10  1 - tokens after the prompt / `max_tokens`, not below 0
"""

from __future__ import annotations

from dataclasses import replace

from toolreason.curate import text
from toolreason.curate.settings import CurateSettings
from toolreason.curate.steps import Row
from toolreason.types import Source, Trajectory
from toolreason.verify import extract

WEIGHTS = {"grounded": 0.3, "executed": 0.2, "clean": 0.2, "fresh": 0.1, "format": 0.1, "short": 0.1}


def parts(one: Trajectory, settings: CurateSettings) -> dict[str, float]:
    failed = sum(not cell.result.ok for cell in one.cells)
    return {
        "grounded": _grounded(one),
        "executed": float(any(cell.result.ok for cell in one.cells)),
        "clean": 1 / (1 + failed),
        "fresh": 1 - text.repeated_share(text.prose(one.segments, Source.MODEL), settings.ngram),
        "format": 1 / (1 + len(one.faults)),
        "short": max(0.0, 1 - one.tokens() / settings.max_tokens),
    }


def total(values: dict[str, float]) -> float:
    return sum(weight * values[name] for name, weight in WEIGHTS.items())


def scored(row: Row, settings: CurateSettings) -> Row:
    """The row with its score and the parts of it, rounded so that they are written and compared alike."""
    values = {name: round(value, 6) for name, value in parts(row.trajectory, settings).items()}
    return replace(row, score=round(total(values), 6), parts=values)


def _grounded(one: Trajectory) -> float:
    answer = (one.verdict.answer if one.verdict else None) or extract.answer(extract.own_text(one.segments))
    if not answer:
        return 0.0
    said = False
    for segment in one.segments:
        if segment.source in (Source.MODEL, Source.HINT):
            said = said or text.mentions(answer, segment.text)
        elif segment.cell is not None and segment.cell.result.ok:
            result = segment.cell.result
            if text.mentions(answer, f"{result.stdout}\n{result.value or ''}"):
                return 0.5 if said else 1.0
    return 0.0
