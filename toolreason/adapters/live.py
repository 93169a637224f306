"""Policy, sandbox and library of a reasoner that lives inside somebody's program: opened when they are first needed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from toolreason.execution.base import Sandbox, Sessions
from toolreason.policies.base import Policy
from toolreason.strategies.base import Settings, Strategy, changed, load
from toolreason.tools.workshop import Workshop

DEFAULT_POLICY = "transformers:qwen2.5-coder-0.5b-instruct"


def planned(strategy: str | Strategy[Any], settings: Settings | Mapping[str, Any] | None) -> tuple[Strategy[Any], Settings]:
    """The strategy of this name with these settings, given whole or by key. Raises SettingsError."""
    plan = load(strategy) if isinstance(strategy, str) else strategy
    if isinstance(settings, Settings):
        return plan, settings
    return plan, changed(plan.settings(), settings or {})


@dataclass(frozen=True)
class Parts:
    """What is open in one event loop."""

    policy: Policy
    sessions: Sessions | None
    workshop: Workshop | None
    stack: AsyncExitStack


def _named(name: str) -> Any:
    from toolreason.execution import open_sandbox

    return open_sandbox("docker", density="shared") if name == "shared" else open_sandbox(name)


class Live:
    """Opens what is named, once for each event loop that asks; what was given as an object stays its owner's."""

    def __init__(self, policy: Policy | str, sandbox: Sandbox | str | None, settings: Settings) -> None:
        self._policy, self._sandbox, self._settings = policy, sandbox, settings
        self._open: dict[asyncio.AbstractEventLoop, asyncio.Task[Parts]] = {}

    async def parts(self) -> Parts:
        """Raises SetupError for what is missing, SettingsError for a name that is none. What failed is tried again next time."""
        loop = asyncio.get_running_loop()
        for other in [one for one in self._open if one.is_closed()]:
            del self._open[other]
        task = self._open.get(loop)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._open[loop] = loop.create_task(self._opened())
        return await asyncio.shield(task)

    async def _opened(self) -> Parts:
        from toolreason.execution import SessionBook
        from toolreason.policies import open_policy
        from toolreason.tools.workshop import Workshops

        stack = AsyncExitStack()
        try:
            box = await stack.enter_async_context(_named(self._sandbox)) if isinstance(self._sandbox, str) else self._sandbox
            if isinstance(self._policy, str):
                policy = await open_policy(self._policy)
                stack.push_async_callback(policy.aclose)
            else:
                policy = self._policy
            workshops = await stack.enter_async_context(Workshops(box))
            sessions = None if box is None else await stack.enter_async_context(SessionBook(box))
            return Parts(policy, sessions, await workshops.of(self._settings), stack)
        except BaseException:
            await stack.aclose()
            raise

    async def aclose(self) -> None:
        """Give back what was opened in this event loop. Safe to call twice."""
        task = self._open.pop(asyncio.get_running_loop(), None)
        if task is None:
            return
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None:
            await task.result().stack.aclose()
