"""The session process: it holds the variables, and forks a child for each cell.

The child runs the cell, reports, and goes on as the session process itself, in the same loop; the wire process then kills the
parent. When the cell hangs, dies or is not to be kept, the wire process kills the child instead, and the parent still stands
with the state from before.

Nothing here is trusted by the wire process once the first cell has run.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import sys
import types
from contextlib import suppress
from os import _exit, close, fork, getpid, waitpid, waitstatus_to_exitcode  # a cell may replace those of `os`
from random import getstate, setstate
from typing import Any, NoReturn

import runner_cell

INT_DIGITS = 100_000  # printing 2000! is fair; 10**10**7 would take hours
PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36

_cell_pid = 0  # the process that runs the cell, so that one which the cell forks knows that it is another


def start(link: socket.socket, settings: dict[str, Any]) -> NoReturn:
    """Become a session process, in a fresh fork of the wire process, and serve cells until the link closes."""
    quarantine(link.fileno())
    prctl(PR_SET_DUMPABLE, 1)  # its own /proc files are its own again
    if settings["container"]:
        os.nice(10)  # within the container only: the wire process gets its turn among many cell processes
    limit(settings)
    sys.set_int_max_str_digits(INT_DIGITS)
    sys.argv, sys.path[0] = [""], ""
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # else all sessions of one parent would draw the same numbers
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    serve(link, module.__dict__, settings)


def serve(link: socket.socket, namespace: dict[str, Any], settings: dict[str, Any]) -> NoReturn:
    """One turn of the loop is one cell. Parent and child both come round again; the wire process lets one of them live."""
    while True:
        out_of_memory_first(0)
        request, fds = receive(link)
        randomness = getstate()  # `random` reseeds itself in a child; a cell's seed must hold in the next cell
        try:
            child = fork()
        except OSError as error:
            link.send(json.dumps({"exit": -1, "error": str(error)}).encode())
            _close(fds)
            continue
        if child == 0:
            setstate(randomness)
            link.close()
            link, code = enter(fds, request["cpu_s"])
            report(link, runner_cell.run(code, request["number"], namespace, settings["output_chars"]))
        else:
            _close(fds)
            link.send(json.dumps({"exit": wait(child)}).encode())


def enter(fds: list[int], cpu_s: int) -> tuple[socket.socket, str]:
    """Make this child the place where the cell runs: its own session, streams, limits. Returns its link and the code."""
    global _cell_pid
    _cell_pid = getpid()
    os.setsid()
    out_of_memory_first(1000)
    link_fd, out, err, source = fds
    null = os.open(os.devnull, os.O_RDWR)
    for new, old in ((null, 0), (out, 1), (err, 2)):
        os.dup2(new, old)
    with open(source, "rb", closefd=False) as file:
        code = file.read().decode("utf-8", "surrogatepass")
    _close([null, out, err, source])
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, resource.RLIM_INFINITY))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    runner_cell.streams()
    return socket.socket(fileno=link_fd), code


def report(link: socket.socket, result: dict[str, str | None]) -> None:
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
    try:
        link.send(json.dumps(result).encode())
    except OSError:  # longer than a packet
        link.send(json.dumps({"outcome": result["outcome"], "error": result.get("error"), "value": None}).encode())


def shed_threads() -> None:
    """Leave daemon threads behind: in the idle session they would go on working, and use up its CPU time. A fork has none of
    them, and becomes the session in this process's place, which waits here to be killed."""
    if len(os.listdir("/proc/self/task")) > 1:
        randomness = getstate()
        if fork():
            while True:
                signal.pause()
        setstate(randomness)


def receive(link: socket.socket) -> tuple[dict[str, Any], list[int]]:
    data, fds, _, _ = socket.recv_fds(link, 65536, 8)
    if not data:
        _exit(0)
    for fd in fds:
        os.set_inheritable(fd, False)
    return json.loads(data), fds


def wait(child: int) -> int:
    """The exit code of the child, negative for a signal."""
    try:
        return waitstatus_to_exitcode(waitpid(child, 0)[1])
    except ChildProcessError:  # a cell made the kernel forget its children
        return -1


def limit(settings: dict[str, Any]) -> None:
    """Bounds that a cell cannot lift. Address space is counted on top of what the imports take."""
    mib = 1 << 20
    with open("/proc/self/statm") as file:
        base = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    for what, most in (
        (resource.RLIMIT_AS, base + settings["memory_mb"] * mib),
        (resource.RLIMIT_FSIZE, settings["disk_mb"] * mib),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CORE, 0),
    ):
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


def prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def out_of_memory_first(score: int) -> None:
    """Whom the kernel kills first when the container is full: a running cell, so that the session survives it."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(score))


def _close(fds: list[int]) -> None:
    for fd in fds:
        close(fd)
