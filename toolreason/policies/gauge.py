"""A policy that measures how long the policy inside it has nothing to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from toolreason.policies.base import Completion, Message, Policy, TextSink
from toolreason.types import Sampling, Segment


class Gauge:
    """A policy that measures how long no request is in flight at the policy inside it."""

    def __init__(self, policy: Policy, clock: Callable[[], float] = time.monotonic) -> None:
        self.inner = policy
        self.name, self.exact, self.context_length = policy.name, policy.exact, policy.context_length
        self.thinks = policy.thinks
        self.requests = 0
        self._clock = clock
        self._in_flight = 0
        self._idle = 0.0
        self._started = self._since = clock()

    @property
    def idle_share(self) -> float:
        """The share, 0..1, of the time since this gauge was made in which the policy had nothing to do."""
        now = self._clock()
        idle = self._idle + (now - self._since if self._in_flight == 0 else 0.0)
        return idle / (now - self._started) if now > self._started else 0.0

    def prompt(self, messages: Sequence[Message]) -> Segment:
        return self.inner.prompt(messages)

    def encode(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        return self.inner.encode(text, special=special)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self.inner.decode(token_ids)

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
        if self._in_flight == 0:
            self._idle += self._clock() - self._since
        self._in_flight += 1
        self.requests += 1
        try:
            return await self.inner.sample(segments, sampling, max_tokens=max_tokens, stop=stop, seed=seed, on_text=on_text)
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._since = self._clock()

    async def aclose(self) -> None:
        await self.inner.aclose()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)
