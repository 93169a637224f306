"""What a sandbox is: something that leases sessions, in which cells of Python run one after the other.

A cell that fails is a `CellResult`. A sandbox that fails raises `SandboxError` (`SessionLost` when the session is gone).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from toolreason.types import CellResult


@dataclass(frozen=True, slots=True)
class Limits:
    """What one session may use. Times are wall seconds, sizes MiB, output characters.

    `output_chars` is what a result keeps of stdout and of stderr, each (head and tail); a cell that prints more than
    `output_hard_mb` is stopped with `Outcome.OUTPUT`.
    """

    cell_timeout_s: float = 10.0
    memory_mb: int = 512
    processes: int = 64
    cpus: float = 1.0
    disk_mb: int = 64
    output_chars: int = 4000
    output_hard_mb: int = 8


class Session(Protocol):
    """One Python state. Cells run one at a time; a second call waits for the first."""

    async def run(self, code: str, *, timeout_s: float | None = None, keep: bool = True) -> CellResult:
        """Run one cell. With `keep` False nothing it does to variables outlives it (stateless mode).

        Raises SessionLost when the session is gone. Cancelling the call ends the session: its state would be unknown.
        """
        ...

    async def close(self) -> None:
        """End the session and everything in it. Safe to call twice."""
        ...


class Sandbox(Protocol):
    """Leases sessions; never hands one to a second user."""

    async def session(self) -> Session:
        """A fresh session. Waits while the sandbox is at its limit. Raises SandboxError."""
        ...

    async def aclose(self) -> None:
        """End all sessions and give everything back. Safe to call twice."""
        ...


class Sessions(Protocol):
    """Sessions by rollout, as graphs use them: the graph's state is plain and names its session by a key.

    `execution.book.SessionBook` is the implementation, over any `Sandbox`.
    """

    async def run(
        self,
        key: str,
        call_id: str,
        code: str,
        *,
        history: Sequence[tuple[str, str]] = (),
        stateful: bool = True,
        timeout_s: float | None = None,
    ) -> CellResult:
        """Run a cell in the session of `key`, leasing it at the first call.

        A `call_id` that this session has run with this code returns its recorded result and runs nothing. `history` are the
        (call_id, code) of the committed cells before this one: when the session is new or lost they are replayed first
        (stateful only), so that a resumed rollout finds its variables. Raises SandboxError.
        """
        ...

    async def release(self, key: str) -> None:
        """End the session of `key`, if there is one."""
        ...
