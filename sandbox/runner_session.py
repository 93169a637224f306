"""The session process: it holds the variables and runs the cells.

Before each cell it forks a copy of itself, which waits with the state from before: the past. If the cell ends well the process goes
on with the next; if it hangs, dies or is not to be kept, the wire process kills it and wakes the past, which becomes the session
process in its place. Copies of earlier cells wait for an undo.

Nothing here is trusted by the wire process once the first cell has run.
"""

from __future__ import annotations

import array
import json
import os
import resource
import signal
import socket
import sys
import types
from contextlib import suppress
from os import _exit, close, fork, getpid, waitpid  # a cell may replace those of `os`
from random import getstate, setstate
from time import process_time
from typing import Any, NoReturn

import runner_cell
import runner_figures
import runner_guard
from runner_system import PR_SET_DUMPABLE, after_fork, peek, prctl, raw_fork

INT_DIGITS = 100_000  # printing 2000! is fair; 10**10**7 would take hours
FONTS = "/opt/toolreason/matplotlib"  # matplotlib's list of fonts, made with the image

_cell_pid = 0  # the process that runs the cells, so that one which a cell forks knows that it is another


def start(link: socket.socket, settings: dict[str, Any], order: dict[str, Any]) -> NoReturn:
    """Become a session process, in a fresh fork of the zygote, and serve cells until the link closes."""
    quarantine(link.fileno())
    if settings["own_ids"]:
        os.nice(10)  # the wire process gets its turn among many cell processes
        become(order["uid"])
    limit(settings)
    sys.set_int_max_str_digits(INT_DIGITS)
    sys.argv, sys.path[0] = [""], ""
    settle(order["folder"], order["scratch"])
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # else all sessions of one zygote would draw the same numbers
    runner_figures.quiet()
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    listener = runner_guard.confine(settings["shared"], needed=settings["own_ids"])
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
    os.environ.update(HOME=folder, TMPDIR=scratch or folder, USER="sandbox", LOGNAME="sandbox")
    fonts = f"{scratch or folder}/.matplotlib"
    with suppress(OSError):
        names = os.listdir(FONTS)
        os.makedirs(fonts, exist_ok=True)
        for name in names:
            os.symlink(f"{FONTS}/{name}", f"{fonts}/{name}")
    os.environ["MPLCONFIGDIR"] = fonts


def serve(link: socket.socket, namespace: dict[str, Any], settings: dict[str, Any]) -> NoReturn:
    """One turn of the loop is one cell. A past comes round again when it is woken."""
    global _cell_pid
    pasts: list[int] = []
    while True:
        _cell_pid = getpid()
        out_of_memory_first(0)
        prctl(PR_SET_DUMPABLE, 0)  # no cell of this session, though it has the same user id, may look into it or trace it
        order, fds = receive(link)
        if order["op"] == "fork":
            link = branch(link, fds, order["folder"])
            continue
        pasts = [pid for pid in pasts if not ended(pid)]
        past = raw_fork()
        if past == 0:
            link, pasts = sleep(link, fds), []
            continue
        if past < 0:
            _close(fds)
            link.send(b'{"outcome": "no fork"}')
            continue
        pasts.append(past)
        with suppress(OSError):
            os.setpgid(past, past)  # a cell that signals its own process group does not mean the past
        code = enter(fds, order)
        report(link, runner_cell.run(code, order["number"], namespace, settings))


def sleep(link: socket.socket, fds: list[int]) -> socket.socket:
    """Be the past, touching as little memory as can be, until woken. Returns the link to serve."""
    own, *rest = fds
    if peek(own) <= 0:
        _exit(0)
    randomness = getstate()  # which reseeds itself after a fork; a cell's seed must hold
    after_fork()
    setstate(randomness)
    _close(rest)
    link.close()
    link = socket.socket(fileno=own)
    link.recv(64)
    link.send(b"ready")
    return link


def branch(link: socket.socket, fds: list[int], folder: str) -> socket.socket:
    """Fork a second session, which is nobody's child. Returns the link to serve: in the new session, its own."""
    randomness = getstate()
    try:
        child = fork()
        if child == 0 and fork():
            _exit(0)
    except OSError:
        child = -1
    if child:
        ended(child, 0)
        _close(fds)
        return link
    setstate(randomness)
    link.close()
    os.setsid()
    settle(folder, None)
    link = socket.socket(fileno=fds[0])
    link.send(b"ready")
    return link


def ended(child: int, options: int = os.WNOHANG) -> bool:
    """Whether a child has ended, so that its process id is free again."""
    try:
        return waitpid(child, options)[0] != 0
    except ChildProcessError:
        return True


def enter(fds: list[int], order: dict[str, Any]) -> str:
    """Make this process the place where the cell runs: its streams, its limits. Returns the code."""
    prctl(PR_SET_DUMPABLE, 1)  # its own /proc files are its own again
    out_of_memory_first(1000)
    _, out, err, *source = fds
    null = os.open(os.devnull, os.O_RDWR)
    for new, old in ((null, 0), (out, 1), (err, 2)):
        os.dup2(new, old)
    code = read(source[0]).decode("utf-8", "surrogatepass") if source else str(order["code"])
    _close([null, *fds])
    resource.setrlimit(resource.RLIMIT_CPU, (int(process_time()) + order["cpu_s"], resource.RLIM_INFINITY))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    runner_cell.streams()
    return code


def report(link: socket.socket, result: dict[str, Any]) -> None:
    """Send what came of the cell, or end, if this is a process that the cell itself forked."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    if getpid() != _cell_pid:
        _exit(0)
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):  # an alarm would kill the idle session
        signal.setitimer(timer, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    shed_threads()
    pictures = result.pop("pictures", None)
    fds = [] if pictures is None else [pictures]
    try:
        send(link, json.dumps(result).encode(), fds)
    except OSError:  # longer than a packet
        send(link, json.dumps({"outcome": result["outcome"], "error": result.get("error")}).encode(), [])
    _close(fds)


def shed_threads() -> None:
    """Leave daemon threads behind: in the idle session they would go on working, and use up its CPU time. A fork has none of
    them, and becomes the session in this process's place, which waits here to be killed.
    """
    if len(os.listdir("/proc/self/task")) > 1:
        randomness = getstate()
        if fork():
            while True:
                signal.pause()
        os.setsid()
        setstate(randomness)


def send(link: socket.socket, data: bytes, fds: list[int]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    link.sendmsg([data], rights)


def receive(link: socket.socket) -> tuple[dict[str, Any], list[int]]:
    data, fds, _, _ = socket.recv_fds(link, 1 << 17, 4)
    if not data:
        _exit(0)
    for fd in fds:
        os.set_inheritable(fd, False)
    return json.loads(data), fds


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
        resource.setrlimit(what, (most, most))


def quarantine(link: int) -> None:
    """Keep nothing of the wire process but the link."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(3, link)
    os.closerange(link + 1, 1024)
    os.setsid()


def read(fd: int) -> bytes:
    with open(fd, "rb", closefd=False) as file:
        file.seek(0)
        return file.read()


def out_of_memory_first(score: int) -> None:
    """Whom the kernel kills first when the container is full: a running cell, so that the session survives it."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(score))


def _close(fds: list[int]) -> None:
    for fd in fds:
        close(fd)
