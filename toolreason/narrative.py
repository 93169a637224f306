"""A trajectory as a story: what the model says, what a cell prints, what the model says next. For analyses; pure."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import islice
from typing import Self

from toolreason import arithmetic
from toolreason.arithmetic import Code, Number, Statement
from toolreason.types import Cell, Segment, Source, Trajectory
from toolreason.verify import extract

FEW = 8  # numbers in an output that is a result and not a listing
EXCERPT = 90  # characters
_TAGGED = re.compile(r"<python>(?:(?!</python>)[\s\S])*(?:</python>)?")


@dataclass(frozen=True)
class Passage:
    """The model's own prose between two results. Code and hints are blanked out, so positions are those of the whole text.

    `starts` and `segments`: where each segment begins in the text, and its index in the trajectory.
    """

    text: str
    starts: tuple[int, ...] = (0,)
    segments: tuple[int, ...] = (0,)

    @classmethod
    def of(cls, segments: Sequence[tuple[int, Segment]]) -> Self:
        text, starts = "", []
        for _, segment in segments:
            starts.append(len(text))
            text += segment.text
        blank = [(fence.start, fence.end) for fence in extract.fences(text)]
        blank += [match.span() for match in _TAGGED.finditer(text)]
        for start, (_, segment) in zip(starts, segments, strict=True):
            if segment.source is Source.HINT:
                blank.append((start, start + len(segment.text)))
        characters = list(text)
        for start, end in blank:
            characters[start:end] = " " * (end - start)
        return cls("".join(characters), tuple(starts) or (0,), tuple(index for index, _ in segments) or (0,))

    @cached_property
    def statements(self) -> tuple[Statement, ...]:
        return tuple(arithmetic.statements(self.text))

    @cached_property
    def numbers(self) -> frozenset[Fraction]:
        return frozenset(number.value for number in arithmetic.numbers(self.text))

    def segment(self, position: int) -> int:
        """The index of the segment that holds this character."""
        return self.segments[max(bisect_right(self.starts, position) - 1, 0)]

    def excerpt(self, start: int, end: int) -> str:
        """This part on one line, with a little of what stands around it."""
        room = max(EXCERPT - (end - start), 0) // 2
        begin = max(start - room, self.text.rfind("\n", 0, start) + 1)
        line_end = self.text.find("\n", end)
        return squeezed(self.text[begin : min(end + room, len(self.text) if line_end < 0 else line_end)])

    def last_mention(self, value: Fraction) -> tuple[int, str]:
        """Segment and excerpt of the last place where this number stands; the end of the passage where it stands nowhere."""
        starts = [number.start for number in arithmetic.numbers(self.text) if number.value == value] or [len(self.text)]
        return self.segment(starts[-1]), self.excerpt(starts[-1], starts[-1])


@dataclass(frozen=True)
class Result:
    """A cell that ran: the index of its tool segment, its code, and what it printed (standard output and a last value)."""

    segment: int
    cell: Cell
    code: Code
    output: str

    @classmethod
    def of(cls, index: int, cell: Cell) -> Self:
        output = "\n".join(part for part in (cell.result.stdout.strip(), cell.result.value or "") if part)
        return cls(index, cell, arithmetic.code(cell.code), output)

    @property
    def ok(self) -> bool:
        return self.cell.result.ok

    @cached_property
    def few(self) -> tuple[Number, ...]:
        """The printed numbers; none where there are more than a result has."""
        found = tuple(islice(arithmetic.numbers(self.output), FEW + 1))
        return found if len(found) <= FEW else ()

    @property
    def conclusive(self) -> bool:
        """Whether the last line that was printed holds one number."""
        lines = self.output.splitlines()
        return bool(self.few) and bool(lines) and len(list(arithmetic.numbers(lines[-1]))) == 1

    def prints(self, value: Fraction) -> bool:
        """Whether this number is among the few printed ones, as far as floats can tell."""
        return any(abs(number.value - value) * 10**9 <= value for number in self.few)


@dataclass(frozen=True)
class Story:
    """`passages[i]` comes before `results[i]`; the last passage comes after the last result."""

    prompt: frozenset[Fraction]
    passages: tuple[Passage, ...]
    results: tuple[Result, ...]
    own_text: str

    @classmethod
    def of(cls, trajectory: Trajectory) -> Self:
        passages: list[Passage] = []
        results: list[Result] = []
        between: list[tuple[int, Segment]] = []
        prompt = ""
        for index, segment in enumerate(trajectory.segments):
            if segment.source is Source.PROMPT:
                prompt += segment.text
            elif segment.cell is None:
                between.append((index, segment))
            else:
                passages.append(Passage.of(between))
                results.append(Result.of(index, segment.cell))
                between = []
        asked = frozenset(number.value for number in arithmetic.numbers(prompt))
        return cls(asked, (*passages, Passage.of(between)), tuple(results), extract.own_text(trajectory.segments))

    def known(self, results: int) -> frozenset[Fraction]:
        """The numbers of the prompt, and those that code and output of the first so many results have."""
        return self._known[results]

    def said(self, passages: int) -> frozenset[Fraction]:
        """The numbers in the first so many passages."""
        return frozenset().union(*(passage.numbers for passage in self.passages[:passages]))

    @cached_property
    def _known(self) -> list[frozenset[Fraction]]:
        steps = [self.prompt]
        for result in self.results:
            printed = {number.value for number in arithmetic.numbers(result.output)}
            steps.append(steps[-1] | result.code.numbers | result.code.values | printed)
        return steps


def squeezed(text: str) -> str:
    """On one line, and short."""
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT else line[: EXCERPT - 1] + "…"
