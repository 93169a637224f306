"""Where a hint can go in what the model has said since the last result (START, arXiv 2503.04625, section 3.1), and which is chosen.

    conjunction   before a sentence that begins with Wait, Alternatively and the like
    answer        before the line with the final answer
    think_end     before `</think>`
    stop          where the model ended its turn

Never inside a fenced or a quoted block (one that is open at the end is closed by what is inserted: `closing`); in the reasoning
only, where the model marks its end. A display formula around the answer is not torn apart.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from itertools import islice

from toolreason import formats
from toolreason.errors import SettingsError
from toolreason.policies.base import Finish
from toolreason.strategies.base import View
from toolreason.types import Source
from toolreason.verify import extract

THINK_START, THINK_END = "<think>", "</think>"
CONJUNCTIONS = ("Wait", "Alternatively", "But wait", "Hmm", "Hold on", "Actually", "Let me double-check", "Let me double check")
STOPS = tuple(f"{word}," for word in ("Wait", "wait", "Alternatively", "Hmm", "Hold on", "Actually"))
"""Strings at which to stop where hints are written as the reasoning goes: each may be the end of a conjunction."""

_CONJUNCTION = re.compile(rf"(?:\A|(?<=[.!?:)\]}}$*>\n]))[ \t]*(?P<word>{'|'.join(CONJUNCTIONS)})\b(?P<comma>,? ?)")
_QUOTED = re.compile(r"^[ \t]{0,3}>.*$", re.MULTILINE)
_ANSWER = re.compile(r"\\boxed\s*\{|\\fbox\s*\{|<answer>|(?i:\*{0,2}final answer)")


class Kind(StrEnum):
    CONJUNCTION = "conjunction"
    ANSWER = "answer"
    THINK_END = "think_end"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Place:
    """`at`: the character of the last segment before which the hint goes; `after` is the end of a conjunction, else the same."""

    kind: Kind
    at: int
    after: int


Chooser = Callable[[Sequence[Place], random.Random], Place | None]
"""Picks one of the places, in the order of the text; there is at least one. None: no hint, the rollout ends as it is."""


def find(view: View, min_prefix_tokens: int = 0) -> tuple[Place, ...]:
    """The places in the last segment, in the order of the text. Conjunctions count past `min_prefix_tokens` only."""
    if not view.segments or view.segments[-1].source is not Source.MODEL:
        return ()
    text = view.segments[-1].text
    text = text[: len(text) - view.end_characters]
    tail = formats.tail(view.segments)
    start = len(tail) - view.end_characters - len(text)
    body = tail[: start + len(text)]
    shut = [(fence.start, fence.end) for fence in extract.fences(body)] + [found.span() for found in _QUOTED.finditer(body)]
    closed = body.rfind(THINK_END)
    reasoning = closed if closed >= start else start if closed_before(view) else len(body)
    early = start + view.past_tokens(min_prefix_tokens)

    def free(at: int) -> bool:
        return start <= at < reasoning and not any(begin <= at < end for begin, end in shut)

    found = [
        Place(Kind.CONJUNCTION, match.start("word") - start, match.end("comma") - start)
        for match in _CONJUNCTION.finditer(body)
        if match.start("word") >= early and free(match.start("word"))
    ]
    lines = (_line(body, match.start()) for match in reversed([*_ANSWER.finditer(body, start)]))
    found += [Place(Kind.ANSWER, at - start, at - start) for at in islice((at for at in lines if at > start and free(at)), 1)]
    if closed >= start:
        found.append(Place(Kind.THINK_END, closed - start, closed - start))
    elif view.finish is Finish.END:
        found.append(Place(Kind.STOP, len(text), len(text)))
    return tuple(sorted(found, key=lambda place: place.at))


def _line(body: str, at: int) -> int:
    """Where the line begins in which this character stands, or the display formula."""
    opened = body.rfind("\\[", 0, at)
    if opened > body.rfind("\\]", 0, at):
        at = opened
    elif body.count("$$", 0, at) % 2:
        at = body.rfind("$$", 0, at)
    return body.rfind("\n", 0, at) + 1


def closed_before(view: View) -> bool:
    """Whether the model closed its thinking in a segment before the last one."""
    return any(THINK_END in segment.text for segment in view.segments[:-1] if segment.source is Source.MODEL)


def closing(view: View, at: int | None) -> str | None:
    """What has to stand between this character of the last segment (None: its end) and a hint that opens a fence, where another
    fence is open there.
    """
    last = view.segments[-1].text
    body = view.tail if at is None else view.tail[: len(view.tail) - (len(last) - view.end_characters) + at]
    mark = extract.open_mark(body)
    return f"\n{mark}\n\n" if mark else None


def _last(kind: Kind) -> Chooser:
    return lambda places, draw: next((place for place in reversed(places) if place.kind is kind), places[-1])


def _end(places: Sequence[Place], draw: random.Random) -> Place:
    """Where the reasoning ends. In the order of the text that is the last place."""
    return places[-1]


def _random(places: Sequence[Place], draw: random.Random) -> Place:
    """START's way of making data: one hint at a random place, the end among them."""
    return draw.choice([place for place in places if place.kind is not Kind.ANSWER])


CHOOSERS: dict[str, Chooser] = {
    "end": _end,
    "answer": _last(Kind.ANSWER),
    "last": _last(Kind.CONJUNCTION),
    "random": _random,
    "all": lambda places, draw: next((place for place in places if place.kind is Kind.CONJUNCTION), places[-1]),
}


def chooser(name: str) -> Chooser:
    """Ours by name, or the user's by `package.module:function`. It has to be a pure function: a resumed rollout asks it again."""
    if name in CHOOSERS:
        return CHOOSERS[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise SettingsError(f"no place {name!r} for a hint: there are start, {', '.join(CHOOSERS)} and package.module:function")
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(f"the chooser {name!r} cannot be imported: {error}") from error
    if not callable(found):
        raise SettingsError(f"the chooser {name!r} is no function")
    chosen: Chooser = found
    return chosen
