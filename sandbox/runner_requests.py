"""One session as the wire process sees it: what the host asks of it, and how each cell ends.

A cell that does not stay has its process killed and the past woken, and the folder is put back.
"""

from __future__ import annotations

import base64
import os
import signal
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import runner_links as links
from runner_chain import Chain, Point
from runner_folder import Folder, Refused, TooMuch
from runner_guard import Guard
from runner_processes import cpu_s, living, memory_share, resident_mb
from runner_versions import Version
from runner_watch import CellRun

if TYPE_CHECKING:
    from runner import Runner

TICK_S = 0.1  # how often a running cell's CPU time and memory are looked at
BEGIN_S = 60.0  # how long a cell may take to begin, on a machine that has too much to do; less than the host's grace
FORKS_SHARE = 3  # times the memory limit, in all
CROWDED, CROWDED_EVERY = 0.5, 4  # of the container's memory: then only the present state is kept; looked at now and then


class Session(Chain):
    """The state machine of one session."""

    def __init__(self, runner: Runner, number: int, uid: int, folders: list[Folder]) -> None:
        super().__init__(runner, number, uid, folders)
        self.scratch = folders[-1].path if len(folders) > 1 else None
        self.pipes = [os.pipe(), os.pipe()]  # standard output and error of its cells; never at their end, since we hold both ends
        self.cells = 0
        self.cpu_s, self.printed = 0.0, 0
        for which, (reading, _) in enumerate(self.pipes):
            os.set_blocking(reading, False)
            runner.watch(reading, lambda which=which: self.guarded(self.on_output, which))  # type: ignore[misc]

    # what the host asks for

    def begin(self, question: int | None, lost: CellRun | None = None) -> None:
        """Start a fresh session process. When it is ready, answer the question; or a cell's, whose state is lost."""
        if question is not None:
            self.pending = question
        point = Point(self.runner.start_process(self), [Version() for _ in self.keepers])

        def born(fds: list[int]) -> None:
            self.unguard()
            if fds:
                self.guard = Guard(fds[0], self.protected)
                self.runner.watch(fds[0], self.ask_guard)
            point.versions = self.versions(point.versions, mapped=False)
            self.reply({"session": self.number} if lost is None else lost.result() | {"lost": True, "ran": lost.delivered})

        self.chain = [point]
        self.expect_ready(point, born, self.stillborn)

    def stillborn(self) -> None:
        raise RuntimeError("a session process could not be started")

    def do_run(self, request: dict[str, Any]) -> None:
        self.take(request["id"])
        self.cells += 1
        if (spent := self.spent()) is not None:
            self.reply({"outcome": spent[0], "error": spent[1]})
            return
        if self.cells % CROWDED_EVERY == 0 and len(self.chain) > 1 and memory_share() > CROWDED:
            self.trim(1)
        self.launch(request)

    def launch(self, request: dict[str, Any], again: bool = False) -> None:
        cell = self.cell = CellRun(self.settings, request, self.tip.pid)
        cell.again = again
        link, theirs = links.pair()
        self.chain.insert(-1, Point(link, self.tip.versions, self.tip.done))
        if self.tip.dead:  # since the last cell; its past has its end of the link too, so that sending would not fail
            cell.undelivered()
        else:
            cell.send(self.tip.link, self.cells, self.tip.done, theirs.fileno(), [writing for _, writing in self.pipes])
        theirs.close()
        self.stir(min(cell.deadline, cell.began + TICK_S))
        self.decided()

    def do_undo(self, request: dict[str, Any]) -> None:
        count = request["cells"]
        if not 0 < count < len(self.chain):
            raise Refused(f"{count} cells cannot be taken back: {len(self.chain) - 1} can")
        self.take(request["id"])
        self.go_back(count, self.undone)

    def undone(self) -> None:
        self.tip.versions = self.restored(self.tip.versions)
        self.reply({})

    def do_fork(self, request: dict[str, Any]) -> None:
        """Have the tip fork a second session, in a folder with the same content."""
        if len(self.runner.siblings(self)) >= self.settings["forks"]:
            raise Refused(f"{self.settings['forks']} forks are open already")
        self.take(request["id"])
        other = self.runner.place(self.uid, fork=True)
        other.guard = self.guard
        link, theirs = links.pair()
        point = Point(link, [other.keepers[0].restore(self.tip.versions[0])], self.tip.done)
        order = links.pack(["fork"], [other.folders[0].path])
        try:
            socket.send_fds(self.tip.link, [order], [theirs.fileno()])
        finally:
            theirs.close()
        other.chain = [point]

        def answer(said: dict[str, Any]) -> None:
            if self.pending == request["id"]:
                self.reply(said)
            else:  # this session is being closed meanwhile
                self.runner.wire.send({"id": request["id"], **said})

        def refused() -> None:
            other.chain.clear()
            other.vacate()
            answer({"refused": "the session's processes are at their limit"})

        other.expect_ready(point, lambda _: answer({"session": other.number}), refused)

    def do_put(self, request: dict[str, Any]) -> None:
        """A piece of a file. It stays when the last one has come, or none does."""
        self.idle()
        try:
            self.folders[0].put(request["path"], base64.b64decode(request["data"]), request["append"])
            if request["last"]:
                self.tip.versions = self.versions(self.tip.versions, mapped=False)
        except (Refused, TooMuch) as error:
            self.tip.versions = self.restored(self.tip.versions)
            raise Refused(str(error)) from error
        self.runner.wire.send({"id": request["id"]})

    def do_get(self, request: dict[str, Any]) -> None:
        self.idle()
        data, size = self.folders[0].get(request["path"], request["offset"], request["count"])
        self.runner.wire.send({"id": request["id"], "data": base64.b64encode(data).decode(), "size": size})

    def do_files(self, request: dict[str, Any]) -> None:
        self.idle()
        self.runner.wire.send({"id": request["id"], "files": self.folders[0].files()})

    def do_close(self, request: dict[str, Any]) -> None:
        """End the session, whatever it is doing."""
        self.cell = None
        self.pending = request["id"]
        while self.chain:
            self.discard(self.chain.pop())
        if self.settings["own_ids"] and not self.runner.siblings(self):
            self.processes.as_user(self.uid, signal.SIGKILL)
        self.settle(self.vacate)

    def vacate(self) -> None:
        """Give the folder back. The question is that of `close`, or none."""
        for folder in self.folders:
            folder.clear()
        self.unguard()
        for reading, writing in self.pipes:
            self.runner.forget(reading)
            links.drop([reading, writing])
        self.runner.closed(self)
        self.reply({})

    # what its processes say, and the clock

    def on_output(self, which: int) -> None:
        with suppress(BlockingIOError):
            data = os.read(self.pipes[which][0], 1 << 16)
            if self.cell is not None:
                self.cell.feed(self.cell.err if which else self.cell.out, data)
                self.decided()

    def on_report(self) -> None:
        data, pid, fds = links.receive(self.tip.link)
        if not data:
            self.runner.forget(self.tip.link.fileno())
        elif self.cell is not None and self.cell.report is None:
            self.cell.hear(data, pid, fds)
        else:
            links.drop(fds)
        self.decided()

    def on_end(self, point: Point) -> None:
        """The process that runs the cells is dead."""
        self.runner.forget(point.end)
        point.dead = True
        self.processes.reap()
        code, used = self.processes.exits.pop(point.pid, (None, 0.0))
        cell = self.cell
        if cell is None or not self.chain or point is not self.tip or self.then not in (None, self.commit):
            return
        data, pid, fds = links.receive(point.link)  # its last word may stand in the link yet
        if data and cell.report is None:
            cell.hear(data, pid, fds)
        if cell.report is not None and cell.report["outcome"] in ("ok", "error"):
            if cell.pid != point.pid:  # another takes over
                return
            cell.report = self.then = None  # it reported, and died
        self.cpu_s += max(0.0, used - cell.started_s)
        cell.ended(code, self.processes.oom_struck())
        self.decided()

    def tick(self) -> None:
        """The clock: limits of a running cell, or the end of the killed."""
        if self.unheard is not None:
            dead, self.unheard = self.unheard, None
            dead()
            return
        if self.then is not None:
            self.settle(self.then)
            return
        cell, now = self.cell, time.monotonic()
        if cell is None:
            return
        if self.tip.end < 0 and not living(self.tip.pid):
            self.on_end(self.tip)
            return
        if not cell.begun:
            self.know_past()
            cell.look(now, begun=self.chain[-2].pid != 0)
        if not cell.begun:
            if now < cell.ordered + BEGIN_S:
                self.stir(now + TICK_S)
                return
            cell.stop("timeout", f"not run: it did not begin within {BEGIN_S:g} s")
        elif now >= cell.deadline:
            cell.stop("timeout", f"stopped: it ran longer than {cell.timeout:g} s")
        else:
            pids = self.strays() | {self.tip.pid}
            used = sum(map(cpu_s, pids)) - cell.started_s
            if used > cell.cpu_s:
                cell.stop("cpu", cell.cpu_words())
            elif self.settings["watch_memory"] and self.own_mb(pids) > self.settings["memory_mb"]:
                cell.stop("memory", f"stopped: it used more than {self.settings['memory_mb']} MiB")
        self.stir(min(cell.deadline, now + TICK_S))
        self.decided()

    def own_mb(self, pids: set[int]) -> float:
        """What these processes take beyond the imports, which all sessions share. A forked one shares its parent's memory until it
        writes there, and how much it still shares is not to be seen from here: what others have up to the size of the session's
        own process counts as shared, but so many times the limit at most, since a program that was started anew shares nothing.
        """
        own = {pid: max(0.0, resident_mb([pid]) - float(self.settings["base_mb"])) for pid in pids}
        tip = own.pop(self.tip.pid)
        shared = sum(min(tip, one) for one in own.values())
        return tip + sum(own.values()) - min(shared, FORKS_SHARE * float(self.settings["memory_mb"]))

    # how a cell ends

    def decided(self) -> None:
        """Go on when it is known how the cell ended."""
        cell = self.cell
        if cell is None or cell.report is None or self.then is not None or self.unheard is not None:
            return
        if not cell.forked:
            self.discard(self.chain.pop(-2))
            self.cell = None
            if cell.again:
                self.reply(cell.result())
            else:  # the dead count until they are collected
                self.killed = True
                self.settle(lambda: self.launch(cell.request, again=True))
            return
        if cell.keep and cell.report["outcome"] in ("ok", "error"):
            self.settle(self.commit)
        else:
            self.know_past()
            self.cpu_s += max(0.0, cpu_s(self.tip.pid) - cell.started_s)
            self.go_back(1, self.stepped_back)

    def successor(self) -> int:
        return self.cell.pid if self.then == self.commit and self.cell is not None and self.cell.pid != self.tip.pid else 0

    def commit(self) -> None:
        cell = self.cell
        assert cell is not None
        if cell.pid == self.tip.pid and self.tip.has_ended():  # it said that all was well, and is dead
            self.on_end(self.tip)
            return
        self.drain(cell)
        try:
            versions = self.versions(self.tip.versions, cell.mapped)
        except TooMuch as error:
            cell.report = {"outcome": "disk", "error": f"stopped: {error}"}
            self.go_back(1, self.stepped_back)
            return
        self.cpu_s += max(0.0, cpu_s(cell.pid) - (cell.started_s if cell.pid == self.tip.pid else 0.0))
        if cell.pid != self.tip.pid:
            self.succeed(cell.pid)
        self.tip.versions, self.tip.done = versions, self.tip.done + 1
        self.cell = None
        self.printed += cell.out.seen + cell.err.seen
        self.reply(cell.result())
        self.trim(self.settings["undo_depth"] + 1)

    def stepped_back(self) -> None:
        cell = self.cell
        assert cell is not None
        self.drain(cell)
        self.cell = None
        self.printed += cell.out.seen + cell.err.seen
        self.tip.versions = self.restored(self.tip.versions)
        self.reply(cell.result() | {"ran": cell.delivered})

    def lose(self) -> None:
        """The state is lost: its process died after the cell that made it had said that all was well. The state before that cell
        comes back, if it is kept, and the host runs again what came after it; else all cells, in an empty folder.
        """
        cell, self.then = self.cell, None
        if cell is None:
            raise RuntimeError("the process that held the earlier state is dead")
        cell.delivered &= self.tip.pid != 0  # without a past it has not begun
        if len(self.chain) > 1:
            self.undone_cells += 1
            self.go_back(1, self.stepped_back)
            return
        self.cell = None
        self.drain(cell)

        def empty() -> None:
            self.restored([Version() for _ in self.keepers])
            self.begin(None, cell)

        while self.chain:
            self.discard(self.chain.pop())
        self.settle(empty)

    def drain(self, cell: CellRun) -> None:
        """What the pipes still hold, now that nobody writes any more."""
        for (reading, _), kept in zip(self.pipes, (cell.out, cell.err), strict=True):
            with suppress(BlockingIOError):
                while True:
                    kept.feed(os.read(reading, 1 << 16))

    def spent(self) -> tuple[str, str] | None:
        """The limit of the whole session that it has reached."""
        if self.cpu_s > self.settings["session_cpu_s"]:
            return "cpu", f"not run: the session has used its {self.settings['session_cpu_s']:g} s of CPU time"
        if self.printed > self.settings["session_output_mb"] << 20:
            return "output", f"not run: the session has printed its {self.settings['session_output_mb']} MiB"
        return None
