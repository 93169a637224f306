"""The session process: it holds the variables and runs the cells.

Before each cell it forks a copy of itself, which waits with the state from before: the past. If the cell ends well the process goes
on with the next; if it hangs, dies or is not to be kept, the wire process kills it and wakes the past, which becomes the session
process in its place. Copies of earlier cells wait for an undo.

Nothing here is trusted by the wire process once the first cell has run.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` has enums, which touch much memory: copied after each fork
import array
import os
import random
import resource
import socket
import sys
import types
from contextlib import suppress
from os import _exit, close, dup2, fork, fstat, getpid, setpgid, waitpid, write  # a cell may replace those of `os`
from os import open as os_open
from random import getstate, setstate
from time import process_time
from typing import Any, NoReturn

import runner_cell
import runner_guard
import runner_links as links
from runner_system import PR_SET_DUMPABLE, peek, prctl, raw_fork

INT_DIGITS = 100_000  # printing 2000! is fair; 10**10**7 would take hours
FONTS = "/opt/toolreason/matplotlib"  # matplotlib's list of fonts, made with the image

_cell_pid = 0  # the process that runs the cells, so that one which a cell forks knows that it is another


def start(link: socket.socket, settings: dict[str, Any], uid: int, folder: str, scratch: str | None) -> NoReturn:
    """Become a session process, in a fresh fork of the zygote, and serve cells until the link closes."""
    quarantine(link.fileno())
    if settings["own_ids"]:
        os.nice(19)  # the wire process gets its turn among many cell processes
        become(uid)
    limit(settings)
    sys.set_int_max_str_digits(INT_DIGITS)
    sys.argv, sys.path[0] = [""], ""
    settle(folder, scratch)
    random.seed()  # else all sessions of one zygote would draw the same numbers
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(int.from_bytes(os.urandom(4)))
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    listener = runner_guard.confine(settings["filters"], needed=settings["own_ids"])
    send(link, b"ready", [] if listener is None else [listener])
    if listener is not None:
        close(listener)
    serve(link, module.__dict__, settings)


def become(uid: int) -> None:
    """A user who owns nothing but the session's folders. That takes all capabilities away, for good."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def settle(folder: str, scratch: str | None) -> None:
    """Make the work folder the current one, and tell programs where they may write."""
    os.chdir(folder)
    fonts = f"{scratch or folder}/.matplotlib"
    for name, value in (("HOME", folder), ("TMPDIR", scratch or folder), ("MPLCONFIGDIR", fonts)):
        os.environ[name] = value
    if os.path.isdir(FONTS) and not os.path.isdir(fonts):
        os.mkdir(fonts)
        for name in os.listdir(FONTS):
            os.symlink(f"{FONTS}/{name}", f"{fonts}/{name}")


def serve(link: socket.socket, namespace: dict[str, Any], settings: dict[str, Any]) -> NoReturn:
    """One turn of the loop is one cell. A past comes round again when it is woken."""
    global _cell_pid
    pasts: list[int] = []
    done = 0  # cells whose effects are in this state
    while True:
        _cell_pid = getpid()
        out_of_memory_first(0)
        prctl(PR_SET_DUMPABLE, 0)  # no cell of this session, though it has the same user id, may look into it or trace it
        occupy()
        (op, *words), (text,), fds = receive(link)
        if op == "fork":
            link = branch(link, fds, text)
            continue
        number, cpu_s, due = words
        if int(due) != done:  # not the state that the wire process takes this to be
            _close(fds)
            link.send(links.pack(["stale"], []))
            continue
        pasts = [pid for pid in pasts if not ended(pid)]
        past = raw_fork()
        if past == 0:
            link, pasts = sleep(link, fds), []
            continue
        if past < 0:
            _close(fds)
            link.send(links.pack(["no-fork"], []))
            continue
        pasts.append(past)
        code = enter(fds, text, int(cpu_s))
        result = runner_cell.run(code, number, namespace, settings)
        done += 1
        report(link, result)


def sleep(link: socket.socket, fds: list[int]) -> socket.socket:
    """Be the past, touching as little memory as can be, until woken. Returns the link to serve."""
    setpgid(0, 0)  # a cell that signals its own process group does not mean the past
    own, *rest = fds
    link.close()  # so that it ends with the process that it is for
    handler = _signal.signal(_signal.SIGHUP, _signal.SIG_IGN)  # which the kernel sends to the stopped when their parent dies
    if peek(own) <= 0:
        _exit(0)
    if handler is not None:
        _signal.signal(_signal.SIGHUP, handler)
    _close(rest)
    link = socket.socket(fileno=own)
    link.recv(64)
    link.send(b"ready")
    return link


