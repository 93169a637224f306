"""One session as the wire process sees it: a chain of processes, each with the state before one more cell, and the work folder.

The last of the chain is the one that runs cells. Before each it leaves a copy of itself behind, its past; of these as many are kept
as cells may be taken back. A cell that does not stay has its process killed and the past woken, and the folder is put back.
"""

from __future__ import annotations

import base64
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import runner_links as links
from runner_folder import Folder, Refused, TooMuch
from runner_guard import Guard
from runner_processes import cpu_s, living, memory_share, resident_mb
from runner_versions import Keeper, Version
from runner_watch import CellRun

if TYPE_CHECKING:
    from runner import Runner

TICK_S = 0.1  # how often a running cell's CPU time and memory are looked at
SETTLE_S = 0.002  # how often it is looked whether the killed are dead
PATIENCE_S = 20.0  # how long the killed may take to die, and the woken to answer, on a machine that has too much to do
CROWDED, CROWDED_EVERY = 0.5, 4  # of the container's memory: then only the present state is kept; looked at now and then


@dataclass
class Point:
    """A process that holds a state, and the folder as it was then. `pid` is 0 until it is known, `end` a descriptor that tells of
    the end of the one that runs cells.
    """

    link: socket.socket
    versions: list[Version]
    pid: int = 0
    end: int = -1
    dead: bool = False


