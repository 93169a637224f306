"""Finding and killing what a cell leaves behind, and the kernel's count of out-of-memory kills."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

PATIENCE_S = 10.0
# cgroup v2, then v1, each as a container sees its own
OOM_COUNTERS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


class Processes:
    """All processes but this one: those of the container if this is process 1, else this one's descendants."""

    def __init__(self) -> None:
        self.me = os.getpid()

    def purge(self, keep: int | None) -> None:
        """Kill everything but `keep`. Returns when all have had the signal, which none outruns: a killed process runs no more
        of its code and forks no more. Where there were several, waits for their end, since the dying still count as processes.
        """
        killed: set[int] = set()
        deadline = time.monotonic() + PATIENCE_S
        while victims := self.others(keep) - (killed if len(killed) == 1 else set()):
            if self.me == 1 and len(victims) > 1:
                os.kill(-1, signal.SIGSTOP)  # at one blow, children being born included, so that a fork bomb cannot outrun it
            for pid in victims:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if self.me == 1 and len(victims) > 1 and keep:
                with suppress(ProcessLookupError):
                    os.kill(keep, signal.SIGCONT)
            if victims <= killed:
                time.sleep(0.001)
            killed |= victims
            self.reap()
            if time.monotonic() > deadline:
                raise SystemExit(f"processes that do not die: {sorted(victims)}")  # ends the container
        self.reap()

    def others(self, keep: int | None) -> set[int]:
        """Process ids that are neither this one, nor `keep`, nor dead."""
        parents = {}
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) not in (self.me, keep):
                with suppress(OSError):
                    with open(f"/proc/{name}/stat", "rb") as file:
                        state, parent = file.read().rsplit(b")", 1)[1].split()[:2]
                    parents[int(name)] = (state, int(parent))
        return {pid for pid, (state, _) in parents.items() if state not in b"ZX" and self.ours(pid, parents, keep)}

    def ours(self, pid: int, parents: dict[int, tuple[bytes, int]], keep: int | None) -> bool:
        """Whether this process is an ancestor. Orphans come to process 1, and outside a container to this one (a subreaper)."""
        if self.me == 1:
            return True
        seen = set()
        while pid in parents and pid not in seen:
            seen.add(pid)
            pid = parents[pid][1]
        return pid in (self.me, keep)

    def reap(self) -> None:
        """Collect the dead, so that their process ids are free again."""
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def oom_kills() -> int:
    """How many processes of this container the kernel has killed for want of memory."""
    if os.getpid() != 1:
        return 0  # the counter of the whole machine says nothing of ours
    for path in OOM_COUNTERS:
        with suppress(OSError), open(path) as file:
            return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)
    return 0
