"""The nouns. Everything that is stored is one of these, frozen; what can be derived is a property.

Reading order: a `Problem` is rolled out by a strategy with a policy into a `Trajectory`, which is a row of `Segment`s, each
with its `Source`. A tool segment carries its `Cell`. A verifier adds the `Verdict`.

All of them round-trip through JSON (`to_json`, `from_json`) and through LangGraph's checkpointers under strict msgpack. Both
turn tuples into lists, so every tuple field is coerced on birth.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


class Source(StrEnum):
    """Who wrote these tokens. Set at birth, never inferred from text or role."""

    PROMPT = "prompt"
    MODEL = "model"
    HINT = "hint"
    TOOL = "tool"


class StopReason(StrEnum):
    """Why a rollout ended."""

    ANSWERED = "answered"  # the model gave an answer and ended
    NO_ANSWER = "no_answer"  # the model ended its turn without one
    LENGTH = "length"  # the token limit of the rollout
    TURN_LIMIT = "turn_limit"
    CALL_LIMIT = "call_limit"
    CONTEXT_FULL = "context_full"  # the model's own context length
    ABORTED = "aborted"  # infrastructure failed: neither right nor wrong


class Outcome(StrEnum):
    """How a cell ended. `OK` and `ERROR` keep the state it made; the others leave the session as it was before, and all but
    `CRASHED` and `REFUSED` name the limit that struck.
    """

    OK = "ok"
    ERROR = "error"  # the code raised
    TIMEOUT = "timeout"  # wall time
    CPU = "cpu"  # CPU time
    MEMORY = "memory"
    PROCESSES = "processes"  # processes and threads
    OPEN_FILES = "open_files"
    FILE_SIZE = "file_size"
    DISK = "disk"  # space, or number of files
    OUTPUT = "output"  # it printed more than the hard limit
    CRASHED = "crashed"  # a signal, os._exit, an interpreter crash
    REFUSED = "refused"  # not run: the person who was asked did not let it

    @property
    def committed(self) -> bool:
        """Whether the session keeps what the cell did."""
        return self in (Outcome.OK, Outcome.ERROR)


class Judgement(StrEnum):
    CORRECT = "correct"
    WRONG = "wrong"
    UNSCORED = "unscored"  # the verifier could not decide; excluded from every rate


class ReferenceKind(StrEnum):
    """Which verifier decides."""

    MATH = "math"
    CHOICE = "choice"
    CODE = "code"
    GYM = "gym"
    CALLS = "calls"
    NONE = "none"  # nothing to compare with: always unscored


def coerce_tuples(instance: object, *names: str) -> None:
    """Turn the lists that JSON and msgpack give back into the tuples that frozen fields need."""
    for name in names:
        value = getattr(instance, name)
        if not isinstance(value, tuple) and value is not None:
            object.__setattr__(instance, name, tuple(value))


def coerce_enum(instance: object, name: str, kind: type[StrEnum]) -> None:
    """Turn the plain string that JSON and msgpack may give back into its enum."""
    value = getattr(instance, name)
    if value is not None and not isinstance(value, kind):
        object.__setattr__(instance, name, kind(value))


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A function's name, and its arguments by name: the JSON text of an object."""

    name: str
    arguments: str = "{}"


@dataclass(frozen=True, slots=True)
class UserTurn:
    """What the user says, and the calls expected before the model ends its turn (none: nothing can be done, or only said).

    `functions` are told with this turn and may be called from then on: for each the JSON text of `name`, `description` and
    `parameters` (JSON schema).
    """

    message: str
    calls: tuple[FunctionCall, ...] = ()
    functions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        coerce_tuples(self, "calls", "functions")


@dataclass(frozen=True, slots=True)
class Environment:
    """What functions work on: Python objects, whose public methods are the functions and whose public attributes are the state.

    An object of each of `classes` is made, in this order, with the keyword arguments that `config` (the JSON text of an object) has
    under the class's name. `code` is the Python source of the classes; `package` says where it is instead (`bfcl:` and a path).
    """

    classes: tuple[str, ...]
    config: str = "{}"
    code: str = ""
    package: str = ""

    def __post_init__(self) -> None:
        coerce_tuples(self, "classes")


@dataclass(frozen=True, slots=True)
class FunctionTask:
    """A task of function calling. The message of the first turn is the problem's question."""

    environment: Environment
    turns: tuple[UserTurn, ...]

    def __post_init__(self) -> None:
        coerce_tuples(self, "turns")


@dataclass(frozen=True, slots=True)
class Reference:
    """What a right answer is measured against.

    `answer` is the gold text (math: LaTeX or a number; choice: the letter). `choices` are the options in order. `tests` are
    Python statements that raise unless the program is right. `dataset` and `entry` (JSON) name a reasoning-gym item. `task` is
    one of function calling.
    """

    kind: ReferenceKind = ReferenceKind.NONE
    answer: str = ""
    choices: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    dataset: str = ""
    entry: str = ""
    task: FunctionTask | None = None

    def __post_init__(self) -> None:
        coerce_enum(self, "kind", ReferenceKind)
        coerce_tuples(self, "choices", "tests")


