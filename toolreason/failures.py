"""The two ways in which reasoning with tools is known to fail, found in a trajectory. Pure; what is found is evidence, no verdict.

    delayed    delayed computation: the model works something out by hand, and a later cell computes the same
      repeated      prose works out a number (`17 * 23 = 391`), and the next cell that runs prints it
      corrected     prose works one out, and a later cell with the same operation prints another result
    distrust   the model has a printed result and does not take it
      rerun         a later cell is the same code with the same output
      recomputed    a later cell works without a new number and prints the same single number again
      by_hand       prose works the printed number out again, over numbers that stood nowhere before
      contradicted  prose gives another result for the operation that was printed, or the final answer is a number that has nothing
                    to do with the last output, which is mentioned no more (or the answer stood in the prose before that output)
      doubted       after code that ran well, words such as "the output must be wrong" or "let me recompute that by hand"

Precision before recall: what a reader would have to guess is not counted. Numbers that stand in the prompt, that code or output had
before, and small or round ones say nothing; cells that print more than `FEW` numbers are passed over; hints are not the model's
words. So reasoning by hand without an explicit `=` (or `is`, `equals`, `gives`) between numbers is not seen, nor is algebra.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from fractions import Fraction
from itertools import combinations
from typing import Any

from toolreason.arithmetic import NUMBER, Number, Operation, Statement, numbers
from toolreason.narrative import Result, Story, squeezed
from toolreason.types import Trajectory
from toolreason.verify import extract

_THING = r"(?:code|program|script|output|result|interpreter|python)"
_SELF = r"(?:let me|let's|let us|i'll|i will|i should|i need to|i have to|we should|we need to)"
_DOUBTS = re.compile(
    rf"(?<!if )\b(?:the|this|that) {_THING}(?:'s output| output| result)? (?:must|is|was|seems|looks|may|might|could|appears)"
    r"(?: to)?(?: be| have been)? (?:wrong|incorrect|mistaken|off|faulty|in error)\b"
    rf"|\b{_SELF}(?: \w+){{0,2}} (?:re-?)?(?:compute|calculate|check|verify|do|work)(?: (?:it|this|that|everything|the \w+))?"
    r"(?: out)?(?: again)? (?:manually|by hand)\b"
    rf"|\b(?:do not|don't|cannot|can't) (?:trust|rely on|believe) (?:the|this|that) {_THING}\b"
    rf"|\bignor(?:e|ing) (?:the|this|that) {_THING}\b",
    re.IGNORECASE,
)
_FRACTION = re.compile(
    r"[-+]?\s*(?:\\[dt]?frac\{(?P<top>\d{1,15})\}\{(?P<bottom>\d{1,15})\}|(?P<over>\d{1,15})/(?P<under>\d{1,15}))"
)
_PLAIN = re.compile(rf"\\?\$?\s*[-+]?\s*(?P<number>{NUMBER})\s*(?:\\?%|\\(?:text|mathrm)\{{[^{{}}]*\}}|[A-Za-z ]{{1,20}})?\.?")
_FACTORS = {Fraction(factor) for factor in (7, 10, 12, 24, 60, 100, 1000, 3600)}  # a change of unit

MOST = 50_000


class DelayedKind(StrEnum):
    REPEATED = "repeated"
    CORRECTED = "corrected"


class DistrustKind(StrEnum):
    RERUN = "rerun"
    RECOMPUTED = "recomputed"
    BY_HAND = "by_hand"
    CONTRADICTED = "contradicted"
    DOUBTED = "doubted"


@dataclass(frozen=True, slots=True)
class Delayed:
    """`segment` is where it was worked out by hand, `cell` the index of the tool segment that computes it."""

    segment: int
    kind: DelayedKind
    excerpt: str
    cell: int


@dataclass(frozen=True, slots=True)
class Distrust:
    """`segment` is where the result was not taken (a tool segment where a cell did it again), `cell` that of the result."""

    segment: int
    kind: DistrustKind
    excerpt: str
    cell: int


def delayed(trajectory: Trajectory) -> list[Delayed]:
    """Delayed computation, in the order of the prose."""
    return list(_delayed(Story.of(trajectory)))


def distrust(trajectory: Trajectory) -> list[Distrust]:
    """Distrust of printed results, in the order of the segments."""
    return _distrust(Story.of(trajectory))


MODES = {"delayed": "delayed computation", "distrust": "distrust of results"}  # as they are counted, and as people read them


def modes(trajectory: Trajectory) -> dict[str, list[Delayed] | list[Distrust]]:
    """Both failure modes by their names, with one reading of the trajectory. A text of more than `MOST` characters is not read."""
    if not trajectory.cells or len(trajectory.response) > MOST:
        return {"delayed": [], "distrust": []}
    story = Story.of(trajectory)
    return {"delayed": [*_delayed(story)], "distrust": _distrust(story)}


def to_rows(trajectory: Trajectory) -> list[dict[str, Any]]:
    """What was found, as plain data: mode, kind, segment, cell, excerpt."""
    return [{"mode": mode, **asdict(one)} for mode, found in modes(trajectory).items() for one in found]


def _delayed(story: Story) -> Iterator[Delayed]:
    told: set[tuple[DelayedKind, Fraction]] = set()
    for at, passage in enumerate(story.passages[:-1]):
        later = [result for result in story.results[at:] if result.ok]
        for stated in passage.statements:
            kind, result = _computed(story, at, stated, later)
            if kind is None or result is None or (kind, stated.result.value) in told:
                continue
            told.add((kind, stated.result.value))
            yield Delayed(passage.segment(stated.start), kind, passage.excerpt(stated.start, stated.end), result.segment)


def _computed(story: Story, at: int, stated: Statement, later: list[Result]) -> tuple[DelayedKind | None, Result | None]:
    """How the cells that come later compute what was stated, and which of them does."""
    value = stated.result.value
    own = later and not stated.result.trivial and value not in story.known(at) | later[0].code.numbers
    if own and any(number.shows(stated.result) for number in later[0].few):
        return DelayedKind.REPEATED, later[0]
    for result in later:
        if _corrects(result, stated):
            return DelayedKind.CORRECTED, result
    return None, None


def _corrects(result: Result, stated: Statement) -> bool:
    """Whether this cell did the stated operation and printed what it really gives."""
    done = stated.operation
    if done is None or done not in result.code.operations or not _differs(done, stated.result):
        return False
    return done.value is not None and result.prints(done.value) and not result.prints(stated.result.value)


def _differs(done: Operation, stated: Number) -> bool:
    """Whether `stated` is neither the operation's value, nor that rounded, nor its whole part."""
    value = done.value
    if value is None or (value < 13 and stated.value < 13):
        return False
    return not Number(value).rounds_to(stated) and not (done.sign == "/" and stated.value == value // 1)


def _distrust(story: Story) -> list[Distrust]:
    return sorted([*_again(story), *_in_prose(story), *_answer(story)], key=lambda one: one.segment)


def _again(story: Story) -> Iterator[Distrust]:
    """Cells that do what an earlier cell has done."""
    for at, later in enumerate(story.results):
        for earlier in story.results[:at]:
            if kind := _repeats(earlier, later):
                yield Distrust(later.segment, kind, squeezed(later.cell.code), earlier.segment)
                break


def _repeats(earlier: Result, later: Result) -> DistrustKind | None:
    if not (earlier.ok and later.ok and earlier.output and later.code.works):
        return None
    if earlier.code.form == later.code.form and earlier.output == later.output:
        return DistrustKind.RERUN
    if len(earlier.few) != 1 or len(later.few) != 1 or earlier.few[0].trivial:
        return None
    new = {number for number in later.code.numbers - earlier.code.numbers if number > 2}
    return DistrustKind.RECOMPUTED if earlier.few[0].value == later.few[0].value and not new else None


def _in_prose(story: Story) -> Iterator[Distrust]:
    """What the model says after a result."""
    for at, (result, passage) in enumerate(zip(story.results, story.passages[1:], strict=True), 1):
        told: set[DistrustKind] = set()
        for stated in passage.statements:
            kind, doubted = _restated(story, at, stated)
            if kind is not None and doubted is not None and kind not in told:
                told.add(kind)
                yield Distrust(passage.segment(stated.start), kind, passage.excerpt(stated.start, stated.end), doubted.segment)
        doubt = _DOUBTS.search(passage.text) if result.ok and result.output else None
        if doubt:
            where = passage.segment(doubt.start())
            yield Distrust(where, DistrustKind.DOUBTED, passage.excerpt(doubt.start(), doubt.end()), result.segment)


def _restated(story: Story, at: int, stated: Statement) -> tuple[DistrustKind | None, Result | None]:
    """What a statement after `at` results makes of one of them."""
    printed = [result for result in story.results[:at] if result.ok]
    for result in reversed(printed):
        if _corrects(result, stated) and not any(other.prints(stated.result.value) for other in printed):
            return DistrustKind.CONTRADICTED, result
    if stated.result.trivial or stated.result.value in story.prompt:
        return None, None
    said = story.known(at) | story.said(at)
    if any(not Number(operand).trivial and operand not in said for operand in stated.operands):
        for result in reversed(printed):
            if any(number.shows(stated.result) for number in result.few):
                return DistrustKind.BY_HAND, result
    return None, None


def _answer(story: Story) -> Iterator[Distrust]:
    """A final answer that has nothing to do with the last output."""
    if not story.results:
        return
    result, after = story.results[-1], story.passages[-1]
    answer = _number(extract.answer(story.own_text) or "")
    if answer is None or answer.trivial or not result.ok or not result.conclusive:
        return
    known = story.known(len(story.results))
    if answer.value in known or any(_related(answer, earlier.few) for earlier in story.results if earlier.ok):
        return
    shown = {number.value for number in result.few}
    derived = any(s.result.value == answer.value and shown & set(s.operands) for s in after.statements)
    used = any(number.shows(said) for said in numbers(after.text) for number in result.few)
    held = answer.value in story.said(len(story.results))
    if not derived and (held or not used):
        segment, excerpt = after.last_mention(answer.value)
        yield Distrust(segment, DistrustKind.CONTRADICTED, f"{excerpt} (printed: {squeezed(result.output)})", result.segment)


def _number(answer: str) -> Number | None:
    """The answer as a magnitude, None where it is no single number."""
    plain = answer.strip().strip("$").strip()
    if match := _FRACTION.fullmatch(plain):
        top, bottom = int(match["top"] or match["over"]), int(match["bottom"] or match["under"])
        return Number(Fraction(top, bottom)) if bottom else None
    match = _PLAIN.fullmatch(plain)
    return next(numbers(match["number"]), None) if match else None


def _related(answer: Number, shown: tuple[Number, ...]) -> bool:
    """Whether the answer could come of these numbers by rounding, a change of unit, a part of the digits, or one operation."""
    value = answer.value
    for number in shown:
        one, other = str(number.value), str(value)
        if number.rounds_to(answer) or answer.rounds_to(number) or value in (number.value // 1, -(-number.value // 1)):
            return True
        if one.isdigit() and other.isdigit() and (one in other or other in one):
            return True
        if value and number.value and {value / number.value, number.value / value} & _FACTORS:
            return True
    pairs = combinations([number.value for number in shown], 2)
    made = {part for a, b in pairs for part in (a + b, abs(a - b), a * b, a / b if b else a, b / a if a else b)}
    return value in made or value in (len(shown), sum(number.value for number in shown))
