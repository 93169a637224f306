"""A LangChain chat model that reasons with tools it runs itself, behind the ordinary interface."""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, Field, PrivateAttr

from toolreason.adapters import messages as convert
from toolreason.adapters.background import background
from toolreason.adapters.live import DEFAULT_POLICY, Live, planned
from toolreason.adapters.parts import Part, Splitter
from toolreason.rollouts import failure, rollout
from toolreason.strategies.base import Settings, Strategy
from toolreason.types import Sampling, StopReason, Trajectory


class ToolReasonerChat(BaseChatModel):
    """`ToolReasonerChat(policy="vllm:http://localhost:8000").invoke("What is 2**64 mod 97?")`

    The answer's content are LangChain's standard blocks: reasoning, server_tool_call (the code that was run), server_tool_result,
    text; its `text` is the prose alone, and `adapters.messages.trajectory(answer)` every token. Streams carry the same blocks as
    they come about. `strategy`, `settings`, `policy` and `sandbox` as for `toolreason.reasoner`; `temperature`, `top_p`, `seed` and
    `max_tokens` also for each call. A stop sequence cuts the text of the answer. Tools of the caller's are not for this model: it
    has its own, and refuses `bind_tools` as any model that has no tool calling does.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    strategy: Any = "hint_infer"
    settings: Any = None
    policy: Any = DEFAULT_POLICY
    sandbox: Any = Field(default="docker", exclude=True, repr=False)
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    max_tokens: int | None = None
    _plan: Strategy[Any] = PrivateAttr()
    _chosen: Settings = PrivateAttr()
    _live: Live = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._plan, self._chosen = planned(self.strategy, self.settings)
        self._live = Live(self.policy, self.sandbox, self._chosen)

    @property
    def _llm_type(self) -> str:
        return "toolreason"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"strategy": self._plan.name, "model_name": self._name, "temperature": self.temperature, "seed": self.seed}

    @property
    def _name(self) -> str:
        return self.policy if isinstance(self.policy, str) else str(self.policy.name)

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        """What LangSmith's traces say of the model."""
        params = super()._get_ls_params(stop=stop, **kwargs)
        return params | LangSmithParams(ls_provider="toolreason", ls_model_name=kwargs.get("model", self._name))

    def close(self) -> None:
        """Give back what calls without an event loop have opened. Safe to call twice."""
        background().run(self._live.aclose())

    async def aclose(self) -> None:
        """Give back what was opened in this event loop. Safe to call twice."""
        await self._live.aclose()

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        done = await self._rollout(messages, kwargs)
        answer = convert.message(done)
        if stop:
            answer.content = _cut(answer.content, stop)
        return ChatResult(generations=[ChatGeneration(message=answer)], llm_output={"model_name": self._name})

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return background().run(self._agenerate(messages, stop, None, **kwargs))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        events: asyncio.Queue[Any] = asyncio.Queue()
        work = asyncio.create_task(self._rollout(messages, kwargs, events.put_nowait))
        work.add_done_callback(lambda _: events.put_nowait(None))
        blocks = _Blocks()
        try:
            while (event := await events.get()) is not None:
                for chunk in blocks.feed(event):
                    await _announce(run_manager, chunk)
                    yield chunk
            for chunk in blocks.finish(work.result()):
                await _announce(run_manager, chunk)
                yield chunk
        finally:
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await work

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        chunks: queue.SimpleQueue[ChatGenerationChunk | BaseException | None] = queue.SimpleQueue()

        async def work() -> None:
            try:
                async for chunk in self._astream(messages, stop, None, **kwargs):
                    chunks.put(chunk)
                chunks.put(None)
            except BaseException as error:
                chunks.put(error)
                raise

        running = background().start(work())
        try:
            while (chunk := chunks.get()) is not None:
                if isinstance(chunk, BaseException):
                    raise chunk
                if run_manager is not None:
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
        finally:
            running.cancel()

    async def _rollout(
        self, messages: Sequence[BaseMessage], given: dict[str, Any], on_event: Callable[[Any], None] | None = None
    ) -> Trajectory:
        """Raises PolicyError or its like where the infrastructure failed."""
        parts = await self._live.parts()
        sampling = Sampling(
            given.get("temperature", self.temperature), given.get("top_p", self.top_p), seed=given.get("seed", self.seed)
        )
        most = given.get("max_tokens", self.max_tokens)
        done = await rollout(
            convert.problem(messages),
            strategy=self._plan,
            settings=self._chosen if most is None else replace(self._chosen, max_tokens=most),
            policy=parts.policy,
            sessions=parts.sessions,
            sampling=sampling,
            workshop=parts.workshop,
            on_event=on_event,
        )
        if done.stop is StopReason.ABORTED:
            raise failure(done)
        return done


class _Blocks:
    """Events of a rollout as chunks of a message, each part a content block with its place."""

    def __init__(self) -> None:
        self._splitter, self._index, self._last = Splitter(), -1, ""

    def feed(self, event: Any) -> Iterator[ChatGenerationChunk]:
        for part in self._splitter.feed(event):
            yield self._chunk(part)

    def finish(self, done: Trajectory) -> Iterator[ChatGenerationChunk]:
        for part in self._splitter.finish():
            yield self._chunk(part)
        end = AIMessageChunk(content=[], response_metadata=convert.metadata(done), usage_metadata=convert.usage(done))
        end.chunk_position = "last"
        yield ChatGenerationChunk(message=end)

    def _chunk(self, part: Part) -> ChatGenerationChunk:
        if part.kind != self._last or part.kind in ("call", "result"):
            self._index += 1
        self._last = part.kind
        return ChatGenerationChunk(message=AIMessageChunk(content=[convert.block(part) | {"index": self._index}]))


async def _announce(manager: AsyncCallbackManagerForLLMRun | None, chunk: ChatGenerationChunk) -> None:
    if manager is not None:
        await manager.on_llm_new_token(chunk.text, chunk=chunk)


def _cut(content: Any, stop: Sequence[str]) -> list[Any]:
    """The blocks up to the first stop sequence in a text."""
    kept: list[Any] = []
    for block in content:
        text = block.get("text", "") if block["type"] == "text" else ""
        ends = [at for word in stop if word and (at := text.find(word)) >= 0]
        if ends:
            return [*kept, block | {"text": text[: min(ends)]}]
        kept.append(block)
    return kept
