"""Any LangChain chat model as a policy: text only, so no token ids, no log-probabilities, no RL.

A prompt segment's text is the canonical JSON of its messages. What follows it becomes, by `prefix`: one assistant message that the
model is to go on with ("assistant", for providers that continue one), or turns ("user"): model text as the assistant's, hints and
tool output as the user's. `toolreason.policies.turns` says how, pictures included.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from toolreason.errors import CapabilityError, PolicyError, SettingsError, SetupError
from toolreason.policies.base import Completion, Finish, Message, TextSink
from toolreason.policies.text import StopWatch
from toolreason.policies.turns import Content, Prefix, prompt_text, turns
from toolreason.types import Sampling, Segment, Source

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

NEEDS_IDS = (
    "a chat model gives text, not token ids: hint insertion inside a turn, RL and token export need an exact policy "
    "(vllm:URL or transformers:MODEL)"
)
LENGTH_REASONS = {"length", "max_tokens", "MAX_TOKENS"}  # as providers spell it


class ChatPolicy:
    """`temperature` and `top_p` of the sampling settings are passed where the model has such a field, and so is the seed.

    `vision`: whether the model is sent pictures, those of the problem and the figures that its code draws; by default where
    LangChain's profile of the model says that it takes images. A model that is not sent them reads what the prompt says of the
    files, and can look at them by code.
    """

    exact = False
    thinks = False

    def __init__(
        self,
        model: BaseChatModel,
        prefix: Prefix = "assistant",
        *,
        vision: bool | None = None,
        name: str | None = None,
        context_length: int = 131_072,
    ) -> None:
        if prefix not in ("assistant", "user"):
            raise SettingsError(f"prefix {prefix!r} is neither 'assistant' nor 'user'")
        self.name = name or f"chat:{_model_name(model)}"
        self.context_length = context_length
        self._model = model
        self._prefix = prefix
        self.vision = takes_images(model) if vision is None else vision

    @classmethod
    def from_spec(cls, spec: str, *, prefix: Prefix = "assistant", vision: bool | None = None, **options: Any) -> ChatPolicy:
        """From `PROVIDER:MODEL`, by LangChain's `init_chat_model`, to which `options` go. Raises SetupError, SettingsError."""
        try:
            init_chat_model = import_module("langchain.chat_models").init_chat_model
        except ImportError as error:
            raise SetupError(
                "chat policies by name need LangChain: pip install 'toolreason[chat]' and the provider's package"
            ) from error
        try:
            model = init_chat_model(spec, **options)
        except ImportError as error:
            raise SetupError(f"the provider of {spec} is not installed: {error}") from error
        except ValueError as error:
            raise SettingsError(f"chat:{spec}: {error}") from error
        except Exception as error:  # a provider's own complaint, e.g. that there is no API key
            raise SetupError(f"chat:{spec} could not be made: {error}") from error
        return cls(model, prefix, vision=vision, name=f"chat:{spec}")

    def prompt(self, messages: Sequence[Message]) -> Segment:
        return Segment(Source.PROMPT, prompt_text(messages, vision=self.vision))

    def encode(self, text: str, *, special: bool = False) -> NoReturn:
        raise CapabilityError(NEEDS_IDS)

    def decode(self, token_ids: Sequence[int]) -> NoReturn:
        raise CapabilityError(NEEDS_IDS)

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
        """See `Policy.sample`. The text is cut right after a stop string; `on_text` gets pieces that join to it."""
        if max_tokens <= 0:
            return Completion("", (), None, Finish.LENGTH)
        watch, text, reason = StopWatch(stop), "", None
        options = self._options(sampling, max_tokens, seed)
        async with aclosing(self._pieces(self.messages(segments), options)) as pieces:
            async for piece, why in pieces:
                reason = why or reason
                found = watch.find(text + piece)
                new = (text + piece)[: found[1]][len(text) :] if found else piece
                text += new
                if new and on_text is not None:
                    on_text(new)
                if found:
                    return Completion(text, (), None, Finish.STOP, found[0])
        return Completion(text, (), None, Finish.LENGTH if reason in LENGTH_REASONS else Finish.END)

    async def aclose(self) -> None:
        """The model is the caller's."""

    def messages(self, segments: Sequence[Segment]) -> list[tuple[str, Content]]:
        """(role, content) of the conversation that these segments stand for."""
        return turns(segments, self._prefix)

    def _options(self, sampling: Sampling, max_tokens: int, seed: int) -> dict[str, Any]:
        """What this model takes of: the limit, temperature, top-p, seed."""
        wanted = {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": seed, "max_tokens": max_tokens}
        fields = set(type(self._model).model_fields) | {f.alias for f in type(self._model).model_fields.values()}
        return {name: value for name, value in wanted.items() if name in fields}

    async def _pieces(self, messages: list[tuple[str, Content]], options: dict[str, Any]) -> AsyncGenerator[tuple[str, str | None]]:
        """(text, finish reason if told) of each chunk. A failure of the model's is a PolicyError."""
        try:
            chunks: Any = self._model.astream(messages, **options)
            async with aclosing(chunks):
                async for chunk in chunks:
                    meta = chunk.response_metadata
                    yield str(chunk.text), meta.get("finish_reason") or meta.get("stop_reason")
        except Exception as error:
            raise PolicyError(f"{self.name} failed: {type(error).__name__}: {error}") from error


def takes_images(model: BaseChatModel) -> bool:
    """Whether LangChain's profile of this model says so; where there is none, no."""
    return bool((getattr(model, "profile", None) or {}).get("image_inputs"))


def _model_name(model: BaseChatModel) -> str:
    name = getattr(model, "model_name", None) or getattr(model, "model", None)
    return str(name or type(model).__name__)
