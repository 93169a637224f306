"""The session process: it holds the variables, and forks a child for each cell.

The child runs the cell, reports, and goes on as the session process itself, in the same loop. Its parent waits with the state
from before: for the next cell if the child hangs, dies or is not to be kept, else for the cell to be taken back. The wire process
decides which of them lives.

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
from os import _exit, close, fork, getpid, wait4, waitstatus_to_exitcode  # a cell may replace those of `os`
from random import getstate, setstate
from typing import Any, NoReturn

import runner_cell
import runner_figures
import runner_guard
from runner_system import PR_SET_DUMPABLE, prctl

INT_DIGITS = 100_000  # printing 2000! is fair; 10**10**7 would take hours
FONTS = "/opt/toolreason/matplotlib"  # matplotlib's list of fonts, made with the image

_cell_pid = 0  # the process that runs the cell, so that one which the cell forks knows that it is another


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
    """One turn of the loop is one cell. Parent and child both come round again; the wire process lets one of them live."""
    while True:
        out_of_memory_first(0)
        prctl(PR_SET_DUMPABLE, 0)  # no cell of this session, though it has the same user id, may look into it or trace it
        order, fds = receive(link)
        if order["op"] == "fork":
            link = branch(link, fds, order["folder"])
            continue
        randomness = getstate()  # `random` reseeds itself in a child; a cell's seed must hold in the next cell
        try:
            child = fork()
        except OSError:
            _close(fds)
            link.send(b'{"exit": "no fork"}')
            continue
        if child == 0:
            setstate(randomness)
            link.close()
            link, code = enter(fds, order)
            report(link, runner_cell.run(code, order["number"], namespace, settings))
        else:
            _close(fds)
            link.send(json.dumps(wait(child)).encode())


def branch(link: socket.socket, fds: list[int], folder: str) -> socket.socket:
    """Fork a second session. Returns the link to serve: in the new session, its own."""
    randomness = getstate()
    try:
        child = fork()
    except OSError:
        child = -1
    if child:
        _close(fds)
        return link
    setstate(randomness)
    link.close()
    os.setsid()
    settle(folder, None)
    link = socket.socket(fileno=fds[0])
    link.send(b"ready")
    return link


def enter(fds: list[int], order: dict[str, Any]) -> tuple[socket.socket, str]:
    """Make this child the place where the cell runs: its own process group, streams, limits. Returns its link and the code."""
    global _cell_pid
    _cell_pid = getpid()
    os.setsid()
    prctl(PR_SET_DUMPABLE, 1)  # its own /proc files are its own again
    out_of_memory_first(1000)
    link_fd, out, err, *source = fds
    null = os.open(os.devnull, os.O_RDWR)
    for new, old in ((null, 0), (out, 1), (err, 2)):
        os.dup2(new, old)
    code = order["code"] if not source else read(source[0]).decode("utf-8", "surrogatepass")
    _close([null, out, err, *source])
    resource.setrlimit(resource.RLIMIT_CPU, (order["cpu_s"], resource.RLIM_INFINITY))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    runner_cell.streams()
    return socket.socket(fileno=link_fd), code


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
    them, and becomes the session in this process's place, which waits here to be killed."""
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


def wait(child: int) -> dict[str, Any]:
    """How the child ended: its exit code, negative for a signal, and the CPU time that it used."""
    try:
        _, status, usage = wait4(child, 0)
        return {"exit": waitstatus_to_exitcode(status), "cpu": usage.ru_utime + usage.ru_stime}
    except ChildProcessError:  # a cell made the kernel forget its children
        return {"exit": None}


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