@dataclass(frozen=True, slots=True)
class Turn:
    """What was said before a question. `role`: system, user or assistant."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One question. `attachments` are paths of images or files that go with it, `history` is the conversation that it continues."""

    id: str
    question: str
    reference: Reference = field(default_factory=Reference)
    domain: str = "math"
    attachments: tuple[str, ...] = ()
    history: tuple[Turn, ...] = ()

    def __post_init__(self) -> None:
        coerce_tuples(self, "attachments", "history")


@dataclass(frozen=True, slots=True)
class CellResult:
    """What running one cell gave: data only, as the runner reported it, already truncated.

    `stdout` and `stderr` keep head and tail; `dropped` is the number of characters left out of them together. `value` is the
    repr of a last expression. `error` is `Type: message`, `traceback` the cell's own lines. `duration_s` is wall time. `figures`
    are the matplotlib figures that the cell left open, each a PNG file in base64.
    """

    outcome: Outcome
    stdout: str = ""
    stderr: str = ""
    value: str | None = None
    error: str | None = None
    traceback: str = ""
    dropped: int = 0
    duration_s: float = 0.0
    figures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        coerce_enum(self, "outcome", Outcome)
        coerce_tuples(self, "figures")

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.OK

    @property
    def limit(self) -> str | None:
        """The limit that ended the cell, by its outcome's name, or None."""
        named = self.outcome.committed or self.outcome in (Outcome.CRASHED, Outcome.REFUSED)
        return None if named else self.outcome.value


