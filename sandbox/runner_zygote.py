"""The zygote: it makes the imports once and forks session processes. It never sees anything of a session, so that nothing of
one can be found in the memory of the next.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Any, NoReturn

import runner_session

PRELOAD = ["numpy", "sympy", "mpmath", "networkx", "fractions", "decimal", "statistics", "itertools", "collections", "datetime"]


def serve(link: socket.socket, settings: dict[str, Any]) -> NoReturn:
    """Make the imports, say so, and fork a session process for each order, until the link closes."""
    for name in ("OPENBLAS", "OMP", "MKL", "NUMEXPR"):
        os.environ.setdefault(f"{name}_NUM_THREADS", "1")  # threads do not survive a fork
    for name in PRELOAD:
        with suppress(ImportError):
            importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    gc.collect()
    gc.freeze()
    sys.stdout.flush()  # what stands in a buffer at a fork is written twice
    sys.stderr.flush()
    link.send(b"ready")
    while True:
        data, fds, _, _ = socket.recv_fds(link, 65536, 1)
        if not data:
            os._exit(0)
        if os.fork() == 0:
            if os.fork():
                os._exit(0)  # the session process is to be the wire process's child, who then learns how it ends
            link.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            runner_session.start(socket.socket(fileno=fds[0]), settings, json.loads(data))
        os.close(fds[0])
