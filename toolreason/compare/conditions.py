"""The conditions: a name, a strategy, its settings. The controls of START (arXiv 2503.04625) are here; users add their own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from toolreason.errors import SettingsError
from toolreason.strategies.base import Settings, load, parse_settings

PLACE = "{hint}"  # stands for the place that `--hint` names
BASELINE = "plain"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_COMMA = re.compile(r",(?=\s*[A-Za-z_]\w*=)")  # a comma inside a value is none


@dataclass(frozen=True, slots=True)
class Condition:
    """`name` is also the name of its run's directory. `settings` are texts, as `--set` takes them. `samples`: rollouts a problem of
    this condition, where they are not as many as of the others.
    """

    name: str
    strategy: str
    settings: dict[str, str] = field(default_factory=dict, hash=False)
    samples: int | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise SettingsError(
                f"{self.name!r} is no name of a condition: letters, digits, '.', '_' and '-' make a directory's name"
            )


CONDITIONS = (
    Condition("plain", "plain"),
    Condition("wait", "hint_infer", {"hint": PLACE, "kind": "wait", "execute": "false"}),
    Condition("offered", "artist", {"format": "fenced", "stateful": "true"}),
    Condition("hint", "hint_infer", {"hint": PLACE}),
    Condition("not-run", "hint_infer", {"hint": PLACE, "execute": "false"}),
    Condition("artist", "artist"),
)
NAMES = tuple(condition.name for condition in CONDITIONS)


@dataclass(frozen=True, slots=True)
class Ready:
    """A condition whose settings have been checked."""

    name: str
    strategy: str
    settings: Settings
    samples: int | None = None


def parse(text: str) -> Condition:
    """`NAME=STRATEGY[,KEY=VALUE...]`; the key `samples` is the condition's own. Raises SettingsError."""
    name, equals, rest = text.partition("=")
    strategy, *pairs = _COMMA.split(rest)
    if not equals or not strategy.strip():
        raise SettingsError(f"{text!r} is no NAME=STRATEGY[,KEY=VALUE...], such as late=hint_infer,hint=end")
    split = (pair.partition("=") for pair in pairs)
    settings = {key.strip(): value for key, _, value in split}
    samples = settings.pop("samples", None)
    if samples is not None and not (samples.strip().isdecimal() and int(samples)):
        raise SettingsError(f"samples={samples} of the condition {name.strip()!r} is no number of rollouts: 1 or more")
    return Condition(name.strip(), strategy.strip(), settings, int(samples) if samples else None)


def choose(names: str, own: Iterable[str] = ()) -> list[Condition]:
    """The conditions of these names (`plain,hint`), then the user's own. Raises SettingsError."""
    table = {condition.name: condition for condition in CONDITIONS}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    chosen = []
    for name in wanted:
        if name not in table:
            raise SettingsError(
                f"no condition {name!r}: there are {', '.join(NAMES)}; your own: --condition NAME=STRATEGY[,KEY=VALUE...]"
            )
        chosen.append(table[name])
    for condition in map(parse, own):
        if condition.name in table:
            raise SettingsError(f"the condition {condition.name!r} is built in: give yours another name")
        chosen.append(condition)
    if len({condition.name.lower() for condition in chosen}) < len(chosen):  # as some file systems compare
        raise SettingsError(f"two conditions have one name: {', '.join(condition.name for condition in chosen)}")
    if not chosen:
        raise SettingsError(f"no condition is named: there are {', '.join(NAMES)}")
    return chosen


def ready(conditions: Sequence[Condition], *, budget: int, hint: str = "start", rounds: int = 1) -> list[Ready]:
    """The settings of each, checked: `budget` tokens for all, `rounds` for those that have rounds. Raises SettingsError."""
    done = []
    for condition in conditions:
        try:
            done.append(Ready(condition.name, condition.strategy, _settings(condition, budget, hint, rounds), condition.samples))
        except SettingsError as error:
            raise SettingsError(f"condition {condition.name!r}: {error}") from error
    if rounds > 1 and not any(scales(one.settings) for one in done):
        raise SettingsError("--rounds is for conditions with hints, and there is none: add one, --conditions plain,hint")
    return done


def _settings(condition: Condition, budget: int, hint: str, rounds: int) -> Settings:
    kind = load(condition.strategy).settings
    given = {key: hint if value == PLACE else value for key, value in condition.settings.items()}
    if "max_tokens" in given:
        raise SettingsError("max_tokens is the same for all conditions: give it as --budget")
    if rounds > 1 and scales(kind):
        given.setdefault("rounds", str(rounds))
    settings: Settings = parse_settings(kind, [f"{key}={value}" for key, value in given.items()] + [f"max_tokens={budget}"])
    return settings


def scales(settings: Any) -> bool:
    """Whether these settings, or settings of this class, know rounds of test-time scaling."""
    return _has(settings, "rounds")


def writes_hints(settings: Any) -> bool:
    """Whether the strategy of these settings writes into the model's own text."""
    return _has(settings, "hint")


def _has(settings: Any, name: str) -> bool:
    return any(field.name == name for field in fields(settings))
