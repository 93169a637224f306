"""Where an agent's tools are kept and made: a library, the sandbox in which they are tried, and the rules of the gate."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from toolreason.tools.gate import GateSettings
from toolreason.tools.stores import DEFAULT

if TYPE_CHECKING:
    from toolreason.execution.base import Sandbox
    from toolreason.policies.base import Policy
    from toolreason.tools.library import Library


@dataclass(frozen=True)
class Workshop:
    """`builder` writes and reviews tools; None: the policy of the rollout that asks for them does."""

    library: Library
    sandbox: Sandbox
    builder: Policy | None = None
    gate: GateSettings | None = None


class Workshops:
    """The workshop that settings name by their `library` and `frozen`, opened at first use; all are closed at the end."""

    def __init__(self, sandbox: Sandbox | None, *, builder: Policy | None = None) -> None:
        self._sandbox, self._builder = sandbox, builder
        self._stack = AsyncExitStack()
        self._open: dict[tuple[str, bool], Workshop] = {}
        self._opening = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._stack.aclose()

    async def of(self, settings: Any) -> Workshop | None:
        """None for settings that know no library, and where there is no sandbox. A frozen one stays as it is now."""
        if self._sandbox is None or not hasattr(settings, "library"):
            return None
        from toolreason.tools.library import open_library

        spec, frozen = settings.library or DEFAULT, bool(settings.frozen)
        async with self._opening:
            if (spec, False) not in self._open:
                library = await self._stack.enter_async_context(open_library(spec))
                self._open[spec, False] = Workshop(library, self._sandbox, self._builder)
            if (spec, frozen) not in self._open:
                library = self._open[spec, False].library.frozen()
                self._open[spec, True] = Workshop(library, self._sandbox, self._builder)
            return self._open[spec, frozen]
