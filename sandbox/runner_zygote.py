"""The zygote: it makes the imports once and forks session processes. It never sees anything of a session, so that nothing of
one can be found in the memory of the next.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Any, NoReturn

import runner_figures
import runner_guard
import runner_links as links
import runner_session
from runner_system import huge_pages, one_arena, raw_fork

PRELOAD = ["numpy", "numpy.random", "sympy", "mpmath", "networkx", "fractions", "decimal", "statistics", "datetime"]


def serve(link: socket.socket, settings: dict[str, Any]) -> NoReturn:
    """Make the imports, say so, and fork a session process for each order, until the link closes."""
    for name in ("OPENBLAS", "OMP", "MKL", "NUMEXPR"):
        os.environ.setdefault(f"{name}_NUM_THREADS", "1")  # threads do not survive a fork
    one_arena()
    for name in PRELOAD:
        with suppress(ImportError):
            importlib.import_module(name)
    runner_figures.quiet()
    settings["filters"] = runner_guard.filters(settings["shared"])
    os.environ.update(USER="sandbox", LOGNAME="sandbox")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    gc.collect()
    gc.freeze()
    if settings["shared"]:  # in a container for one session they would cost more time than its few forks can save
        huge_pages()
    sys.stdout.flush()  # what stands in a buffer at a fork is written twice
    sys.stderr.flush()
    link.send(b"ready")
    while True:
        data, fds, _, _ = socket.recv_fds(link, 65536, 1)
        if not data:
            os._exit(0)
        if raw_fork() == 0:
            if raw_fork():
                os._exit(0)  # the session process is to be the wire process's child, who then learns how it ends
            link.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            (uid,), (folder, scratch) = links.unpack(data)
            runner_session.start(socket.socket(fileno=fds[0]), settings, int(uid), str(folder), scratch)
        os.close(fds[0])
