"""What a sandbox is: something that leases sessions, in which cells of Python run one after the other.

A cell that fails is a `CellResult`. A sandbox that fails raises `SandboxError` (`SessionLost` when the session is gone).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from toolreason.types import CellResult


@dataclass(frozen=True, slots=True)
class Limits:
    """What one session may use. Times are seconds, sizes MiB, output characters. Each limit that strikes has its own `Outcome`.

    Of a cell: `cell_timeout_s` is wall time, `cell_cpu_s` CPU time (default: what `cpus` cores can do in the wall time and 2 s),
    `file_mb` the largest file (default `disk_mb`), `output_chars` what a result keeps of stdout and of stderr, each (head and
    tail); a cell that prints more than `output_hard_mb` is stopped. `figures` are the most that are drawn, `figures_mb` their size.

    Of a session: `memory_mb`, `processes` (threads count), `cpus`, `disk_mb` and `disk_files` of its work folder, `session_cpu_s`
    of CPU time and `session_output_mb` of output over all its cells, `undo_depth` committed cells that can be taken back,
    `forks` that may be open at a time.
    """

    cell_timeout_s: float = 10.0
    memory_mb: int = 512
    processes: int = 64
    cpus: float = 1.0
    disk_mb: int = 64
    output_chars: int = 4000
    output_hard_mb: int = 8
    cell_cpu_s: float | None = None
    open_files: int = 256
    file_mb: int | None = None
    disk_files: int = 4096
    figures: int = 8
    figures_mb: int = 4
    session_cpu_s: float = 3600.0
    session_output_mb: int = 256
    undo_depth: int = 4
    forks: int = 4


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file in a session's work folder: its path from there, with slashes, and its size in bytes."""

    path: str
    size: int


class Session(Protocol):
    """One Python state and its work folder. Calls run one at a time; a second one waits for the first.

    All raise SessionLost when the session is gone. Cancelling a call ends the session: its state would be unknown.
    """

    async def run(self, code: str, *, timeout_s: float | None = None, keep: bool = True) -> CellResult:
        """Run one cell. With `keep` False nothing it does to variables or files outlives it (stateless mode)."""
        ...

    async def fork(self) -> Self:
        """A second session with the same variables and files; from now on each goes its own way.

        Its work folder is another one, which is its current directory: relative paths mean its own copy. Raises InputError when
        `Limits.forks` are open already.
        """
        ...

    async def undo(self, cells: int = 1) -> None:
        """Go back to before the last `cells` committed cells: variables and work folder. Raises InputError when there are
        fewer, or more than `Limits.undo_depth` (what lies further back is gone).
        """
        ...

    async def put(self, path: str, data: bytes) -> None:
        """Write a file into the work folder; folders on the way are made. `path` is relative, without `..`. Raises InputError for a
        bad path, a link on the way, or more than the folder holds.
        """
        ...

    async def get(self, path: str) -> bytes:
        """A file's content. Raises InputError for a bad path, or one that is no regular file inside the work folder."""
        ...

    async def files(self) -> list[FileInfo]:
        """The regular files in the work folder, sorted by path."""
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
