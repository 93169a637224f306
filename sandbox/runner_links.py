"""The links between processes: messages of JSON that may carry descriptors, and carry their sender's process id."""

from __future__ import annotations

import json
import os
import socket
import struct
from contextlib import suppress
from typing import Any

PACKET = 1 << 20
FDS = 4  # the most descriptors that a message may carry


def pair() -> tuple[socket.socket, socket.socket]:
    """Our end, where the kernel vouches for the sender's process id, and theirs."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return ours, theirs


def receive(link: socket.socket) -> tuple[bytes, int, list[int]]:
    """The next message, its sender's process id, and its descriptors. Empty at the end, or when the link is broken."""
    room = socket.CMSG_SPACE(12) + socket.CMSG_SPACE(4 * FDS)
    try:
        data, ancillary, _, _ = link.recvmsg(PACKET, room, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
    except OSError:
        return b"", 0, []
    pid = 0
    fds: list[int] = []
    for level, kind, value in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            pid = struct.unpack("3i", value)[0]
        elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds += struct.unpack(f"{len(value) // 4}i", value[: len(value) // 4 * 4])
    return data, pid, fds


def parse(data: bytes) -> dict[str, Any]:
    """The word of a process that nobody trusts, as far as it is an object; else an empty one."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def drop(fds: list[int]) -> None:
    for fd in fds:
        with suppress(OSError):
            os.close(fd)
