"""The hint library: sentences that make a model reach for Python, kept as data in `hints.toml` (START, arXiv 2503.04625, 3.1).

A hint is validated when it is loaded: one sentence, then an open Python fence, so that the next token the model draws is code; a
debug hint goes on with a template, in which `{program}` stands for the program that the model has written. Hints of kind `wait`
are the control: they make a model think on, without Python.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from toolreason.errors import SettingsError

PLACES = ("start", "middle", "end")  # before any reasoning; where it turns; where it ends
FENCE = "```python\n"
PROGRAM = "{program}"
WAIT = "wait"
DEFAULT = "default"

_TWO_SENTENCES = re.compile(r"(?<!\be\.g)(?<!\bi\.e)(?<!\bDr)(?<!\bMr)(?<!\bvs)[.!?]\s+[A-Z]")


@dataclass(frozen=True, slots=True)
class Hint:
    """`places` say where it may stand. `template` is code that follows the fence, for hints that run what the model wrote."""

    kind: str
    text: str
    places: tuple[str, ...] = ("middle", "end")
    template: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", tuple(self.places))
        for place in self.places or ("",):
            if place not in PLACES:
                raise SettingsError(f"hint {self.text!r}: place {place!r} is none of {', '.join(PLACES)}")
        sentence, fence, rest = self.text.partition(FENCE)
        if self.kind == WAIT:
            if "```" in self.text or self.template:
                raise SettingsError(f"hint {self.text!r} is of kind {WAIT!r}, the control without Python: it has no fence")
        elif not fence or rest or not sentence.endswith("\n"):
            raise SettingsError(f"hint {self.text!r} has to end in an open fence: a line ```python and nothing after it")
        if not sentence.strip() or len(sentence.strip().splitlines()) != 1 or _TWO_SENTENCES.search(sentence):
            raise SettingsError(f"hint {self.text!r} has to be one sentence on one line, then the fence")
        self._check_template()

    def _check_template(self) -> None:
        if not self.template:
            return
        if "```" in self.template or not self.template.endswith("\n"):
            raise SettingsError(f"the template of hint {self.text!r} has to be lines of code that leave the fence open")
        if self.template.count(PROGRAM) != 1:
            raise SettingsError(f"the template of hint {self.text!r} has to hold {PROGRAM} once: the program that is to be run")

    def written(self, program: str | None) -> str:
        """The text to insert, for the program that the model has written."""
        return self.text + self.template.replace(PROGRAM, (program or "").rstrip("\n"))


@dataclass(frozen=True, slots=True)
class Library:
    """Hints, and how often each kind is to be drawn: `weights[domain][kind]`. A kind that its domain does not name is not drawn."""

    hints: tuple[Hint, ...]
    weights: dict[str, dict[str, float]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        kinds = {hint.kind for hint in self.hints}
        for domain, table in self.weights.items():
            for kind, weight in table.items():
                if kind not in kinds:
                    raise SettingsError(f"weights.{domain} names the kind {kind!r}, of which there is no hint: {_list(kinds)}")
                if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < float("inf"):
                    raise SettingsError(f"weights.{domain}: the weight of {kind!r} is {weight!r}, it has to be 0 or more")

    def choose(
        self,
        place: str,
        draw: random.Random,
        *,
        domain: str = DEFAULT,
        kind: str | None = None,
        wording: int | None = None,
        program: str | None = None,
    ) -> str:
        """The text of a hint for this place: its kind drawn by weight, its wording evenly.

        `kind` leaves only hints of this kind, `wording` takes one by its number instead of drawing. Hints with a template need a
        `program`. Raises SettingsError where nothing is left.
        """
        fitting = [hint for hint in self.hints if place in hint.places and (program is not None or not hint.template)]
        chosen = [hint for hint in fitting if (hint.kind != WAIT if kind is None else hint.kind == kind)]
        if not chosen:
            raise SettingsError(f"no hint{f' of kind {kind!r}' if kind else ''} for place {place!r}; kinds: {_list(self.kinds)}")
        if wording is not None:
            if not 0 <= wording < len(chosen):
                raise SettingsError(f"place {place!r} has wordings 0 to {len(chosen) - 1}, not {wording}")
            return chosen[wording].written(program)
        kinds = sorted({hint.kind for hint in chosen})
        table = self.weights.get(domain, self.weights.get(DEFAULT, {}))
        weights = [table.get(kind, 0.0) for kind in kinds]
        drawn = draw.choices(kinds, weights if any(weights) else None)[0]
        return draw.choice([hint for hint in chosen if hint.kind == drawn]).written(program)

    def needs_program(self, place: str, kind: str | None) -> bool:
        """Whether all hints of this kind for this place have a template."""
        fitting = [hint for hint in self.hints if place in hint.places and hint.kind == kind]
        return bool(fitting) and all(hint.template for hint in fitting)

    @property
    def kinds(self) -> set[str]:
        return {hint.kind for hint in self.hints}


def _list(names: set[str] | Sequence[str]) -> str:
    return ", ".join(sorted(names))


def parse(text: str, onto: Library | None = None) -> Library:
    """The library of a TOML document: `[[hint]]` tables and `[weights.DOMAIN]` tables, added to those of `onto`.

    Weights replace those of the same domain. Raises SettingsError for what breaks the rules.
    """
    base = onto or Library(())
    try:
        document: dict[str, Any] = tomllib.loads(text)
        weights = {domain: dict(table) for domain, table in document.pop("weights", {}).items()}
        found = tuple(Hint(**entry) for entry in document.pop("hint", ()))
    except (tomllib.TOMLDecodeError, TypeError, ValueError) as error:
        raise SettingsError(f"not a hint library: {error}") from error
    if document:
        raise SettingsError(f"not a hint library: it has {_list(set(document))}; there are [[hint]] and [weights.DOMAIN]")
    return Library(base.hints + found, {**base.weights, **weights})


def library(path: str | None = None) -> Library:
    """Our library; with `path`, a TOML file, that of the user on top of it. Raises SettingsError."""
    if path is None:
        return _ours()
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the hints in {path}: {error}") from error
    return _with(text)


@lru_cache(maxsize=1)
def _ours() -> Library:
    return parse((files("toolreason") / "hints.toml").read_text(encoding="utf-8"))


@lru_cache(maxsize=16)
def _with(text: str) -> Library:
    return parse(text, _ours())
