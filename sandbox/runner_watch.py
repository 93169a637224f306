"""One cell as the wire process sees it: its pipes, its report, its clocks."""

from __future__ import annotations

import base64
import os
import signal
import socket
import stat
import time
from typing import Any

import runner_links as links
from runner_cell import clip
from runner_output import Kept
from runner_processes import cpu_s

INLINE = 1 << 13  # characters; code up to this length goes with the message, longer code in a memory file
STOPPED = ("memory", "processes", "open_files", "file_size", "disk")  # a child may say that it met one of these limits
OUTCOMES = ("ok", "error", *STOPPED)
PNG = b"\x89PNG\r\n\x1a\n"


class CellRun:
    """The output and the clocks of one cell; `report` says how it ended."""

    def __init__(self, settings: dict[str, Any], request: dict[str, Any], pid: int) -> None:
        self.pid, self.started_s = pid, cpu_s(pid)
        self.settings, self.timeout, self.keep = settings, float(request["timeout_s"]), bool(request["keep"])
        self.request, self.id, self.code = request, request["id"], str(request["code"])
        self.ordered = self.began = time.monotonic()
        self.deadline = self.began + self.timeout
        self.begun = False  # whether it is known to have begun: its past is there
        self.sheds = False  # whether its process has said that another takes over, without its threads
        self.cpu_s = settings["cell_cpu_s"] or self.timeout * max(1.0, settings["cpus"]) + 2
        self.report: dict[str, Any] | None = None
        self.figures: list[str] = []
        self.mapped = False
        self.out, self.err = Kept(settings["output_chars"]), Kept(settings["output_chars"])
        self.delivered = self.forked = True  # whether the session process took the order, and could leave a past behind
        self.again = False  # whether this is the second try

    def send(self, session_link: socket.socket, number: int, done: int, past: int, pipes: list[int]) -> None:
        """Order it of the session process, which gives the link `past` to the copy of itself that it leaves behind. `done` are the
        cells that its state is to be the result of.
        """
        inline = len(self.code) <= INLINE
        source = [] if inline else [memory_file(self.code.encode("utf-8", "surrogatepass"))]
        order = links.pack(["run", str(number), str(int(self.cpu_s) + 1), str(done)], [self.code if inline else None])
        try:
            socket.send_fds(session_link, [order], [past, *pipes, *source])
        except OSError:
            self.undelivered()
        links.drop(source)

    def undelivered(self) -> None:
        self.delivered = False
        self.stop("crashed", "not run: its session process was dead")

    def look(self, now: float, *, begun: bool) -> None:
        """Note whether it has begun. The time until then is none of its own: its clock starts when it is first seen to run."""
        self.begun = begun
        if not begun:
            self.began, self.deadline = now, now + self.timeout

    def feed(self, kept: Kept, data: bytes) -> None:
        """Take output. Too much of it ends the cell."""
        kept.feed(data)
        if self.out.seen + self.err.seen > self.settings["output_hard_mb"] << 20 and self.report is None:
            self.stop("output", f"stopped: it printed more than {self.settings['output_hard_mb']} MiB")

    def stop(self, outcome: str, error: str) -> None:
        if self.report is None:
            self.report = {"outcome": outcome, "error": error}

    def hear(self, data: bytes, pid: int, fds: list[int]) -> None:
        """Take the process's report, checked: it is the word of code that nobody trusts. What others say on its link is no report:
        processes that the cell forked hold the link too, and what they say may still stand in it when they are dead.
        """
        if pid != self.pid and not self.sheds:
            links.drop(fds)
            return
        try:
            (outcome, *words), texts = links.unpack(data)
            if outcome == "sheds":
                self.sheds = True
                return
            if outcome == "no-fork":
                self.stop("processes", "not run: the session's processes are at their limit")
                self.forked = False
                return
            if outcome == "stale":
                self.undelivered()
                return
            if outcome not in OUTCOMES:
                raise ValueError
            names, most = ("value", "error", "traceback"), self.settings["output_chars"] + 200
            kept = {name: text and clip(clean(text), most) for name, text in zip(names, texts, strict=True)}
            if fds:
                self.figures = pictures(fds[0], [int(word) for word in words[1:]], self.settings)
            self.pid, self.mapped, self.report = pid, words[0] != "plain", {"outcome": outcome, **kept}
        except (ValueError, IndexError):
            self.stop("crashed", "the cell broke its interpreter")
        finally:
            links.drop(fds)

    def ended(self, code: int | None, oom: bool) -> None:
        """Why its process ended, if it reported nothing: by its exit code, negative for a signal."""
        if code == -signal.SIGKILL and oom:
            self.stop("memory", f"killed: it used more than {self.settings['memory_mb']} MiB")
        elif code == -signal.SIGXCPU:
            self.stop("cpu", self.cpu_words())
        elif code is not None and code < 0:
            self.stop("crashed", f"its process was killed by {signal_name(-code)}")
        else:
            self.stop("crashed", f"its process ended with exit code {'unknown' if code is None else code}")

    def cpu_words(self) -> str:
        return f"stopped: it used more CPU time than {self.cpu_s:g} s"

    def result(self) -> dict[str, Any]:
        (out, out_dropped), (err, err_dropped) = self.out.text(), self.err.text()
        printed = {"stdout": out, "stderr": err, "dropped": out_dropped + err_dropped, "figures": self.figures}
        return {"id": self.id, "duration_s": round(time.monotonic() - self.began, 6), **printed, **(self.report or {})}


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def memory_file(data: bytes) -> int:
    fd = os.memfd_create("cell")
    at = 0
    while at < len(data):
        at += os.pwrite(fd, data[at:], at)
    return fd


def pictures(fd: int, sizes: list[int], settings: dict[str, Any]) -> list[str]:
    """The PNG files that lie one after the other in a file, in base64. What is none, or too much, is left out."""
    found: list[str] = []
    at, most = 0, settings["figures_mb"] << 20
    if not stat.S_ISREG(os.fstat(fd).st_mode):  # reading anything else could block
        return found
    for size in sizes[: settings["figures"]]:
        if not 0 < size <= most - at:
            break
        data = os.pread(fd, size, at)
        if len(data) == size and data.startswith(PNG):
            found.append(base64.b64encode(data).decode())
        at += size
    return found


def clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
