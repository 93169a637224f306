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
        self.thinks = policy.thinks
        self.exchanges: list[tuple[tuple[int, ...], Completion]] = []

    def prompt(self, messages: Sequence[Message]) -> Segment:
        return self.inner.prompt(messages)

    def encode(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        return self.inner.encode(text, special=special)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self.inner.decode(token_ids)

    async def sample(self, segments: Sequence[Segment], sampling: Sampling, **options: Any) -> Completion:
        completion = await self.inner.sample(segments, sampling, **options)
        self.exchanges.append((tuple(token for segment in segments for token in segment.token_ids), completion))
        return completion

    async def aclose(self) -> None:
        await self.inner.aclose()


def check(policy: Recorder, done: Trajectory) -> None:
    """Each call's ids are in one model segment, or in what was taken back behind it: in all, nothing that was sampled is lost, and
    nothing else was added. All else is derived from ids, or was encoded once."""
    exchanges = iter(policy.exchanges)
    for at in range(len(done.segments) + 1):
        for drawn in _calls(done, at):
            given, completion = next(exchanges)
            before = done.segments[: at - 1] if at and drawn[0] is done.segments[at - 1] else done.segments[:at]
            assert given == tuple(token for segment in before for token in segment.token_ids)
            assert completion.token_ids == tuple(token for part in drawn for token in part.token_ids)
            assert (completion.logprobs or ()) == tuple(value for part in drawn for value in part.logprobs or ())
            assert completion.text == "".join(part.text for part in drawn) or REPLACEMENT in completion.text
    assert next(exchanges, None) is None
    for segment in done.segments:
        if segment.source in (Source.HINT, Source.TOOL):
            assert segment.token_ids == policy.encode(segment.text)
            assert segment.logprobs is None
        if REPLACEMENT not in segment.text:
            assert policy.decode(segment.token_ids) == segment.text
    assert policy.decode(done.token_ids) == done.text


def _calls(done: Trajectory, at: int) -> list[list[Segment]]:
    """What was drawn in the calls that ended after the first `at` segments, each whole: what is kept of it, what was taken back."""
    lost = [part.segment for part in done.taken_back if part.after == at and part.segment.token_ids]
    kept = done.segments[at - 1] if at and done.segments[at - 1].source is Source.MODEL else None
    if kept is None:
        return [[part] for part in lost]
    return [[kept, *lost[:1]], *([part] for part in lost[1:])]
