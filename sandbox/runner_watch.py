"""One cell as the wire process sees it: its pipes, its report, its clock."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import struct
import time
from contextlib import suppress
from typing import Any

from runner_cell import clip
from runner_output import Kept
from runner_processes import oom_kills
from runner_wire import Wire

PACKET = 1 << 20
OUTCOMES = ("ok", "error", "memory")  # what a child may say of itself


class CellRun:
    """The descriptors and the clock of one cell. Making it sends the cell to the session process; `watch` sees it through."""

    def __init__(
        self, wire: Wire, session_link: socket.socket, settings: dict[str, Any], code: str, number: int, timeout: float
    ) -> None:
        self.wire, self.session_link, self.settings, self.timeout = wire, session_link, settings, timeout
        self.exited: dict[str, Any] | None = None
        self.silent = False  # whether the child has closed its link
        self.pid = 0
        self.oom = oom_kills()
        self.out, self.err = Kept(self.settings["output_chars"]), Kept(self.settings["output_chars"])
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.link.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # the kernel vouches for the sender's process id
        self.link.setblocking(False)
        pipes = [os.pipe(), os.pipe()]
        self.pipes = {pipes[0][0]: self.out, pipes[1][0]: self.err}
        source = os.memfd_create("cell")
        data = code.encode("utf-8", "surrogatepass")
        while data:
            data = data[os.pwrite(source, data, os.fstat(source).st_size) :]
        request = {"number": number, "cpu_s": int(timeout * max(1.0, self.settings["cpus"])) + 2}
        self.orphan = False  # whether the session process is dead
        given = [theirs.fileno(), pipes[0][1], pipes[1][1], source]
        try:
            socket.send_fds(session_link, [json.dumps(request).encode()], given)
        except OSError:
            self.orphan = True  # it died since the last cell: a thread of that one, say
        theirs.close()
        for fd in given[1:]:
            os.close(fd)
        for fd in self.pipes:
            os.set_blocking(fd, False)

    def watch(self, deadline: float) -> dict[str, Any]:
        """Wait for the child's report, its end, or for a limit to strike.

        A child whose session process has died may still end well and become the session.
        """
        with selectors.DefaultSelector() as selector:
            ends: tuple[int | socket.socket, ...] = (self.wire.read_fd, self.session_link, self.link, *self.pipes)
            for end in ends:
                selector.register(end, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                ready = {key.fileobj for key, _ in selector.select(left)}
                if self.wire.read_fd in ready:
                    self.wire.fill()
                for fd in self.pipes:
                    if fd in ready and not self.pull(fd):
                        selector.unregister(fd)
                if self.out.seen + self.err.seen > self.settings["output_hard_mb"] << 20:
                    return {"outcome": "output", "error": f"stopped: it printed more than {self.settings['output_hard_mb']} MiB"}
                if self.link in ready:
                    if (report := self.child_says()) is not None:
                        return report
                    selector.unregister(self.link)
                    self.silent = True
                if self.session_link in ready:
                    if self.session_says(0):
                        return self.ended()
                    selector.unregister(self.session_link)
                    self.orphan = True
                if self.silent and self.orphan:
                    return {"outcome": "crashed", "error": "it killed its session process and died"}
        return {"outcome": "timeout", "error": f"stopped: it ran longer than {self.timeout:g} s"}

    def pull(self, fd: int) -> bool:
        """Take what is in a pipe. False at its end."""
        try:
            chunk = os.read(fd, 1 << 16)
        except BlockingIOError:
            return True
        self.pipes[fd].feed(chunk)
        return bool(chunk)

    def drain(self) -> None:
        """What the pipes still hold, and no more: a stray process may go on writing."""
        for fd, kept in self.pipes.items():
            with suppress(BlockingIOError):
                kept.feed(os.read(fd, 1 << 20))

    def child_says(self) -> dict[str, Any] | None:
        """The child's report, checked: it is the word of code that nobody trusts. None if it closed its link."""
        try:
            data, ancillary, _, _ = self.link.recvmsg(PACKET, socket.CMSG_SPACE(12))
        except OSError:
            return None
        credentials = [value for level, kind, value in ancillary if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)]
        try:
            report = json.loads(data)
            outcome = report["outcome"]
            texts = {name: report.get(name) for name in ("value", "error", "traceback")}
            sound = all(text is None or isinstance(text, str) for text in texts.values())
            if outcome not in OUTCOMES or not credentials or not sound:
                raise ValueError
        except Exception:  # not JSON, or JSON of any other shape
            return None if not data else {"outcome": "crashed", "error": "the cell broke its interpreter"}
        self.pid = struct.unpack("3i", credentials[0])[0]
        most = self.settings["output_chars"] + 200
        return {"outcome": outcome} | {name: text and clip(clean(text), most) for name, text in texts.items()}

    def session_says(self, seconds: float) -> bool:
        """Read the session process's word on how its child ended. False when the session process is dead or mute."""
        link = self.session_link
        link.settimeout(max(seconds, 0.0))
        try:
            self.exited = dict(json.loads(link.recv(4096)))
        except Exception:  # it is dead, mute, or what a cell has made of it
            return False
        finally:
            link.settimeout(None)
        return True

    def ended(self) -> dict[str, Any]:
        """Why a child ended that reported nothing."""
        code = (self.exited or {}).get("exit")
        if code == -signal.SIGKILL and oom_kills() > self.oom:
            return {"outcome": "memory", "error": f"killed: it used more than {self.settings['memory_mb']} MiB"}
        if code == -signal.SIGXCPU:
            return {"outcome": "timeout", "error": f"stopped: it used more CPU time than {self.timeout:g} s allow"}
        if isinstance(code, int) and code < 0:
            with suppress(ValueError):
                return {"outcome": "crashed", "error": f"its process was killed by {signal.Signals(-code).name}"}
        return {"outcome": "crashed", "error": f"its process ended with exit code {code}"}

    def output(self) -> dict[str, Any]:
        (out, out_dropped), (err, err_dropped) = self.out.text(), self.err.text()
        return {"stdout": out, "stderr": err, "dropped": out_dropped + err_dropped}

    def close(self, keep: bool) -> None:
        for fd in self.pipes:
            os.close(fd)
        if not keep:
            self.link.close()


def clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
