"""The filters: each looks at one row and says why it falls, or nothing. All of them are ours; the paper only says "filtering"."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from toolreason.curate import text
from toolreason.curate.settings import CurateSettings
from toolreason.curate.steps import Fall, Row
from toolreason.types import CellResult, Source, Trajectory

Filter = Callable[[Row, CurateSettings], Fall | None]
_PLACES = re.compile(r"\bline \d+|\bFile \"[^\"]*\"|<cell[^>]*>|\bposition \d+")


def format_faults(row: Row, settings: CurateSettings) -> Fall | None:
    """Output that the model made up, a call that was never closed."""
    faults = row.trajectory.faults
    return Fall("format faults", ", ".join(faults)) if len(faults) > settings.max_faults else None


def without_cells(row: Row, settings: CurateSettings) -> Fall | None:
    """A hinted trace that never ran anything teaches nothing about tools."""
    ran = len(row.trajectory.cells)
    return Fall("no executed cell" if not ran else "few executed cells", f"{ran}") if ran < (settings.min_cells or 0) else None


def failed_executions(row: Row, settings: CurateSettings) -> Fall | None:
    """More failing cells than a lesson in debugging needs, a failure that nothing was changed after or that nothing followed."""
    failed = [cell for cell in row.trajectory.cells if not cell.result.ok]
    if len(failed) > settings.max_failing_cells:
        return Fall("many failed cells", _what(failed[-1].result))
    programs = Counter(text.program(cell.code) for cell in failed).most_common(1)
    if settings.drop_failed_again and programs and programs[0][1] > 1:
        return Fall("a failed program again", programs[0][0])
    if settings.last_cell_ok and row.trajectory.cells and not row.trajectory.cells[-1].result.ok:
        return Fall("the last cell failed", _what(failed[-1].result))
    return None


def _what(result: CellResult) -> str:
    return result.error or result.outcome.value


def repetition(row: Row, settings: CurateSettings) -> Fall | None:
    """Loops: the same words, the same line, the same program, over and over."""
    own = text.prose(row.trajectory.segments, Source.MODEL)
    share = text.repeated_share(own, settings.ngram)
    if share > settings.max_repeated:
        return Fall("repeats itself", f"{share:.0%} of its {settings.ngram}-word runs stood there before")
    line, times = text.most_repeated_line(own)
    if times > settings.max_same_line:
        return Fall("one line again and again", f"{times} times: {line}")
    programs = Counter(text.program(cell.code) for cell in row.trajectory.cells).most_common(1)
    if programs and programs[0][1] > settings.max_same_cell:
        return Fall("one program again and again", f"{programs[0][1]} times: {programs[0][0]}")
    return None


def length(row: Row, settings: CurateSettings) -> Fall | None:
    tokens = row.trajectory.tokens()
    return Fall("too long", f"{tokens} tokens") if tokens > settings.max_tokens else None


def leaked_answer(row: Row, settings: CurateSettings) -> Fall | None:
    """The answer first appears in the text of an error: the trace was told it, it did not compute it."""
    answer = gold(row)
    if not settings.drop_leaked or not answer:
        return None
    for segment in row.trajectory.segments:
        result = segment.cell.result if segment.cell else None
        if result is not None and not result.ok and not text.mentions(answer, result.stdout):
            told = _PLACES.sub(" ", f"{result.error or ''}\n{result.traceback}\n{result.stderr}")
            if text.mentions(answer, told):
                return Fall("answer in an error", result.error or told)
        if text.mentions(answer, segment.text):
            return None
    return None


def gold(row: Row) -> str:
    """The reference answer where it is known; else the one that was judged right, which is worth the same."""
    known = row.problem.reference.answer if row.problem else ""
    return known or _judged(row.trajectory) or ""


def _judged(one: Trajectory) -> str | None:
    return one.verdict.answer if one.verdict else None


def language(row: Row, settings: CurateSettings) -> Fall | None:
    """Letters of scripts that the question (where it is not known: the prompt) does not use."""
    segments = row.trajectory.segments
    asked = row.problem.question if row.problem else "".join(s.text for s in segments if s.source is Source.PROMPT)
    own = text.prose(segments, Source.MODEL)
    share = text.foreign_share(own, asked)
    if share <= settings.max_other_script:
        return None
    return Fall("mixes languages", f"{share:.1%} of its letters: {dict(text.scripts(own).most_common(4))}")


FILTERS: dict[str, Filter] = {
    "format faults": format_faults,
    "executed cells": without_cells,
    "failed executions": failed_executions,
    "repetition": repetition,
    "length": length,
    "leaked answers": leaked_answer,
    "language mixing": language,
}
