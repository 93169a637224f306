"""System calls that Python's library lacks."""

from __future__ import annotations

import ctypes
import socket
from contextlib import suppress

M_ARENA_MAX = -8
HUGE, MADV_COLLAPSE = 1 << 21, 25
PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_CHILD_SUBREAPER = 4, 38, 36

libc = ctypes.CDLL(None, use_errno=True)
_python = ctypes.PyDLL(None)  # calls through it keep the interpreter's lock: nothing else runs, in parent or child
_prctl = libc.prctl
_recv = _python.recv
_byte = ctypes.create_string_buffer(1)

# `os.fork` has the child run a dozen handlers, which touch (and so copy) some hundred pages of memory and reseed `random`. They put
# threads and locks in order; where there is one thread and nobody holds a lock they are not needed.
raw_fork = _python.fork


def peek(fd: int) -> int:
    """Wait for a message and leave it there; 0 or less at the end."""
    for _ in range(1000):  # a signal may interrupt it
        if (count := int(_recv(fd, _byte, 1, socket.MSG_PEEK))) >= 0:
            return count
    return -1


def prctl(option: int, value: int) -> None:
    _prctl(option, value, 0, 0, 0)


def one_arena() -> None:
    """Have malloc give threads no heap of their own: each takes 64 MiB of address space, which a session's memory limit counts."""
    with suppress(AttributeError):  # not glibc: there are no such heaps
        libc.mallopt(M_ARENA_MAX, 1)


def huge_pages() -> None:
    """Have the kernel put this process's memory into huge pages, as far as it can. A fork copies an entry for each page, and its
    end takes the entries down again: of huge ones there are far fewer, and only those that a cell writes to become small ones.
    """
    with open("/proc/self/maps") as file:
        for line in file:
            addresses, access, _, _, inode, *_ = line.split()
            if access.startswith("rw") and inode == "0":
                first, end = (int(address, 16) for address in addresses.split("-"))
                for at in range(-(-first // HUGE) * HUGE, end - HUGE + 1, HUGE):
                    libc.madvise(ctypes.c_void_p(at), ctypes.c_size_t(HUGE), MADV_COLLAPSE)
