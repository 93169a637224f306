"""The endpoint over a scripted policy, in a thread of its own, as a client reaches it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from toolreason.errors import PolicyError
from toolreason.execution import SessionBook
from toolreason.execution.scripted import ScriptedSandbox
from toolreason.policies.base import Completion, Message
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.serve.desk import Desk, Served
from toolreason.serve.guard import listen
from toolreason.serve.openai_app import application
from toolreason.serve.process import address
from toolreason.strategies.artist import ArtistSettings
from toolreason.strategies.base import load
from toolreason.strategies.plain import PlainSettings
from toolreason.types import Segment, Source

CALL = "Let me compute.\n```python\nprint(6*7)\n```\n"
ANSWER = "So \\boxed{42}."


class Answering(ScriptedPolicy):
    """Calls Python once, then answers; says `slow` things slowly, nothing when `silent`, fails at `broken`, counts who left."""

    def __init__(self) -> None:
        super().__init__([])
        self.cancelled = 0
        self.prompts: list[str] = []

    def prompt(self, messages: Sequence[Message]) -> Segment:
        segment = super().prompt(messages)
        self.prompts.append(segment.text)
        return segment

    async def sample(self, segments: Sequence[Segment], *args: Any, **kwargs: Any) -> Completion:
        asked = segments[0].text
        if "broken" in asked:
            raise PolicyError("the engine is down")
        if "slow" in asked or "silent" in asked:
            if kwargs.get("on_text") and "slow" in asked:
                kwargs["on_text"]("Well, let me think about that for quite a while. ")
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        called = any(segment.source is Source.TOOL for segment in segments)
        text = ANSWER if called or "Python" not in asked else CALL
        one = ScriptedPolicy([text])
        return await one.sample(segments, *args, **kwargs)


@dataclass
class Endpoint:
    url: str
    desk: Desk
    policy: Answering
    box: ScriptedSandbox
    loop: asyncio.AbstractEventLoop = field(repr=False)


@asynccontextmanager
async def _open(options: dict[str, Any], app_options: dict[str, Any]) -> AsyncIterator[tuple[Any, ...]]:
    box = ScriptedSandbox({"print(6*7)": "42\n"})
    policy = Answering()
    fenced = ArtistSettings(format="fenced", stateful=True)
    served = {
        "reasoner": Served("reasoner", load("artist"), fenced),
        "plain": Served("plain", load("plain"), PlainSettings()),
    }
    desk = Desk(served, policy, SessionBook(box), **options)
    with listen("127.0.0.1", 0, token=False) as listener:
        server = uvicorn.Server(uvicorn.Config(application(desk, **app_options), log_level="warning", ws="none"))
        task = asyncio.ensure_future(server.serve(sockets=[listener]))
        while not server.started:  # noqa: ASYNC110 (it tells of it in no other way)
            await asyncio.sleep(0.01)
        yield address(listener), desk, policy, box
        server.should_exit = True
        await task


@contextmanager
def endpoint(keys: tuple[str, ...] = (), most_tokens: int | None = None, **options: Any) -> Iterator[Endpoint]:
    """`options` are the desk's."""
    ready, found = threading.Event(), []
    ends: list[Any] = []

    async def main() -> None:
        end = asyncio.Event()
        ends.append(end)
        async with _open(options, {"keys": keys, "most_tokens": most_tokens}) as parts:
            found.append(Endpoint(*parts, asyncio.get_running_loop()))
            ready.set()
            await end.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield found[0]
    finally:
        found[0].loop.call_soon_threadsafe(ends[0].set)
        thread.join(20)
