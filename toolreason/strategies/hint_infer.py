"""START's Hint-infer (arXiv 2503.04625, section 3.1) and its sequential test-time scaling (section 3.2).

1. The model reasons, without an interpreter, until it ends its turn or closes its thinking. (Empty with `hint="start"`; with
   `hint="all"` it is stopped at each conjunction.)
2. A place for a hint is chosen; what stands behind it is taken back, on a token boundary, and the hint is written in the model's
   voice: one sentence and an open code fence.
3. The model goes on, now with an interpreter, at most `max_calls` calls, until it ends or a limit strikes.
4. With `rounds` above 1, an ended rollout has its ending taken back (what follows its reasoning, or the end token alone where it
   marks none), gets another hint and goes on as in 3.

Controls: `execute=false`: the code that the hint draws is never run. `kind=wait` with it: the same places, without Python.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from toolreason import formats, hints
from toolreason.policies.base import Finish
from toolreason.strategies import places
from toolreason.strategies.base import Action, End, Insert, Think, View, at_least, limit
from toolreason.strategies.interpreter import InterpreterSettings, go_on
from toolreason.strategies.places import THINK_END, THINK_START, Kind, Place
from toolreason.types import StopReason
from toolreason.verify import extract

FINISHED = (StopReason.ANSWERED, StopReason.NO_ANSWER)


@dataclass(frozen=True, slots=True)
class HintInferSettings(InterpreterSettings):
    """Where hints go, which, and how many.

    `hint`: "start", "end" (of the reasoning), "answer" (before the final answer), "last" (conjunction), "random", "all", or
    `package.module:function` (a `places.Chooser`). Where the text has no such place, the end is taken. `kind` leaves only hints of
    this kind, `wording` takes one by its number instead of drawing, `hints` adds a file of your own. `max_hints` bounds those of
    "all"; `min_prefix_tokens` keeps conjunctions early in the reasoning free of hints. `think`: whether the model reasons in
    `<think>` ("auto": as its chat template says). `max_calls` is for each round. `answer` says which round's answer counts. A kind
    that runs the model's program ("debug") gives way to the others where the model has written none.
    """

    stateful: bool = True
    hint: str = "start"
    kind: str | None = None
    wording: int | None = None
    hints: str | None = None
    min_prefix_tokens: int = 48
    max_hints: int = 6
    execute: bool = True
    think: Literal["auto", "yes", "no"] = "auto"
    rounds: int = 1
    answer: Literal["last", "majority", "certain"] = "last"

    def __post_init__(self) -> None:
        InterpreterSettings.__post_init__(self)
        at_least(self, 1, "rounds", "max_hints")
        at_least(self, 0, "min_prefix_tokens")
        if self.hint != "start":
            places.chooser(self.hint)
        for place in self._places():  # now, and not in the middle of a rollout
            for program in (None, ""):
                _choose(self, place, random.Random(0), program=program)

    def _places(self) -> list[str]:
        """Where hints may have to stand, in the library's words."""
        if self.hint == "start":
            return ["start", "end"] if self.rounds > 1 else ["start"]
        return ["end"] if self.hint in ("end", "answer") else ["end", "middle"]


def decide(view: View, settings: HintInferSettings) -> Action:
    if not view.hints:
        return _first(view, settings)
    if settings.hint == "all" and (more := _at_conjunction(view, settings)):
        return more
    calls = view.calls_before_round + settings.max_calls
    action = go_on(view, settings, formats.get("fenced"), settings.execute, max_calls=calls)  # 3
    if isinstance(action, End) and action.reason in FINISHED and view.rounds_ended + 1 < settings.rounds:
        return action if limit(view, settings) else _next_round(view, settings, action.reason)  # 4
    if isinstance(action, Think) and settings.hint == "all" and view.hints < settings.max_hints:
        return Think((*action.stops, *places.STOPS))
    return action


