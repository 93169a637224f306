"""The links between processes: messages that may carry descriptors, and carry their sender's process id.

A message is a line of words, and texts whose lengths are among them. (JSON would be as good, but its encoder and decoder touch some
hundred kilobytes of memory, all of it copied after each fork.)
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress

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


def pack(words: list[str], texts: list[str | None]) -> bytes:
    """A message. Words hold no blanks; texts may be anything, or None."""
    pieces = [b"" if text is None else text.encode("utf-8", "surrogatepass") for text in texts]
    sizes = ["-" if text is None else str(len(piece)) for text, piece in zip(texts, pieces, strict=True)]
    return b"".join([" ".join([*words, "|", *sizes]).encode(), b"\n", *pieces])


def unpack(data: bytes) -> tuple[list[str], list[str | None]]:
    """The words and texts of a message. Raises ValueError on any other bytes: a sender may be one that nobody trusts."""
    line, found, rest = data.partition(b"\n")
    words, bar, sizes = line.decode("ascii").partition("|")
    if not found or not bar:
        raise ValueError("no message")
    texts: list[str | None] = []
    at = 0
    for size in sizes.split():
        if size == "-":
            texts.append(None)
            continue
        end = at + int(size)
        if not at <= end <= len(rest):
            raise ValueError("a text is cut off")
        texts.append(rest[at:end].decode("utf-8", "surrogatepass"))
        at = end
    return words.split(), texts


def drop(fds: list[int]) -> None:
    for fd in fds:
        with suppress(OSError):
            os.close(fd)
