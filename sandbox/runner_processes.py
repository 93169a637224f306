"""Finding and killing what a cell leaves behind, and what the kernel says of processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress

# cgroup v2, then v1, each as a container sees its own
OOM_COUNTERS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
USED = (
    ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.max"),
    ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
PAGE = os.sysconf("SC_PAGE_SIZE")


class Processes:
    """The processes below this one. `known` are those that sessions are made of: they are never strays."""

    def __init__(self, own_ids: bool) -> None:
        self.me, self.own_ids = os.getpid(), own_ids
        self.known: set[int] = set()
        self.exits: dict[int, tuple[int, float]] = {}
        self.dying: set[int] = set()  # former ones that have been killed
        self.lists_children = os.path.exists(f"/proc/self/task/{self.me}/children")

    def strays(self, uid: int, roots: Iterable[int], others: set[int], keep: set[int]) -> set[int]:
        """Living processes below `roots` and orphans of the user, without those to keep and those of `others` (sessions)."""
        found: set[int] = set()
        parents = None if self.lists_children else scan()
        waiting = [pid for root in roots for pid in self.children(root, parents)]
        orphans = [pid for pid in self.children(self.me, parents) if pid not in self.known and pid not in self.dying]
        waiting += [pid for pid in orphans if self.owner(pid) == uid]
        while waiting:
            pid = waiting.pop()
            if pid not in found and pid not in others:
                found.add(pid)
                waiting += self.children(pid, parents)
        return {pid for pid in found - keep - self.dying if living(pid)}

    def children(self, pid: int, parents: dict[int, int] | None) -> list[int]:
        if parents is not None:
            return [child for child, parent in parents.items() if parent == pid]
        children: list[int] = []
        with suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                    children += map(int, file.read().split())
        return children

    def owner(self, pid: int) -> int:
        if not self.own_ids:
            return os.getuid()
        with suppress(OSError), open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"Uid:"):
                    return int(line.split()[1])
        return -1

    def kill(self, pids: set[int], uid: int) -> bool:
        """Kill. Several are stopped first, at one blow and with all that is theirs, children being born included, so that a fork
        bomb cannot outrun it. Returns whether others of that user were stopped too: `resume` them when all are dead.
        """
        stopped = self.own_ids and len(pids) > 1
        if stopped:
            self.as_user(uid, signal.SIGSTOP)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return stopped

    def resume(self, pids: Iterable[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def as_user(self, uid: int, number: int) -> None:
        """Signal every process of a user."""
        helper = os.fork()
        if helper == 0:
            try:
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
                os.kill(-1, number)
            finally:
                os._exit(0)
        with suppress(ChildProcessError):
            os.waitpid(helper, 0)

    def end_all(self) -> None:
        """Kill everything below this process."""
        if self.me == 1:
            with suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
            return
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            parents = scan()
            found: set[int] = set()
            waiting = [self.me]
            while waiting:
                pid = waiting.pop()
                new = {child for child, parent in parents.items() if parent == pid} - found
                found |= new
                waiting += new
            victims = {pid for pid in found if living(pid)}
            if not victims:
                return
            self.resume(set())
            for pid in victims:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.reap()

    def reap(self) -> None:
        """Collect the dead, so that their process ids are free again. Of known ones `exits` keeps code and CPU time."""
        with suppress(ChildProcessError):
            while (found := os.wait4(-1, os.WNOHANG))[0]:
                pid, status, usage = found
                if pid in self.known:
                    self.exits[pid] = (os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime)
        if self.dying:
            self.dying = {pid for pid in self.dying if living(pid)}


def scan() -> dict[int, int]:
    """The parent of each process."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                parents[int(name)] = int(file.read().rsplit(b")", 1)[1].split()[1])
    return parents


def living(pid: int) -> bool:
    with suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rsplit(b")", 1)[1].split()[0] not in b"ZX"
    return False


def cpu_s(pid: int) -> float:
    """The CPU time that a process has used, its threads included; 0 when it is gone."""
    with suppress(OSError):
        return time.clock_gettime((~pid << 3) | 2)  # the kernel's number for another process's clock
    return 0.0


def resident_mb(pids: Iterable[int]) -> float:
    """The memory of these processes that is no file's."""
    pages = 0
    for pid in pids:
        with suppress(OSError, IndexError), open(f"/proc/{pid}/statm", "rb") as file:
            fields = file.read().split()
            pages += int(fields[1]) - int(fields[2])
    return pages * PAGE / (1 << 20)


def memory_share() -> float:
    """How much of the container's memory is used, 0 to 1; 0 outside a container."""
    if os.getpid() != 1:
        return 0.0
    for used, most in USED:
        with suppress(OSError, ValueError), open(used) as file, open(most) as limit:
            return int(file.read()) / int(limit.read())
    return 0.0


def oom_kills() -> int:
    """How many processes of this container the kernel has killed for want of memory."""
    if os.getpid() != 1:
        return 0  # the counter of the whole machine says nothing of ours
    for path in OOM_COUNTERS:
        with suppress(OSError), open(path) as file:
            return next((int(line.split()[1]) for line in file if line.startswith("oom_kill ")), 0)
    return 0
