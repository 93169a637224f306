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
import selectors
import signal
import socket
import struct
import sys
import time
from contextlib import suppress
from typing import Any, NoReturn

for _name in ("OPENBLAS", "OMP", "MKL", "NUMEXPR"):
    os.environ.setdefault(f"{_name}_NUM_THREADS", "1")  # threads do not survive a fork

import runner_session
from runner_cell import clip
from runner_output import Kept
from runner_processes import Processes, oom_kills

PRELOAD = (
    "numpy",
    "sympy",
    "mpmath",
    "networkx",
    "fractions",
    "decimal",
    "itertools",
    "collections",
    "statistics",
    "re",
    "datetime",
)
MAX_FRAME = 16 << 20
PACKET = 1 << 20
OUTCOMES = ("ok", "error", "memory")  # what a child may say of itself


class Wire:
    """Frames of JSON over two descriptors: four bytes of length, big-endian, then UTF-8."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd, self.write_fd = read_fd, write_fd
        self.buffer = bytearray()

    def fill(self) -> None:
        """Read what is there. Ends the process when the host has gone, or talks nonsense."""
        chunk = os.read(self.read_fd, 1 << 16)
        if not chunk:
            raise EOFError
        self.buffer += chunk

    def receive(self) -> dict[str, Any]:
        while True:
            if len(self.buffer) >= 4:
                (size,) = struct.unpack_from(">I", self.buffer)
                if size > MAX_FRAME:
                    raise EOFError
                if len(self.buffer) >= 4 + size:
                    frame = json.loads(bytes(self.buffer[4 : 4 + size]))
                    del self.buffer[: 4 + size]
                    return dict(frame)
            self.fill()

    def send(self, frame: dict[str, Any]) -> None:
        body = json.dumps(frame).encode()
        data = memoryview(struct.pack(">I", len(body)) + body)
        while data:
            data = data[os.write(self.write_fd, data) :]


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
        cell = CellRun(self, request["code"], timeout)
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


class CellRun:
    """The descriptors and the clock of one cell, from the wire process's side."""

    def __init__(self, runner: Runner, code: str, timeout: float) -> None:
        self.runner = runner
        self.settings = runner.settings
        self.timeout = timeout
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
        request = {"number": runner.number, "cpu_s": int(timeout * max(1.0, self.settings["cpus"])) + 2}
        self.orphan = False  # whether the session process is dead
        given = [theirs.fileno(), pipes[0][1], pipes[1][1], source]
        try:
            socket.send_fds(runner.link, [json.dumps(request).encode()], given)
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
            for source in (self.runner.wire.read_fd, self.runner.link, self.link, *self.pipes):
                selector.register(source, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                ready = {key.fileobj for key, _ in selector.select(left)}
                if self.runner.wire.read_fd in ready:
                    self.runner.wire.fill()
                for fd in ready & self.pipes.keys():
                    if not self.pull(fd):
                        selector.unregister(fd)
                if self.out.seen + self.err.seen > self.settings["output_hard_mb"] << 20:
                    return {"outcome": "output", "error": f"stopped: it printed more than {self.settings['output_hard_mb']} MiB"}
                if self.link in ready:
                    if (report := self.child_says()) is not None:
                        return report
                    selector.unregister(self.link)
                    self.silent = True
                if self.runner.link in ready:
                    if self.session_says(0):
                        return self.ended()
                    selector.unregister(self.runner.link)
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
            assert outcome in OUTCOMES and credentials and all(isinstance(text, (str, type(None))) for text in texts.values())
        except Exception:
            return None if not data else {"outcome": "crashed", "error": "the cell broke its interpreter"}
        self.pid = struct.unpack("3i", credentials[0])[0]
        most = self.settings["output_chars"] + 200
        return {"outcome": outcome} | {name: text and clip(clean(text), most) for name, text in texts.items()}

    def session_says(self, seconds: float) -> bool:
        """Read the session process's word on how its child ended. False when the session process is dead or mute."""
        link = self.runner.link
        link.settimeout(max(seconds, 0.0))
        try:
            self.exited = dict(json.loads(link.recv(4096)))
        except (OSError, ValueError):
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


def main() -> None:
    settings = json.loads(sys.argv[1])
    settings["container"] = os.getpid() == 1
    wire = Wire(os.dup(0), os.dup(1))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)  # what an import prints must not reach the wire
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
