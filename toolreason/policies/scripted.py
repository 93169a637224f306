"""A policy that says what it is told: for tests, of this package and of its users."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolreason.errors import PolicyError, SettingsError
from toolreason.policies.base import Completion, Message, TextSink
from toolreason.policies.text import TextStream, ids_of
from toolreason.types import Sampling, Segment, Source

START, END = "<|im_start|>", "<|im_end|>"
MERGES = ("```python\n", "```output\n", "```\n", "```", "\n\n", "    ", "  ", " the", " is", "Wait", ", let", "print", "(", ")\n")

Reply = str | Exception
Replies = Sequence[Reply] | Callable[[str, int], Reply]


class ScriptedTokenizer:
    """Bytes, some merges and two special tokens: small, and yet every trap of a real one is in it.

    Ids 0 to 255 are bytes, so a character beyond ASCII is split over tokens; `MERGES` follow, so that a stop string may end
    inside a token; the special tokens come last.
    """

    def __init__(self) -> None:
        self._bytes = [bytes([value]) for value in range(256)] + [text.encode() for text in (*MERGES, START, END)]
        self._merges = sorted(((text.encode(), 256 + i) for i, text in enumerate(MERGES)), key=lambda m: -len(m[0]))
        self.start_id, self.end_id = len(self._bytes) - 2, len(self._bytes) - 1
        self._special = [(START.encode(), self.start_id), (END.encode(), self.end_id)]

    def encode(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        """Greedy, longest first. Special tokens are recognised only with `special`."""
        data = text.encode("utf-8", "replace")
        table = self._special + self._merges if special else self._merges
        ids: list[int] = []
        at = 0
        while at < len(data):
            piece, token = next((m for m in table if data.startswith(m[0], at)), (data[at : at + 1], data[at]))
            ids.append(token)
            at += len(piece)
        return tuple(ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        return b"".join(self._bytes[token] for token in token_ids).decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Call:
    """What one call of `sample` was given, for a test to look at."""

    prompt: str
    max_tokens: int
    stop: tuple[str, ...]
    seed: int
    sampling: Sampling


class ScriptedPolicy:
    """Replies in order, or `replies(prompt_text, call_index)` (use this form where rollouts run concurrently).

    A reply is the text of one call; the end token follows it unless a stop string, `max_tokens` or the context ends it before.
    A reply that is an exception is raised. `delay_s` is slept before each token. `calls` records what was asked,
    `busiest` the most calls that were in flight at once.
    """

    exact = True
    thinks = False

    def __init__(self, replies: Replies, *, context_length: int = 8192, delay_s: float = 0.0, name: str = "scripted") -> None:
        self.name = name
        self.context_length = context_length
        self.tokenizer = ScriptedTokenizer()
        self.calls: list[Call] = []
        self.busy = self.busiest = 0
        self._replies = replies
        self._delay_s = delay_s

    @classmethod
    def from_file(cls, path: str | Path) -> ScriptedPolicy:
        """From a JSON list of texts. Raises SettingsError where it is not one."""
        try:
            replies = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(f"cannot read the replies in {path}: {error.strerror or error}") from error
        except ValueError as error:
            raise SettingsError(f"{path} is not a JSON list of replies: {error}") from error
        if not isinstance(replies, list) or not all(isinstance(reply, str) for reply in replies):
            raise SettingsError(f'{path} is not a JSON list of replies: write ["first reply", "second reply"]')
        return cls(replies, name=f"scripted:{path}")

    def prompt(self, messages: Sequence[Message]) -> Segment:
        turns = "".join(f"{START}{m['role']}\n{m['content']}{END}\n" for m in messages)
        ids = self.tokenizer.encode(f"{turns}{START}assistant\n", special=True)
        return Segment(Source.PROMPT, self.decode(ids), ids)

    def encode(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        return self.tokenizer.encode(text, special=special)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self.tokenizer.decode(token_ids)

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
        before = ids_of(segments)
        ends = (self.tokenizer.end_id,)
        stream = TextStream(self.decode, before, end_ids=ends, stop=stop, max_tokens=max_tokens, context=self.context_length)
        if stream.finish is not None:
            return stream.completion()
        self.calls.append(Call(self.decode(before), max_tokens, tuple(stop), seed, sampling))
        reply = self._reply(len(self.calls) - 1)
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        try:
            return await self._play(stream, reply, on_text, sampling.top_logprobs)
        finally:
            self.busy -= 1

    async def aclose(self) -> None:
        """Nothing is held."""

    def _reply(self, index: int) -> str:
        if callable(self._replies):
            reply = self._replies(self.calls[index].prompt, index)
        elif index < len(self._replies):
            reply = self._replies[index]
        else:
            raise PolicyError(f"the script has {len(self._replies)} replies, and this is call {index + 1}")
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def _play(self, stream: TextStream, reply: str, on_text: TextSink | None, top_logprobs: int) -> Completion:
        for token in (*self.tokenizer.encode(reply, special=True), self.tokenizer.end_id):
            await asyncio.sleep(self._delay_s)
            piece = stream.push(token, logprob(token), certainty(token) if top_logprobs else None)
            if piece and on_text is not None:
                on_text(piece)
            if stream.finish is not None:
                break
        return stream.completion()


def logprob(token: int) -> float:
    """A made-up log-probability, a function of the token alone."""
    return -(1 + token % 7) / 10


def certainty(token: int) -> float:
    """A made-up certainty, a function of the token alone."""
    return 5 + token % 11
