"""The hint library: sentences that make a model reach for Python, kept as data in `hints.toml`.

A hint is validated when it is loaded: one sentence, then an open Python fence, so that the next token the model draws is code.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from toolreason.errors import SettingsError

PLACES = ("start", "end")
FENCE = "```python\n"


@dataclass(frozen=True, slots=True)
class Hint:
    place: str
    kind: str
    text: str

    def __post_init__(self) -> None:
        sentence, fence, rest = self.text.partition(FENCE)
        if self.place not in PLACES:
            raise SettingsError(f"hint {self.text!r}: place {self.place!r} is none of {', '.join(PLACES)}")
        if not fence or rest:
            raise SettingsError(f"hint {self.text!r} has to end in an open fence: a line ```python and nothing after it")
        if not sentence.strip() or len(sentence.strip().splitlines()) != 1:
            raise SettingsError(f"hint {self.text!r} has to be one sentence on one line, then the fence")


def parse(text: str) -> tuple[Hint, ...]:
    """The hints of a TOML document with `[[hint]]` tables. Raises SettingsError for a hint that breaks the rules."""
    try:
        return tuple(Hint(**entry) for entry in tomllib.loads(text).get("hint", ()))
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise SettingsError(f"not a hint library: {error}") from error


@cache
def library() -> tuple[Hint, ...]:
    return parse((files("toolreason") / "hints.toml").read_text(encoding="utf-8"))


def choose(place: str, wording: int = 0) -> Hint:
    """The hint of this place; `wording` picks one of its wordings, in the order of the file."""
    wordings = [hint for hint in library() if hint.place == place]
    if not wordings:
        raise SettingsError(f"no hint for place {place!r}; places are: {', '.join(PLACES)}")
    if not 0 <= wording < len(wordings):
        raise SettingsError(f"place {place!r} has wordings 0 to {len(wordings) - 1}, not {wording}")
    return wordings[wording]
