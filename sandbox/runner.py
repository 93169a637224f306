"""The wire process: it speaks to the host, has a session process run the cells, and holds all of it to its limits.

In a container it is process 1: when it ends, everything ends, and nothing inside can kill it. It ends when its standard input
closes, so a host that dies takes its containers with it. PROTOCOL.md describes the messages and the life of a cell.

    wire process  --fork-->  session process (the variables)  --fork, per cell-->  child (becomes the session, or is killed)
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any, NoReturn

import runner_session
from runner_processes import Processes
from runner_watch import CellRun
from runner_wire import Wire

PRELOAD = ["numpy", "sympy", "mpmath", "networkx", "fractions", "decimal", "statistics", "itertools", "collections", "datetime"]


class Runner:
    """One session, and the cell that runs in it."""

    def __init__(self, wire: Wire, settings: dict[str, Any]) -> None:
        self.wire, self.settings = wire, settings
        self.processes = Processes()
        self.number = 0
        self.start()

    def start(self) -> None:
        """Fork a session process with no variables."""
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        sys.stderr.flush()
        self.session = os.fork()
        if self.session == 0:
            runner_session.start(theirs, self.settings)
        theirs.close()

    def run(self, request: dict[str, Any]) -> None:
        """Run one cell, answer, and leave nothing running but the session."""
        self.number += 1
        timeout = float(request["timeout_s"])
        cell = CellRun(self.wire, self.link, self.settings, request["code"], self.number, timeout)
        began = time.monotonic()
        reply = cell.watch(began + timeout)
        keep = bool(request["keep"]) and reply["outcome"] in ("ok", "error")
        lost = False
        if keep:
            cell.drain()
            self.link.close()
            self.link, self.session = cell.link, cell.pid
        else:
            lost = not self.step_back(cell)
        cell.close(keep)
        if lost:
            self.processes.purge(None)
            self.link.close()
            self.start()
        reply |= cell.output()
        self.wire.send({"id": request["id"], "lost": lost, "duration_s": round(time.monotonic() - began, 6), **reply})
        self.processes.purge(self.session)

    def step_back(self, cell: CellRun) -> bool:
        """Kill all but the session process, which then says that its child has ended and can serve again. False if it is dead."""
        self.processes.purge(self.session)
        cell.drain()
        with suppress(ProcessLookupError):
            os.kill(self.session, signal.SIGCONT)  # a cell may have stopped it
        return bool(cell.exited) or (not cell.orphan and cell.session_says(5))

    def end(self) -> NoReturn:
        self.processes.purge(None)
        os._exit(0)


def main() -> None:
    settings = json.loads(sys.argv[1])
    settings["container"] = os.getpid() == 1
    wire = Wire(os.dup(0), os.dup(1))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)  # what an import prints must not reach the wire
    for name in ("OPENBLAS", "OMP", "MKL", "NUMEXPR"):
        os.environ.setdefault(f"{name}_NUM_THREADS", "1")  # threads do not survive a fork
    for name in PRELOAD:
        with suppress(ImportError):
            importlib.import_module(name)
    runner_session.prctl(runner_session.PR_SET_CHILD_SUBREAPER, 1)
    runner_session.prctl(runner_session.PR_SET_DUMPABLE, 0)  # cells have the same user id: close /proc/1 to them
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 is deaf to signals without a handler
    gc.collect()
    gc.freeze()
    runner = Runner(wire, settings)
    wire.send({"hello": 1, "python": sys.version.split()[0]})
    try:
        while True:
            runner.run(wire.receive())
    except (EOFError, BrokenPipeError):
        runner.end()


if __name__ == "__main__":
    main()