@dataclass(frozen=True, slots=True)
class Cell:
    """A tool call and what came of it. `call_id` keys it: a resumed run never executes it twice."""

    call_id: str
    code: str
    result: CellResult


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of tokens from one source.

    `token_ids` are the truth and `text` is their decoding; `logprobs` (model segments of engines that report them) are natural
    logs under the model's own distribution, before temperature and top-p, one per token. Text-only policies leave the ids empty.
    `certainties`, where `Sampling.top_logprobs` asked for them: how far the distribution of each token was from uniform, as
    `toolreason.policies.certainty` says.
    """

    source: Source
    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] | None = None
    cell: Cell | None = None
    certainties: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        coerce_enum(self, "source", Source)
        coerce_tuples(self, "token_ids", "logprobs", "certainties")
        for what, values in (("log-probabilities", self.logprobs), ("certainties", self.certainties)):
            if values is None:
                continue
            if self.source is not Source.MODEL:
                raise ValueError(f"a {self.source} segment has no {what}: only sampled tokens do")
            if len(values) != len(self.token_ids):
                raise ValueError(f"{len(self.token_ids)} tokens but {len(values)} {what}")
            if not all(math.isfinite(value) for value in values):
                raise ValueError(f"{what} of sampled tokens are finite")
        if (self.cell is not None) != (self.source is Source.TOOL):
            raise ValueError("a tool segment carries its cell, and no other segment does")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw tokens. `temperature` 0 is greedy. `seed` makes a rollout repeatable where the engine allows it.

    With `top_logprobs` above 0 each token comes with its certainty, computed from so many of the distribution's largest
    log-probabilities where the engine does not give all (vLLM's default limit is 20).
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    seed: int = 0
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        from toolreason.errors import SettingsError

        if not 0 <= self.temperature <= 10:
            raise SettingsError(f"temperature {self.temperature} is outside 0 to 10")
        if not 0 < self.top_p <= 1:
            raise SettingsError(f"top_p {self.top_p} is outside (0, 1]")
        if self.top_k < 0:
            raise SettingsError(f"top_k {self.top_k} is negative (0 means all)")
        if self.top_logprobs < 0:
            raise SettingsError(f"top_logprobs {self.top_logprobs} is negative (0 means none)")


@dataclass(frozen=True, slots=True)
class Verdict:
    """`answer` is what was extracted from the model's own text; `reason` says why it is wrong or unscored.

    `parts` are shares of what is right (0 to 1) by name, where a verdict has parts: see `toolreason.functions.judge`.
    """

    judgement: Judgement
    answer: str | None = None
    reason: str = ""
    parts: dict[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        coerce_enum(self, "judgement", Judgement)


@dataclass(frozen=True, slots=True)
class TakenBack:
    """What the model said and was cut off before a hint or a result went there: it stood after the first `after` segments.

    `stop` is set where the rollout had come to its end: there a round of test-time scaling is over.
    """

    after: int
    segment: Segment
    stop: StopReason | None = None

    def __post_init__(self) -> None:
        if self.stop is not None:
            coerce_enum(self, "stop", StopReason)


@dataclass(frozen=True, slots=True)
class Tooling:
    """The part of a tool library in a rollout. Versions are written `name@number`.

    `offered` when it began; `made` for its tickets, new versions of tools that failed it (`repaired`) apart; `refused`: why the
    other tickets gave nothing. `used`: one entry for each cell that called it, `failed`: those in which a call of it raised.
    """

    offered: tuple[str, ...] = ()
    made: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    used: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        coerce_tuples(self, "offered", "made", "repaired", "refused", "used", "failed")

    @property
    def tickets(self) -> int:
        """How often a tool was asked for, repairs included."""
        return len(self.made) + len(self.repaired) + len(self.refused)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One finished rollout. `sample` numbers the rollouts of one problem; `timings` are seconds by part.

    `faults` are the format faults, by name, one entry per occurrence. `rewards` are parts, each by its own name. `taken_back`
    are the sampled tokens that the segments do not hold any more. `verdict` is on the answer of the whole, `round_verdicts` on
    that of each round where there were several. `aside` are the policy's calls outside of the rollout's own text: what was written
    to build a tool, each with its own prompt. `tooling` is there where a tool library was.
    """

    id: str
    problem_id: str
    strategy: str
    policy: str
    segments: tuple[Segment, ...]
    stop: StopReason
    sample: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    settings: dict[str, Any] = field(default_factory=dict, hash=False)
    verdict: Verdict | None = None
    faults: tuple[str, ...] = ()
    rewards: dict[str, float] = field(default_factory=dict, hash=False)
    timings: dict[str, float] = field(default_factory=dict, hash=False)
    error: str | None = None
    taken_back: tuple[TakenBack, ...] = ()
    round_verdicts: tuple[Verdict, ...] = ()
    aside: tuple[Trajectory, ...] = ()
    tooling: Tooling | None = None

    def __post_init__(self) -> None:
        coerce_enum(self, "stop", StopReason)
        coerce_tuples(self, "segments", "faults", "taken_back", "round_verdicts", "aside")

    @property
    def token_ids(self) -> tuple[int, ...]:
        """All ids in order: exactly what the engine was given and gave back."""
        return tuple(token for segment in self.segments for token in segment.token_ids)

    @property
    def text(self) -> str:
        return "".join(segment.text for segment in self.segments)

    @property
    def response(self) -> str:
        """Everything after the prompt."""
        return "".join(s.text for s in self.segments if s.source is not Source.PROMPT)

    @property
    def cells(self) -> tuple[Cell, ...]:
        return cells(self.segments)

    def tokens(self, *sources: Source) -> int:
        """The number of tokens from these sources (all but the prompt if none is named)."""
        return count_tokens(self.segments, *sources)

    @property
    def spent(self) -> int:
        """All tokens after the prompt, those that were taken back and those of `aside` included: what the rollout's token limit
        counts.
        """
        taken_back = sum(len(part.segment.token_ids) for part in self.taken_back)
        return self.tokens() + taken_back + sum(one.spent for one in self.aside)

    @property
    def rounds(self) -> tuple[Self, ...]:
        """The trajectory as it was at the end of each round, the whole last. One round: itself alone."""
        earlier: list[Self] = []
        for at, part in enumerate(self.taken_back):
            if part.stop is None:
                continue
            number = len(earlier)
            ending = (part.segment,) if part.segment.text or part.segment.token_ids else ()
            verdict = self.round_verdicts[number] if number < len(self.round_verdicts) else None
            earlier.append(
                replace(
                    self,
                    id=f"{self.id}:round{number + 1}",
                    segments=(*self.segments[: part.after], *ending),
                    stop=part.stop,
                    taken_back=self.taken_back[:at],
                    verdict=verdict,
                    round_verdicts=(),
                )
            )
        return (*earlier, self)

    def with_verdict(self, verdict: Verdict) -> Self:
        return replace(self, verdict=verdict)


def cells(segments: Iterable[Segment]) -> tuple[Cell, ...]:
    return tuple(segment.cell for segment in segments if segment.cell is not None)


def count_tokens(segments: Iterable[Segment], *sources: Source) -> int:
    wanted = sources or (Source.MODEL, Source.HINT, Source.TOOL)
    return sum(len(segment.token_ids) for segment in segments if segment.source in wanted)


def adapter(kind: type[T]) -> TypeAdapter[T]:
    """Pydantic's reader and writer of this type. Making one takes a millisecond."""
    found: TypeAdapter[T] = _adapter(cast(Hashable, kind))
    return found


@cache
def _adapter(kind: Hashable) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(cast(Any, kind))


def to_json(value: object) -> str:
    """One line of JSON. Lossless: lone surrogates, which JSON readers refuse, never occur in decoded text."""
    return bytes(adapter(type(value)).dump_json(value)).decode()


def from_json(kind: type[T], text: str | bytes) -> T:
    """The inverse of `to_json`. Raises pydantic's `ValidationError`, a `ValueError`."""
    return adapter(kind).validate_json(text)
