"""What a strategy is: settings, one pure decision, and the graph that carries it out.

The decision looks at the rollout so far and names the next action. It is a plain function, so that it can be tested, read beside
the paper, and computed again after a resume with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from toolreason import formats
from toolreason.errors import SettingsError
from toolreason.options import parse
from toolreason.policies.base import Finish
from toolreason.tokens import Decode, first
from toolreason.types import Segment, Source, StopReason, TakenBack, adapter, cells, coerce_tuples, count_tokens
from toolreason.verify import extract

if TYPE_CHECKING:
    from langgraph.graph import StateGraph

ENTRY_POINTS = "toolreason.strategies"


@dataclass(frozen=True, slots=True)
class Settings:
    """What every strategy has. `max_tokens` counts everything after the prompt: model, hint and tool tokens, and those taken back.

    It is looked at before the model goes on, so a hint or a result, which come whole, may pass it by their length.

    `max_turns` bounds the number of times the model is asked to go on. `system` replaces the strategy's own system prompt.
    """

    max_tokens: int = 1024
    max_turns: int = 16
    system: str | None = None

    def __post_init__(self) -> None:
        at_least(self, 1, "max_tokens", "max_turns")


def at_least(settings: object, least: float, *names: str) -> None:
    """Raise SettingsError for the first of these fields that is below `least`."""
    for name in names:
        if getattr(settings, name) < least:
            raise SettingsError(f"{name} is {getattr(settings, name)}, it has to be at least {least}")


SettingsT = TypeVar("SettingsT", bound=Settings)
SettingsIn = TypeVar("SettingsIn", bound=Settings, contravariant=True)


@dataclass(frozen=True, slots=True)
class View:
    """The rollout so far. `finish` and `stop` say how the last model segment ended; None when the last segment is not the model's.

    `end_characters` is the length of the end token's text at the end of the last segment (0: no end token there). `taken_back` is
    what was sampled and cut off again. `seed` is the rollout's own, `domain` its problem's; `code`: whether it asks for a program.
    `asked`: how many times the model was asked. `aside`: the tokens of the policy's other calls for this rollout; `tickets`: how
    many tools it asked for; `failing`: the library's tools that its last cell found faulty. `template_thinks`: whether the chat
    template knows `<think>`. `decode` is the policy's, to count tokens with.
    """

    segments: tuple[Segment, ...]
    finish: Finish | None = None
    stop: str | None = None
    end_characters: int = 0
    taken_back: tuple[TakenBack, ...] = ()
    seed: str = ""
    domain: str = "math"
    code: bool = False
    asked: int = 0
    aside: int = 0
    tickets: int = 0
    failing: tuple[str, ...] = ()
    template_thinks: bool = False
    decode: Decode | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        coerce_tuples(self, "segments", "taken_back", "failing")

    @property
    def turns(self) -> int:
        """How many times the model was asked, also where all that it said was taken back."""
        return max(self.asked, sum(segment.source is Source.MODEL for segment in self.segments))

    @property
    def calls(self) -> int:
        return len(cells(self.segments))

    @property
    def hints(self) -> int:
        return sum(segment.source is Source.HINT for segment in self.segments)

    @property
    def rounds_ended(self) -> int:
        """How many times the rollout had come to its end and was taken on."""
        return sum(part.stop is not None for part in self.taken_back)

    @property
    def tail(self) -> str:
        """The text since the last result, without an end token."""
        text = formats.tail(self.segments)
        return text[: len(text) - self.end_characters]

    @property
    def own_text(self) -> str:
        """The model's own words, as the verifier reads them."""
        return extract.own_text(self.segments)

    def thinks(self, setting: Literal["auto", "yes", "no"]) -> bool:
        """Whether the model reasons in `<think>`."""
        return self.template_thinks if setting == "auto" else setting == "yes"

    @property
    def calls_before_round(self) -> int:
        """How many calls the rounds before this one made."""
        begun = max((part.after for part in self.taken_back if part.stop is not None), default=0)
        return len(cells(self.segments[:begun]))

    def own_text_before(self, at: int | None) -> str:
        """The model's own words before this character of the last segment (None: all of them)."""
        *earlier, last = self.segments
        return self.own_text if at is None else extract.own_text([*earlier, Segment(Source.MODEL, last.text[:at])])

    def past_tokens(self, count: int) -> int:
        """The first character of the last segment that has so many tokens of the response before it (its length + 1: none has)."""
        *earlier, last = self.segments
        needed = count - count_tokens(earlier)
        if needed <= 0 or not (self.decode and last.token_ids):  # text only: characters
            return max(needed, 0)
        return len(first(self.decode, last, needed).text) if needed <= len(last.token_ids) else len(last.text) + 1

    def answered(self, written: formats.Format) -> bool:
        """Whether a final answer stands in the model's own text: where a program is asked for, a closed block of it is one."""
        return written.answered(self.own_text) or (self.code and extract.program(self.own_text) is not None)

    def left(self, settings: Settings) -> int:
        """How many tokens the rollout may still have. What was taken back was paid for, and so was what was said aside."""
        return settings.max_tokens - self.aside - count_tokens([*self.segments, *(part.segment for part in self.taken_back)])


