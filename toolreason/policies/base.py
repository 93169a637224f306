"""What a policy is: something that continues a row of segments, token by token.

Exact policies (`vllm`, `transformers`, `scripted`) take token ids and give token ids. Text-only policies (`chat`) have
`exact = False`: their segments carry no ids, and they export text rows only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NotRequired, Protocol, TypedDict

from toolreason.types import Sampling, Segment, Source, coerce_enum, coerce_tuples


class Picture(TypedDict):
    """A picture by its file. The hash of its content (SHA-256, hex) names what was seen; the file may change."""

    path: str
    sha256: str
    mime_type: str


class Message(TypedDict):
    """`content` says it all for a policy that takes text. `pictures` are for one that sees, after the text."""

    role: str
    content: str
    pictures: NotRequired[list[Picture]]


class Finish(StrEnum):
    """Why the engine stopped sampling."""

    STOP = "stop"  # a stop string is complete in the text
    END = "end"  # the model ended its turn; the end token is the last id
    LENGTH = "length"  # max_tokens
    CONTEXT = "context"  # the model's context length is full


@dataclass(frozen=True, slots=True)
class Completion:
    """What one call of `sample` drew.

    `token_ids` are all tokens drawn, in order, the end token included; nothing is taken back. With `Finish.STOP` the last token
    is the first one after which `stop` stands complete in the new text, so the text may run over the end of the stop string by
    the rest of that token. `text` is the decoding of the ids. `logprobs`: one per token, or None if the engine has none.
    `certainties`: the same, where `Sampling.top_logprobs` asks for them.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    finish: Finish
    stop: str | None = None
    certainties: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        coerce_enum(self, "finish", Finish)
        coerce_tuples(self, "token_ids", "logprobs", "certainties")

    def segment(self) -> Segment:
        return Segment(Source.MODEL, self.text, self.token_ids, self.logprobs, certainties=self.certainties)


TextSink = Callable[[str], None]


class Policy(Protocol):
    """Samples the next tokens. One instance serves many rollouts at once; all of it is called from one event loop.

    name: what trajectories record, e.g. `transformers:smollm2-135m-instruct`.
    exact: whether prompts and completions are token ids. Raw prompts follow from it: any text can be continued.
    context_length: the most tokens a prompt and its completion may have together.
    thinks: whether the model's chat template knows `<think>`.
    """

    name: str
    exact: bool
    context_length: int
    thinks: bool

    def prompt(self, messages: Sequence[Message]) -> Segment:
        """The prompt segment for these messages, rendered by the model's own chat template up to where the model speaks."""
        ...

    def encode(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        """The ids of a text to insert, nothing added. Special tokens that it spells stay text unless `special`.

        Raises CapabilityError where `exact` is False.
        """
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of these ids, special tokens included, spaces untouched."""
        ...

    async def sample(
        self,
        segments: Sequence[Segment],
        sampling: Sampling,
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        seed: int = 0,
        on_text: TextSink | None = None,
    ) -> Completion:
        """Continue `segments`. `seed` is this call's own (it wins over `sampling.seed`). `on_text` is called with each new piece
        of text as it arrives, on the event loop. Cancelling the call frees its place in the engine.

        Raises PolicyError when the engine fails. A prompt that already fills the context gives an empty completion with
        `Finish.CONTEXT`. Where the context ends before `max_tokens`, the finish is CONTEXT, not LENGTH.
        """
        ...

    async def aclose(self) -> None:
        """Give back what the policy holds. Safe to call twice."""
        ...
