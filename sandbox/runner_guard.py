"""What the kernel lets no cell do: a filter of system calls, and a say in whom a cell may signal.

All processes of a session have one user id, so the kernel alone would let a cell kill the process that holds its session's
state. Where the kernel can, it asks the wire process about each signal that a cell sends.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import select
import struct
from collections.abc import Callable
from contextlib import suppress

from runner_system import PR_SET_NO_NEW_PRIVS, libc, prctl

ALLOW, ERRNO, NOTIFY = 0x7FFF0000, 0x00050000, 0x7FC00000
EPERM, EACCES, ENOSYS = 1, 13, 38
SECCOMP_SET_MODE_FILTER, NEW_LISTENER = 1, 8
RECEIVE, SEND, CONTINUE = 0xC0502100, 0xC0182101, 1
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
NUMBER = {"x86_64": 317, "aarch64": 277}.get(platform.machine(), -1)

# system calls by number: x86_64, aarch64
FORBIDDEN = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_send_signal": (424, 424),
    "io_uring_setup": (425, 425),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    "userfaultfd": (323, 282),
}
# between sessions in one container these would be a way past the user ids
SHARED = {"socket": (41, 198), "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180)}
SIGNALS = {
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
}
# of another process than the caller's own
OTHERS = {"prlimit64": (302, 261), "setpgid": (109, 154)}
# ways to have the kernel send a signal to somebody, or to hold up whoever opens a file: by the second argument
COMMANDS = {
    (72, 25): (8, 10, 15, 1024),  # fcntl: F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE
    (16, 29): (0x8901, 0x8902, 0x5410),  # ioctl: FIOSETOWN, SIOCSPGRP, TIOCSPGRP
}
ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}


def program(shared: bool, notify: bool) -> bytes:
    """The filter, in the kernel's classic BPF. What is neither forbidden nor a signal is allowed."""
    architecture, column = ARCHITECTURES[platform.machine()]
    code = [(LOAD, 0, 0, 4), (JUMP_EQUAL, 1, 0, architecture), (RETURN, 0, 0, ERRNO | ENOSYS), (LOAD, 0, 0, 0)]
    if column == 0:
        code += [(JUMP_AT_LEAST, 0, 1, 0x40000000), (RETURN, 0, 0, ERRNO | ENOSYS)]  # the x32 numbers
    refused = [(numbers[column], ERRNO | EPERM) for numbers in FORBIDDEN.values()]
    refused += [(numbers[column], ERRNO | EACCES) for numbers in SHARED.values() if shared]
    refused += [(numbers[column], NOTIFY) for numbers in SIGNALS.values() if notify]
    for number, verdict in refused:
        code += [(JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, verdict)]
    for numbers in OTHERS.values():  # the first argument is 0 for oneself
        code += [(JUMP_EQUAL, 0, 4, numbers[column]), (LOAD, 0, 0, 16), (JUMP_EQUAL, 1, 0, 0), (RETURN, 0, 0, ERRNO | EPERM)]
        code += [(RETURN, 0, 0, ALLOW)]
    for numbers, commands in COMMANDS.items():
        code += [(JUMP_EQUAL, 0, 2 * len(commands) + 2, numbers[column]), (LOAD, 0, 0, 24)]
        for command in commands:
            code += [(JUMP_EQUAL, 0, 1, command), (RETURN, 0, 0, ERRNO | EPERM)]
        code += [(RETURN, 0, 0, ALLOW)]
    code += [(RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("HBBI", *line) for line in code)


def filters(shared: bool) -> tuple[bytes, bytes]:
    """The filter that asks about signals, and the one for kernels that can't ask. Empty on machines whose numbers are not known."""
    if platform.machine() not in ARCHITECTURES:
        return b"", b""
    return program(shared, notify=True), program(shared, notify=False)


def confine(choice: tuple[bytes, bytes], needed: bool) -> int | None:
    """Put this process and all its children under the filter, for good. The descriptor on which the kernel asks about signals, or
    None where it can't. Raises OSError where there are no filters and they are needed.
    """
    asking, silent = choice
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    if asking and (fd := install(asking, NEW_LISTENER)) >= 0:
        return fd
    if (not silent or install(silent, 0) < 0) and needed:
        raise OSError(ctypes.get_errno(), "this kernel or runtime has no filter of system calls")
    return None


def install(code: bytes, flags: int) -> int:
    buffer = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer)))
    return int(libc.syscall(NUMBER, SECCOMP_SET_MODE_FILTER, flags, header))


class Guard:
    """Answers the kernel's questions: may this process send that signal? `protected` are those that may not be signalled."""

    def __init__(self, fd: int, protected: Callable[[], set[int]]) -> None:
        self.fd, self.protected = fd, protected

    def hear(self) -> bool:
        """Answer one question. False when nobody is left who could ask."""
        poll = select.poll()
        poll.register(self.fd)
        if any(events & select.POLLHUP for _, events in poll.poll(0)):
            return False
        question = bytearray(80)
        with suppress(OSError):  # who asked may be dead
            fcntl.ioctl(self.fd, RECEIVE, question)
            (identity,) = struct.unpack_from("Q", question)
            (sender,) = struct.unpack_from("I", question, 8)
            (target,) = struct.unpack_from("i", question, 32)  # the first argument
            forbidden = self.forbidden(sender, target)
            answer = struct.pack("QqiI", identity, 0, -EPERM, 0) if forbidden else struct.pack("QqiI", identity, 0, 0, CONTINUE)
            fcntl.ioctl(self.fd, SEND, bytearray(answer))
        return True

    def forbidden(self, sender: int, target: int) -> bool:
        """Whether a signal to this process, or for 0 and below to this group, would reach a protected one."""
        protected = self.protected()
        if target > 0 or target == -1:
            return target == -1 or target in protected
        group = -target or group_of(sender)
        return any(group_of(pid) == group for pid in protected)

    def close(self) -> None:
        os.close(self.fd)


def group_of(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except OSError:
        return -1