@dataclass(frozen=True, slots=True)
class Think:
    """Let the model go on, until one of `stops` or its own end."""

    stops: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Act:
    """Run this code and insert its result. An end token after the call is taken back."""

    code: str


@dataclass(frozen=True, slots=True)
class Insert:
    """Write this hint. `cut_at` is the character of the last segment before which it goes; what stands there is taken back.

    `cut_at` None: after everything that was said. `lead` None: the hint is a paragraph of its own; else this goes before it.
    `ended`: the rollout had come to its end, for this reason; what is taken back is the end of a round.
    """

    text: str
    cut_at: int | None = None
    lead: str | None = None
    ended: StopReason | None = None


@dataclass(frozen=True, slots=True)
class Build:
    """Have a tool made for this need; with `repairs`, the name of one of the library's, have that one mended. What came of it is
    inserted. An end token after a ticket is taken back. `refused` is set where nothing is to be made, and says why.
    """

    need: str
    repairs: str = ""
    refused: str = ""


@dataclass(frozen=True, slots=True)
class End:
    reason: StopReason


Action = Think | Act | Insert | Build | End


class Decide(Protocol[SettingsIn]):
    def __call__(self, view: View, settings: SettingsIn) -> Action: ...


def limit(view: View, settings: Settings) -> End | None:
    """The limit that ends this rollout before the model may go on, if one does."""
    if view.finish is Finish.CONTEXT:
        return End(StopReason.CONTEXT_FULL)
    if view.finish is Finish.LENGTH or view.left(settings) <= 0:
        return End(StopReason.LENGTH)
    if view.turns >= settings.max_turns:
        return End(StopReason.TURN_LIMIT)
    return None


@dataclass(frozen=True, slots=True)
class Strategy(Generic[SettingsT]):
    """A named way to reason. `build(settings)` gives its state graph, not yet compiled: add your own checkpointer."""

    name: str
    settings: type[SettingsT]
    build: Callable[[SettingsT], StateGraph[Any, Any, Any, Any]]


def names() -> list[str]:
    """The strategies installed here: ours and those of other packages."""
    return sorted({point.name for point in entry_points(group=ENTRY_POINTS)})


def load(name: str) -> Strategy[Any]:
    """The strategy of this name, through the entry-point group `toolreason.strategies`. Raises SettingsError."""
    for point in entry_points(group=ENTRY_POINTS, name=name):
        strategy = point.load()
        if not isinstance(strategy, Strategy):
            raise SettingsError(f"entry point {point.value} of strategy {name!r} is no toolreason Strategy")
        return strategy
    raise SettingsError(f"no strategy {name!r}; there are: {', '.join(names())}")


def parse_settings(kind: type[SettingsT], pairs: Sequence[str]) -> SettingsT:
    """Settings from `key=value` texts. Raises SettingsError naming the field and what it takes."""
    from pydantic import ValidationError

    known = [one.name for one in fields(kind)]
    values: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or key not in known:
            raise SettingsError(f"{pair!r} is no key=value of {kind.__name__}; keys are: {', '.join(known)}")
        values[key] = value
    try:
        return adapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or kind.__name__
        raise SettingsError(f"{place}: {first['msg']} (got {first['input']!r})") from error


def changed(settings: SettingsT, values: Mapping[str, Any]) -> SettingsT:
    """These settings with other values, checked as a user's are. Raises SettingsError naming the field and what it takes."""
    return parse(type(settings), as_dict(settings) | dict(values)) if values else settings


def as_dict(settings: Settings) -> dict[str, Any]:
    """The settings as they are stored with a trajectory."""
    return asdict(settings)
