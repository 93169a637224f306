"""A LangChain chat model that says what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from pydantic import Field


class Recorder(FakeListChatModel):
    """Says `responses` character by character, as its base does, and records what it was given."""

    temperature: float = 0.5
    max_tokens: int | None = None
    seen: list[list[BaseMessage]] = Field(default_factory=list)
    options: list[dict[str, Any]] = Field(default_factory=list)
    finish: str | None = None
    given_up: Any = Field(default_factory=asyncio.Event)

    async def _astream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        self.seen.append(messages)
        self.options.append(kwargs)
        done = False
        try:
            async for chunk in super()._astream(messages, stop, run_manager, **kwargs):
                yield chunk
            if self.finish:
                meta = {"finish_reason": self.finish}
                yield ChatGenerationChunk(message=AIMessageChunk(content="", response_metadata=meta))
            done = True
        finally:
            if not done:
                self.given_up.set()
