"""The exact-token invariant, checked against what an engine was really given and really gave back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolreason.policies.base import Completion, Message, Policy
from toolreason.types import Sampling, Segment, Source, Trajectory

REPLACEMENT = "\ufffd"


class Recorder:
    """A policy that passes everything on, and keeps the ids of each call: (given, what came back)."""

    def __init__(self, policy: Policy) -> None:
        self.inner = policy
        self.name, self.exact, self.context_length = policy.name, policy.exact, policy.context_length
        self.exchanges: list[tuple[tuple[int, ...], Completion]] = []

    def prompt(self, messages: Sequence[Message]) -> Segment:
        return self.inner.prompt(messages)

    def encode(self, text: str) -> tuple[int, ...]:
        return self.inner.encode(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self.inner.decode(token_ids)

    async def sample(self, segments: Sequence[Segment], sampling: Sampling, **options: Any) -> Completion:
        completion = await self.inner.sample(segments, sampling, **options)
        self.exchanges.append((tuple(token for segment in segments for token in segment.token_ids), completion))
        return completion

    async def aclose(self) -> None:
        await self.inner.aclose()


def check(policy: Recorder, done: Trajectory) -> None:
    """Each model segment's ids are what came back for all ids before it; all else is derived from ids, or was encoded once."""
    said = [at for at, segment in enumerate(done.segments) if segment.source is Source.MODEL]
    assert said
    assert len(said) == len(policy.exchanges)
    for at, (given, completion) in zip(said, policy.exchanges, strict=True):
        segment = done.segments[at]
        assert given == tuple(token for before in done.segments[:at] for token in before.token_ids)
        count = len(segment.token_ids)
        assert segment.token_ids == completion.token_ids[:count]
        assert segment.logprobs == (completion.logprobs or ())[:count]
        lost = policy.decode(completion.token_ids[count:])  # an end token that was taken back, or the end of thinking
        assert len(completion.token_ids) - count <= 1 or "</think>" in lost
    for segment in done.segments:
        if segment.source in (Source.HINT, Source.TOOL):
            assert segment.token_ids == policy.encode(segment.text)
            assert segment.logprobs is None
        if REPLACEMENT not in segment.text:
            assert policy.decode(segment.token_ids) == segment.text
    assert policy.decode(done.token_ids) == done.text
