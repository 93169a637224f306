"""System calls that Python's library lacks."""

from __future__ import annotations

import ctypes
import socket

PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_CHILD_SUBREAPER = 4, 38, 36

libc = ctypes.CDLL(None, use_errno=True)
_python = ctypes.PyDLL(None)  # calls through it keep the interpreter's lock: nothing else runs, in parent or child
_prctl = libc.prctl
_recv = _python.recv
_byte = ctypes.create_string_buffer(1)

# `os.fork` has the child run a dozen handlers at once, which touch (and so copy) many pages of memory. A past needs them only if it
# is ever woken.
raw_fork = _python.fork
after_fork = _python.PyOS_AfterFork_Child


def peek(fd: int) -> int:
    """Wait for a message and leave it there; 0 or less at the end."""
    return int(_recv(fd, _byte, 1, socket.MSG_PEEK))


def prctl(option: int, value: int) -> None:
    _prctl(option, value, 0, 0, 0)