class Session:
    """The state machine of one session. `then` is what comes when no stray process lives any more."""

    def __init__(self, runner: Runner, number: int, uid: int, folders: list[Folder]) -> None:
        self.runner, self.number, self.uid, self.folders = runner, number, uid, folders
        self.settings, self.processes = runner.settings, runner.processes
        self.keepers = [Keeper(folder, self.settings) for folder in folders]
        self.scratch = folders[-1].path if len(folders) > 1 else None
        self.chain: list[Point] = []
        self.pipes = [os.pipe(), os.pipe()]  # standard output and error of its cells; never at their end, since we hold both ends
        self.cell: CellRun | None = None
        self.pending: int | None = None  # the host's question under way
        self.then: Callable[[], None] | None = None
        self.unheard: Callable[[], None] | None = None  # what comes if a process that was called never answers
        self.wake = self.since = float("inf")
        self.stopped = self.killed = False  # whether strays were, and are to be followed up
        self.dying: set[int] = set()  # killed, and waited for
        self.guard: Guard | None = None
        self.cells = 0
        self.undone_cells = 0  # committed cells whose processes have died since
        self.cpu_s, self.printed = 0.0, 0
        for which, (reading, _) in enumerate(self.pipes):
            os.set_blocking(reading, False)
            runner.watch(reading, lambda which=which: self.guarded(self.on_output, which))  # type: ignore[misc]

    @property
    def tip(self) -> Point:
        return self.chain[-1]

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

    def do_run(self, request: dict[str, Any]) -> None:
        self.take(request["id"])
        self.cells += 1
        if (spent := self.spent()) is not None:
            self.reply({"outcome": spent[0], "error": spent[1]})
            return
        if self.cells % CROWDED_EVERY == 0 and len(self.chain) > 1 and memory_share() > CROWDED:
            self.trim(1)
        self.launch(request)

    def launch(self, request: dict[str, Any]) -> None:
        cell = self.cell = CellRun(self.settings, request, self.tip.pid)
        link, theirs = links.pair()
        self.chain.insert(-1, Point(link, self.tip.versions))
        if self.tip.dead:  # since the last cell; its past has its end of the link too, so that sending would not fail
            cell.undelivered()
        else:
            cell.send(self.tip.link, self.cells, theirs.fileno(), [writing for _, writing in self.pipes])
        theirs.close()
        self.stir(min(cell.deadline, cell.began + TICK_S))
        self.decided()

    def do_undo(self, request: dict[str, Any]) -> None:
        count = request["cells"]
        if not 0 < count < len(self.chain):
            raise Refused(f"{count} cells cannot be taken back: {len(self.chain) - 1} can")
        self.take(request["id"])
        self.go_back(count, self.undone)

    def do_fork(self, request: dict[str, Any]) -> None:
        """Have the tip fork a second session, in a folder with the same content."""
        if len(self.runner.siblings(self)) >= self.settings["forks"]:
            raise Refused(f"{self.settings['forks']} forks are open already")
        self.take(request["id"])
        other = self.runner.place(self.uid, fork=True)
        other.guard = self.guard
        link, theirs = links.pair()
        point = Point(link, [other.keepers[0].restore(self.tip.versions[0])])
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

    # what its processes say

    def expect_ready(self, point: Point, then: Callable[[list[int]], None], dead: Callable[[], None]) -> None:
        """Wait for the first word of a process that is to run cells."""

        def hear() -> None:
            data, pid, fds = links.receive(point.link)
            self.runner.forget(point.link.fileno())
            self.unheard = None
            if not data:
                dead()
                return
            self.appoint(point, pid)
            then(fds)

        self.unheard = dead
        self.stir(time.monotonic() + PATIENCE_S)
        self.runner.watch(point.link.fileno(), lambda: self.guarded(hear))

    def appoint(self, point: Point, pid: int) -> None:
        """Have this process run the cells."""
        point.pid = pid
        self.processes.known.add(pid)
        self.runner.watch(point.link.fileno(), lambda: self.guarded(self.on_report))
        with suppress(OSError):  # it is dead already, or this kernel has no such descriptors: `tick` looks then
            point.end = os.pidfd_open(pid)
            self.runner.watch(point.end, lambda: self.guarded(self.on_end, point))

    def stillborn(self) -> None:
        raise RuntimeError("a session process could not be started")

    def ask_guard(self) -> None:
        if self.guard is not None and not self.guard.hear():
            self.runner.forget(self.guard.fd)

    def unguard(self) -> None:
        if self.guard is not None and not self.runner.siblings(self):
            self.runner.forget(self.guard.fd)
            self.guard.close()
        self.guard = None

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
        if cell is None or not self.chain or point is not self.tip or self.then is not None:
            return
        data, pid, fds = links.receive(point.link)  # its last word may stand in the link yet
        if data and cell.report is None:
            cell.hear(data, pid, fds)
        if cell.report is not None and cell.report["outcome"] in ("ok", "error") and cell.pid == point.pid:
            cell.report = None  # it reported, and died
        self.cpu_s += max(0.0, used - cell.started_s)
        cell.ended(code, self.processes.oom_struck())
        self.decided()

    def protected(self) -> set[int]:
        """The processes that no cell of this user may signal."""
        sessions = [self, *self.runner.siblings(self)]
        for session in sessions:
            session.know_past()
        running = {session.tip.pid for session in sessions if session.cell is not None and session.chain}
        return (self.processes.known | {self.processes.me}) - running

    def know_past(self) -> list[int]:
        """Learn the process id of the running cell's past: the first child that was forked for it. Returns the tip's children."""
        if not self.chain:
            return []
        children = self.processes.children(self.tip.pid)
        if self.cell is not None and len(self.chain) > 1 and self.chain[-2].pid == 0:
            pid = self.chain[-2].pid = self.processes.first_new(children)
            self.processes.known |= {pid} - {0}
        return children

    # what follows

    def decided(self) -> None:
        """Go on when it is known how the cell ended."""
        cell = self.cell
        if cell is None or cell.report is None or self.then is not None or self.unheard is not None:
            return
        if not cell.forked:
            self.discard(self.chain.pop(-2))
            self.cell = None
            self.reply(cell.result())
            return
        if cell.keep and cell.report["outcome"] in ("ok", "error"):
            self.settle(self.commit)
        else:
            self.know_past()
            self.cpu_s += max(0.0, cpu_s(self.tip.pid) - cell.started_s)
            self.go_back(1, self.stepped_back)

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
        if now >= cell.deadline:
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
        """What these processes take beyond the imports, which all sessions share."""
        return resident_mb(pids) - len(pids) * float(self.settings["base_mb"])

    def settle(self, then: Callable[[], None]) -> None:
        """Kill the strays, and go on with `then` when all are dead."""
        now = time.monotonic()
        if self.then is None:
            self.since = now
        self.then = then
        dying = {pid for pid in self.dying if living(pid)}
        if victims := self.strays() | dying:
            if now > self.since + PATIENCE_S:
                raise RuntimeError(f"processes that do not die: {sorted(victims)}")
            self.stopped |= self.processes.kill(victims, self.uid)
            self.killed = True
            self.stir(now + SETTLE_S)
            return
        self.dying.clear()
        if self.killed:  # until they are collected the dead count as processes
            self.killed = False
            self.processes.reap()
        if self.stopped:
            self.stopped = False
            self.processes.resume({pid for session in (self, *self.runner.siblings(self)) for pid in session.ours()})
        self.then = None
        then()

    def strays(self) -> set[int]:
        """What runs below the chain and is no part of it; a process that took over while it shed its threads is one by now."""
        children = self.know_past()
        takes_over: set[int] = set()
        if self.then == self.commit and self.cell is not None and self.cell.pid != self.tip.pid:
            takes_over = {self.cell.pid}
            children += self.processes.children(self.cell.pid)
        # a fork's past may be an orphan that is not known yet
        sure = all(point.pid for other in self.runner.siblings(self) for point in other.chain)
        return self.processes.strays(self.uid if sure else None, children, takes_over)

    def ours(self) -> set[int]:
        """All that runs for this session and may go on."""
        return {point.pid for point in self.chain if point.pid} | (self.strays() | {self.cell.pid} if self.cell else set())

    def commit(self) -> None:
        cell = self.cell
        assert cell is not None
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
        self.tip.versions = versions
        self.cell = None
        self.printed += cell.out.seen + cell.err.seen
        self.reply(cell.result())
        self.trim(self.settings["undo_depth"] + 1)

    def succeed(self, pid: int) -> None:
        """A process that left its threads behind goes on as another."""
        old = self.chain.pop()
        self.chain.append(Point(old.link, old.versions))
        self.runner.forget(old.link.fileno())
        with suppress(ProcessLookupError):
            os.kill(old.pid, signal.SIGKILL)
        self.unlist(old)
        self.appoint(self.tip, pid)

    def go_back(self, count: int, then: Callable[[], None]) -> None:
        """Kill what came after an earlier state, wake the process that holds it, and go on with `then`."""
        younger, self.chain = self.chain[-count:], self.chain[:-count]
        for point in younger:
            self.discard(point)
        if self.tip.pid:  # else an orphan that is not known yet: it is not to be taken for a stray
            self.settle(lambda: self.rouse(then))
        else:
            self.rouse(then)

    def rouse(self, then: Callable[[], None]) -> None:
        self.then = None
        with suppress(OSError):  # it is dead: its link says so
            self.tip.link.send(b"wake")
        self.expect_ready(self.tip, lambda _: self.settle(then), self.lose)

    def stepped_back(self) -> None:
        cell = self.cell
        assert cell is not None
        self.drain(cell)
        self.cell = None
        self.printed += cell.out.seen + cell.err.seen
        self.tip.versions = self.restored(self.tip.versions)
        self.reply(cell.result())

    def undone(self) -> None:
        self.tip.versions = self.restored(self.tip.versions)
        self.reply({})

    def lose(self) -> None:
        """The state is lost: its process died after the cell that made it had said that all was well. The state before that cell
        comes back, if it is kept; else the host runs the committed cells again, in an empty folder.
        """
        cell, self.then = self.cell, None
        if cell is None:
            raise RuntimeError("the process that held the earlier state is dead")
        if len(self.chain) > 1:
            self.undone_cells += 1
            cell.delivered &= self.tip.pid != 0  # without a past it has not begun
            self.go_back(1, self.stepped_back if cell.delivered else self.launch_again)
            return
        self.cell = None
        self.drain(cell)

        def empty() -> None:
            self.restored([Version() for _ in self.keepers])
            self.begin(None, cell)

        while self.chain:
            self.discard(self.chain.pop())
        self.settle(empty)

    def launch_again(self) -> None:
        assert self.cell is not None
        request, self.cell = self.cell.request, None
        self.tip.versions = self.restored(self.tip.versions)
        self.launch(request)

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

    # parts

    def versions(self, last: list[Version], mapped: bool) -> list[Version]:
        return [keeper.take(version, mapped) for keeper, version in zip(self.keepers, last, strict=True)]

    def restored(self, versions: list[Version]) -> list[Version]:
        return [keeper.restore(version) for keeper, version in zip(self.keepers, versions, strict=True)]

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

    def discard(self, point: Point) -> None:
        """End a process of the chain."""
        if point.pid:
            with suppress(ProcessLookupError):
                os.kill(point.pid, signal.SIGKILL)
            self.dying.add(point.pid)
        self.unlist(point)
        self.runner.forget(point.link.fileno())
        point.link.close()

    def unlist(self, point: Point) -> None:
        """A process that is none of ours any more."""
        self.processes.known.discard(point.pid)
        self.processes.exits.pop(point.pid, None)
        if point.pid:
            self.processes.dying.add(point.pid)
        if point.end >= 0:
            self.runner.forget(point.end)
            os.close(point.end)
            point.end = -1

    def trim(self, most: int) -> None:
        """Keep fewer states. Nobody waits for the end of the processes that held the others."""
        while len(self.chain) > most:
            self.discard(self.chain.pop(0))
        self.dying.clear()

    def idle(self) -> None:
        if self.pending is not None:
            raise RuntimeError("two things are asked of one session at a time")

    def take(self, question: int) -> None:
        self.idle()
        self.pending = question

    def reply(self, answer: dict[str, Any]) -> None:
        """Answer the question under way, and rest."""
        self.then = None
        self.stir(float("inf"))
        if self.pending is not None:
            self.runner.wire.send({"lost": False, "undone": self.undone_cells, **answer, "id": self.pending})
            self.undone_cells = 0
        self.pending = None

    def stir(self, when: float) -> None:
        """Be called again at this time."""
        self.wake = when
        if when == float("inf"):
            self.runner.active.discard(self)
        else:
            self.runner.active.add(self)

    def guarded(self, call: Callable[..., None], *args: Any) -> None:
        """What goes wrong here ends this session, and no other."""
        try:
            call(*args)
        except (EOFError, BrokenPipeError):
            raise
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            self.reply({"failed": f"{type(error).__name__}: {error}"})
            self.broken()

    def broken(self) -> None:
        """Leave nothing running. The host closes the session; its folder is not used again before that."""
        self.cell = None
        while self.chain:
            self.discard(self.chain.pop())
        if self.settings["own_ids"]:
            self.processes.as_user(self.uid, signal.SIGKILL)