def branch(link: socket.socket, fds: list[int], folder: str) -> socket.socket:
    """Fork a second session, which is nobody's child. Returns the link to serve: in the new session, its own."""
    child = raw_fork()
    if child == 0 and raw_fork():
        _exit(0)
    if child:
        ended(child, 0)
        _close(fds)
        return link
    link.close()
    os.setsid()
    settle(folder, None)
    link = socket.socket(fileno=fds[0])
    link.send(b"ready")
    return link


def occupy() -> None:
    """Have something on descriptors 0 to 2, should a cell have closed them: what is received next must not land there."""
    for fd in range(3):
        try:
            fstat(fd)
        except OSError:
            os_open("/dev/null", os.O_RDWR)  # takes the lowest that is free


def ended(child: int, options: int = os.WNOHANG) -> bool:
    """Whether a child has ended, so that its process id is free again."""
    try:
        return waitpid(child, options)[0] != 0
    except ChildProcessError:
        return True


def enter(fds: list[int], text: str, cpu_s: int) -> str:
    """Make this process the place where the cell runs: its streams, its limits. Returns the code."""
    prctl(PR_SET_DUMPABLE, 1)  # its own /proc files are its own again
    out_of_memory_first(1000)
    _, out, err, *source = fds
    null = os_open(os.devnull, os.O_RDWR)
    for new, old in ((null, 0), (out, 1), (err, 2)):
        dup2(new, old)
    if source:
        text = read(source[0]).decode("utf-8", "surrogatepass")
    _close([null, *fds])
    resource.setrlimit(resource.RLIMIT_CPU, (int(process_time()) + cpu_s, resource.RLIM_INFINITY))
    _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    runner_cell.streams()
    return text


def report(link: socket.socket, result: dict[str, Any]) -> None:
    """Send what came of the cell, or end, if this is a process that the cell itself forked."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    if getpid() != _cell_pid:
        _exit(0)
    for timer in (_signal.ITIMER_REAL, _signal.ITIMER_VIRTUAL, _signal.ITIMER_PROF):  # an alarm would kill the idle session
        _signal.setitimer(timer, 0)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    shed_threads(link)
    fds, sizes = result.get("pictures", ([], []))
    words = [result["outcome"], "mapped" if "mmap" in sys.modules else "plain", *map(str, sizes)]
    texts = [result.get(name) for name in ("value", "error", "traceback")]
    try:
        send(link, links.pack(words, texts), fds)
    except OSError:  # longer than a packet
        send(link, links.pack(words[:2], [None, texts[1], None]), [])
    _close(fds)


def shed_threads(link: socket.socket) -> None:
    """Leave daemon threads behind: in the idle session they would go on working, and use up its CPU time. A fork has none of
    them, and becomes the session in this process's place, which says so and waits here to be killed.
    """
    if runner_cell.many_threads():
        link.send(links.pack(["sheds"], []))
        randomness = getstate()
        if fork():
            while True:
                _signal.pause()
        os.setsid()
        setstate(randomness)


def send(link: socket.socket, data: bytes, fds: list[int]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    link.sendmsg([data], rights)


def receive(link: socket.socket) -> tuple[list[str], list[Any], list[int]]:
    data, fds, _, _ = socket.recv_fds(link, 1 << 17, 4)
    if not data:
        _exit(0)
    for fd in fds:
        os.set_inheritable(fd, False)
    return *links.unpack(data), fds


def limit(settings: dict[str, Any]) -> None:
    """Bounds that a cell cannot lift. Address space is counted on top of what the imports take."""
    mib = 1 << 20
    with open("/proc/self/statm") as file:
        base = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limits = [
        (resource.RLIMIT_AS, base + settings["memory_mb"] * mib),
        (resource.RLIMIT_FSIZE, (settings["file_mb"] or settings["disk_mb"]) * mib),
        (resource.RLIMIT_NOFILE, settings["open_files"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ]
    if settings["own_ids"]:
        limits.append((resource.RLIMIT_NPROC, settings["most_processes"]))
    for what, most in limits:
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with suppress(ValueError):  # another runtime's kernel may not have them all: `toolreason sandbox check` tells
            resource.setrlimit(what, (most, most))


def quarantine(link: int) -> None:
    """Keep nothing of the wire process but the link."""
    null = os_open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        dup2(null, fd)
    os.closerange(3, link)
    os.closerange(link + 1, 1024)
    os.setsid()


def read(fd: int) -> bytes:
    with open(fd, "rb", closefd=False) as file:
        file.seek(0)
        return file.read()


def out_of_memory_first(score: int) -> None:
    """Whom the kernel kills first when the container is full: a running cell, so that the session survives it."""
    with suppress(OSError):
        fd = os_open("/proc/self/oom_score_adj", os.O_WRONLY)
        try:
            write(fd, b"%d" % score)
        finally:
            close(fd)


def _close(fds: list[int]) -> None:
    for fd in fds:
        close(fd)
