"""Finding and killing what a cell leaves behind, and what the kernel says of processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

# cgroup v2, then v1, each as a container sees its own
OOM_COUNTERS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
USED = (
    ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.max"),
    ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
PAGE, TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")


class Processes:
    """The processes below this one. `known` are those that sessions are made of: they are never strays."""

    def __init__(self, own_ids: bool) -> None:
        self.me, self.own_ids = os.getpid(), own_ids
        self.known: set[int] = set()
        self.exits: dict[int, tuple[int, float]] = {}
        self.oom_seen = oom_kills()
        self.dying: dict[int, int] = {}  # former ones that have been killed, and when
        self.lists_children = os.path.exists(f"/proc/self/task/{self.me}/children")

    def strays(self, uid: int | None, first: list[int], keep: set[int]) -> set[int]:
        """The living of `first`, of orphans of the user (if given), and of all below, but the known, the dying, those to keep."""
        waiting = [pid for pid in first if self.is_new(pid)]
        if uid is not None:
            waiting += [pid for pid in self.children(self.me) if self.is_new(pid) and self.owner(pid) == uid]
        found: set[int] = set()
        while waiting:
            pid = waiting.pop()
            if pid not in found and pid not in keep and self.is_new(pid):
                found.add(pid)
                waiting += self.children(pid)
        return {pid for pid in found if living(pid)}

    def is_new(self, pid: int) -> bool:
        return pid not in self.known and not self.is_dying(pid)

    def is_dying(self, pid: int) -> bool:
        """Whether it is one that was killed, and not another to whom its id went: ids come round within a minute."""
        if pid in self.dying and born(pid) > self.dying[pid]:
            del self.dying[pid]
        return pid in self.dying

    def killed(self, pid: int) -> None:
        """It was known, and is not any more."""
        self.dying[pid] = int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS)

    def first_new(self, pids: list[int]) -> int:
        """The first that lives and is not known; 0 if there is none."""
        return next((pid for pid in pids if self.is_new(pid) and living(pid)), 0)

    def children(self, pid: int) -> list[int]:
        """In the order of their birth, as far as one thread has forked them."""
        if not self.lists_children:
            return by_scan()(pid)
        children: list[int] = []
        for thread in threads(pid):
            with suppress(OSError):
                children += map(int, read(f"/proc/{pid}/task/{thread}/children").split())
        return children

    def owner(self, pid: int) -> int:
        if not self.own_ids:
            return os.getuid()
        with suppress(OSError):
            return int(read(f"/proc/{pid}/status").partition(b"Uid:")[2].split()[0])
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
            children, waiting = by_scan(), [self.me]
            found: set[int] = set()
            while waiting:
                new = set(children(waiting.pop())) - found
                found |= new
                waiting += new
            victims = {pid for pid in found if living(pid)}
            if not victims:
                return
            for pid in victims:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.reap()

    def oom_struck(self) -> bool:
        """Whether the kernel has killed for want of memory since this was last asked."""
        before, self.oom_seen = self.oom_seen, oom_kills()
        return self.oom_seen > before

    def reap(self) -> None:
        """Collect the dead, so that their process ids are free again. Of known ones `exits` keeps code and CPU time."""
        with suppress(ChildProcessError):
            while (found := os.wait4(-1, os.WNOHANG))[0]:
                pid, status, usage = found
                if pid in self.known:
                    self.exits[pid] = (os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime)
        if len(self.dying) > 128:
            self.dying = {pid: when for pid, when in self.dying.items() if living(pid)}


def by_scan() -> Callable[[int], list[int]]:
    """The children of a process, from a look at all processes."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                parents[int(name)] = int(read(f"/proc/{name}/stat").rsplit(b")", 1)[1].split()[1])
    return lambda pid: sorted(child for child, parent in parents.items() if parent == pid)


def threads(pid: int) -> list[str]:
    """A process's threads. Most have one, and the folder's number of links says so at less cost than a list."""
    try:
        return os.listdir(f"/proc/{pid}/task") if os.stat(f"/proc/{pid}/task").st_nlink != 3 else [str(pid)]
    except OSError:
        return []


def living(pid: int) -> bool:
    with suppress(OSError):
        return read(f"/proc/{pid}/stat").rsplit(b")", 1)[1].split()[0] not in b"ZX"
    return False


def born(pid: int) -> int:
    """When a process began, in clock ticks since the machine did; 0 when it is gone."""
    with suppress(OSError):
        return int(read(f"/proc/{pid}/stat").rsplit(b")", 1)[1].split()[19])
    return 0


def read(path: str) -> bytes:
    """A file of the kernel, without the layers that Python puts on one."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = piece = os.read(fd, 1 << 14)
        while len(piece) == 1 << 14:
            piece = os.read(fd, 1 << 14)
            text += piece
        return text
    finally:
        os.close(fd)


def cpu_s(pid: int) -> float:
    """The CPU time that a process has used, its threads included; 0 when it is gone."""
    with suppress(OSError):
        return time.clock_gettime((~pid << 3) | 2)  # the kernel's number for another process's clock
    return 0.0


def resident_mb(pids: Iterable[int]) -> float:
    """The memory of these processes that is no file's."""
    pages = 0
    for pid in pids:
        with suppress(OSError, IndexError):
            fields = read(f"/proc/{pid}/statm").split()
            pages += int(fields[1]) - int(fields[2])
    return pages * PAGE / (1 << 20)


def memory_share() -> float:
    """How much of the container's memory is used, 0 to 1; 0 outside a container."""
    if os.getpid() != 1:
        return 0.0
    for used, most in USED:
        with suppress(OSError, ValueError):
            return int(read(used)) / int(read(most))
    return 0.0


def oom_kills() -> int:
    """How many processes of this container the kernel has killed for want of memory."""
    if os.getpid() != 1:
        return 0  # the counter of the whole machine says nothing of ours
    for path in OOM_COUNTERS:
        with suppress(OSError):
            return int(read(path).partition(b"oom_kill ")[2].split()[0])
    return 0