def _first(view: View, settings: HintInferSettings) -> Action:
    if settings.hint == "start":
        opens = view.thinks(settings.think) and not view.segments[-1].text.rstrip().endswith((THINK_START, THINK_END))
        return Insert(_text(view, settings, "start"), lead=f"{THINK_START}\n" if opens else None)
    if view.finish is Finish.END or view.stop == THINK_END:
        return _chosen(view, settings)  # 2
    if settings.hint == "all" and (more := _at_conjunction(view, settings)):
        return more
    return limit(view, settings) or Think((THINK_END, *places.STOPS) if settings.hint == "all" else (THINK_END,))  # 1


def _chosen(view: View, settings: HintInferSettings) -> Action:
    """The hint at the place that the setting chooses. None where it chooses none, where it chose none when the model closed its
    thinking, and where a limit would strike before the model could go on: then what it said is not taken back for nothing.
    """
    if limit(view, settings) or places.closed_before(view):
        return _as_it_is(view, settings)
    found = places.find(view, settings.min_prefix_tokens)
    if not found:  # it ended without a word
        return Insert(_text(view, settings, "end"))
    place = places.chooser(settings.hint)(found, _draw(view))
    return _insert(view, settings, place) if place else _as_it_is(view, settings)


def _as_it_is(view: View, settings: HintInferSettings) -> Action:
    """The end, without a hint; a model that has only closed its thinking may answer."""
    if view.finish is not Finish.END:
        return limit(view, settings) or Think()
    return End(StopReason.ANSWERED if view.answered(formats.get("fenced")) else StopReason.NO_ANSWER)


def _at_conjunction(view: View, settings: HintInferSettings) -> Insert | None:
    """A hint at the conjunction at which the model was stopped, if it was and a hint may stand there."""
    if view.stop not in places.STOPS or view.hints >= settings.max_hints or view.left(settings) <= 0:
        return None
    found = [place for place in places.find(view, settings.min_prefix_tokens) if place.kind is Kind.CONJUNCTION]
    here = found[-1] if found and found[-1].after >= len(view.segments[-1].text.rstrip()) else None
    return _insert(view, settings, here) if here else None


def _next_round(view: View, settings: HintInferSettings, ended: StopReason) -> Action:
    """Take the ending back and write the next hint. (A model that ended without a word has no ending.)"""
    found = [place for place in places.find(view) if place.kind in (Kind.THINK_END, Kind.STOP)]
    at = found[-1].at if found else None
    return Insert(_text(view, settings, "end", at), at, lead=places.closing(view, at), ended=ended)


def _insert(view: View, settings: HintInferSettings, place: Place) -> Insert:
    """A hint that begins small goes on after the conjunction, any other takes its place."""
    middle = place.kind is Kind.CONJUNCTION
    text = _text(view, settings, "middle" if middle else "end", place.at)
    if middle and text[:1].islower():
        return Insert(text, place.after, lead=" ")
    return Insert(text, place.at, lead=places.closing(view, place.at))


def _text(view: View, settings: HintInferSettings, place: str, at: int | None = None) -> str:
    """A hint for this place, with the program that stands before character `at` of the last segment."""
    domain = "code" if view.code else view.domain
    program = extract.program(view.own_text_before(at)) if domain == "code" else None
    return _choose(settings, place, _draw(view), domain=domain, program=program)


def _choose(
    settings: HintInferSettings, place: str, draw: random.Random, *, domain: str = hints.DEFAULT, program: str | None
) -> str:
    library, kind, wording = hints.library(settings.hints), settings.kind, settings.wording
    if program is None and library.needs_program(place, kind):
        kind = wording = None
    return library.choose(place, draw, domain=domain, kind=kind, wording=wording, program=program)


def _draw(view: View) -> random.Random:
    """The same for the same rollout at the same point: a resumed one decides as before."""
    return random.Random(f"{view.seed}:{view.hints}")
