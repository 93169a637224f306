"""One session as the wire process sees it: a chain of processes, each with the state after one more cell, and the work folder.

The tip of the chain forks a child for each cell. The child of a cell that stays becomes the tip; of the earlier ones as many are
kept as cells may be taken back. The child of any other cell is killed, the tip stands as it was, and the folder is put back.
"""

from __future__ import annotations

import base64
import json
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
PATIENCE_S = 10.0  # how long the killed may take to die
CROWDED = 0.5  # of the container's memory: then no more states are kept than the present one


@dataclass
class Point:
    """A process that holds a state, and the folder as it was then."""

    link: socket.socket
    pid: int
    versions: list[Version]
    ended: dict[str, Any] | None = None  # what it says of the end of its last child
    dead: bool = False


class Session:
    """The state machine of one session. `then` is what comes when no stray process lives any more."""

    def __init__(self, runner: Runner, number: int, uid: int, folders: list[Folder]) -> None:
        self.runner, self.number, self.uid, self.folders = runner, number, uid, folders
        self.settings = runner.settings
        self.keepers = [Keeper(folder, self.settings) for folder in folders]
        self.scratch = folders[-1].path if len(folders) > 1 else None
        self.chain: list[Point] = []
        self.cell: CellRun | None = None
        self.pending: int | None = None  # the host's question under way
        self.then: Callable[[], None] | None = None
        self.wake = self.since = float("inf")
        self.stopped = False
        self.dying: set[int] = set()  # killed, and waited for
        self.guard: Guard | None = None
        self.cells = 0
        self.cpu_s, self.printed = 0.0, 0

    @property
    def tip(self) -> Point:
        return self.chain[-1]

    # what the host asks for

    def begin(self, question: int | None, lost: CellRun | None = None) -> None:
        """Start a fresh session process. When it is ready, answer the question; or a cell's, whose state is lost."""
        if question is not None:
            self.pending = question
        link = self.runner.start_process(self)
        self.expect_ready(link, lambda pid, fds: self.born(link, pid, fds, lost))

    def do_run(self, request: dict[str, Any]) -> None:
        self.take(request["id"])
        self.cells += 1
        if (spent := self.spent()) is not None:
            self.reply({"outcome": spent[0], "error": spent[1]})
            return
        if len(self.chain) > 1 and memory_share() > CROWDED:
            self.trim(1)
        self.tip.ended = None
        cell = self.cell = CellRun(self.tip.link, self.settings, request, self.cells)
        for fd in cell.pipes:
            self.runner.watch(fd, lambda fd=fd: self.guarded(self.on_pipe, fd))  # type: ignore[misc]
        self.runner.watch(cell.link.fileno(), lambda: self.guarded(self.on_report))
        if not cell.delivered:
            cell.stop("crashed", "not run: its session process was dead")
            self.settle(self.step_back)
        else:
            self.stir(min(cell.deadline, time.monotonic() + TICK_S))

    def do_undo(self, request: dict[str, Any]) -> None:
        count = request["cells"]
        if not 0 < count < len(self.chain):
            raise Refused(f"{count} cells cannot be taken back: {len(self.chain) - 1} can")
        self.take(request["id"])
        younger, self.chain = self.chain[-count:], self.chain[:-count]
        for point in younger:
            self.discard(point)
        self.settle(self.undone)

    def do_fork(self, request: dict[str, Any]) -> None:
        """Have the tip fork a second session, in a folder with the same content."""
        if len(self.runner.siblings(self)) >= self.settings["forks"]:
            raise Refused(f"{self.settings['forks']} forks are open already")
        self.take(request["id"])
        other = self.runner.place(self.uid, fork=True)
        other.guard = self.guard
        version = other.keepers[0].restore(self.tip.versions[0])
        link, theirs = links.pair()
        order = {"op": "fork", "folder": other.folders[0].path}
        try:
            socket.send_fds(self.tip.link, [json.dumps(order).encode()], [theirs.fileno()])
        finally:
            theirs.close()

        def forked(pid: int, _: list[int]) -> None:
            if pid:
                other.add(link, pid, [version])
                self.reply({"session": other.number})
            else:
                link.close()
                other.vacate()
                self.reply({"refused": "the session's processes are at their limit"})

        self.expect_ready(link, forked)

    def do_put(self, request: dict[str, Any]) -> None:
        self.idle()
        try:
            self.folders[0].put(request["path"], base64.b64decode(request["data"]), request["append"])
        finally:
            try:
                self.tip.versions = self.versions(self.tip.versions, mapped=False)
            except TooMuch as error:
                self.tip.versions = self.restored(self.tip.versions)
                raise Refused(f"{request['path']!r}: {error}") from error
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
        if self.cell is not None:
            self.let_go(self.cell, keep_link=False)
        self.pending = request["id"]
        while self.chain:
            self.discard(self.chain.pop())
        if self.settings["own_ids"] and not self.runner.siblings(self):
            self.runner.processes.as_user(self.uid, signal.SIGKILL)
        self.settle(self.vacate)

    # what its processes say

    def expect_ready(self, link: socket.socket, then: Callable[[int, list[int]], None]) -> None:
        """Wait for the first word of a new process. `then` gets its process id, 0 if it died."""

        def hear() -> None:
            self.runner.forget(link.fileno())
            data, pid, fds = links.receive(link)
            then(pid if data else 0, fds)

        self.runner.watch(link.fileno(), lambda: self.guarded(hear))

    def born(self, link: socket.socket, pid: int, fds: list[int], lost: CellRun | None) -> None:
        if not pid:
            raise RuntimeError("a session process could not be started")
        self.unguard()
        if fds:
            self.guard = Guard(fds[0], self.protected)
            self.runner.watch(fds[0], self.ask_guard)
        self.add(link, pid, self.versions([Version() for _ in self.keepers], mapped=False))
        self.reply({"session": self.number} if lost is None else lost.result() | {"lost": True, "ran": lost.delivered})

    def ask_guard(self) -> None:
        if self.guard is not None and not self.guard.hear():
            self.runner.forget(self.guard.fd)

    def unguard(self) -> None:
        if self.guard is not None and not self.runner.siblings(self):
            self.runner.forget(self.guard.fd)
            self.guard.close()
        self.guard = None

    def add(self, link: socket.socket, pid: int, versions: list[Version]) -> None:
        """The chain's new tip."""
        point = Point(link, pid, versions)
        self.chain.append(point)
        self.runner.processes.known.add(pid)
        self.runner.watch(link.fileno(), lambda: self.guarded(self.on_point, point))

    def on_pipe(self, fd: int) -> None:
        if self.cell is not None and not self.cell.pull(fd):
            self.runner.forget(fd)
        self.decided()

    def on_report(self) -> None:
        cell = self.cell
        if cell is not None and not cell.hear():
            self.runner.forget(cell.link.fileno())
            if self.tip.dead:
                cell.stop("crashed", "it killed its session process and died")
        self.decided()

    def on_point(self, point: Point) -> None:
        """A process of the chain says how its child ended, or is dead."""
        data, _, fds = links.receive(point.link)
        links.drop(fds)
        if data:
            point.ended = links.parse(data)
        else:
            point.dead = True
            self.runner.forget(point.link.fileno())
        if self.cell is not None and self.chain and point is self.tip:
            if data and self.cell.report is None and not self.cell.hear():  # its last word may stand in the link yet
                self.cell.ended(point.ended or {})
            self.decided()
        if self.then is not None and self.chain and point is self.tip:
            self.settle(self.then)

    def protected(self) -> set[int]:
        """The processes that no cell of this user may signal."""
        sessions = [self, *self.runner.siblings(self)]
        return {point.pid for session in sessions for point in session.chain}

    # what follows

    def decided(self) -> None:
        """Go on when it is known how the cell ended."""
        cell = self.cell
        if cell is None or cell.report is None or self.then is not None:
            return
        stays = cell.keep and cell.report["outcome"] in ("ok", "error")
        if stays and self.tip.ended is not None:  # reported, and died
            cell.report = None
            cell.ended(self.tip.ended)
            stays = False
        self.settle(self.commit if stays else self.step_back)

    def tick(self) -> None:
        """The clock: limits of a running cell, or the end of the killed."""
        if self.then is not None:
            self.settle(self.then)
            return
        cell, now = self.cell, time.monotonic()
        if cell is None:
            self.stir(float("inf"))
            return
        if now >= cell.deadline:
            cell.stop("timeout", f"stopped: it ran longer than {cell.timeout:g} s")
        else:
            pids = self.strays()
            used = sum(map(cpu_s, pids))
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
            self.stopped |= self.runner.processes.kill(victims, self.uid)
            self.stir(now + SETTLE_S)
            return
        self.dying.clear()
        if self.stopped:
            self.stopped = False
            self.runner.processes.resume(self.protected() | self.foreign())
        then()

    def strays(self) -> set[int]:
        """What runs below the chain and is no part of it; the child of a cell that stays is one by now."""
        keep = {point.pid for point in self.chain}
        if self.then == self.commit and self.cell is not None:
            keep.add(self.cell.pid)
        roots = keep if self.then is not None else {self.tip.pid, self.cell.pid if self.cell else 0}
        return self.runner.processes.strays(self.uid, roots, self.others(), keep)

    def others(self) -> set[int]:
        """Processes of other sessions."""
        return self.runner.processes.known - {point.pid for point in self.chain}

    def foreign(self) -> set[int]:
        """The running cells of forks, which were stopped along with ours."""
        return {pid for other in self.runner.siblings(self) if other.cell is not None for pid in other.strays()}

    def commit(self) -> None:
        cell = self.cell
        assert cell is not None
        cell.drain()
        try:
            versions = self.versions(self.tip.versions, cell.mapped)
        except TooMuch as error:
            cell.report = {"outcome": "disk", "error": f"stopped: {error}"}
            self.settle(self.step_back)
            return
        self.let_go(cell, keep_link=True)
        self.cpu_s += cpu_s(cell.pid)
        if self.tip.dead:
            self.trim(0)
        self.add(cell.link, cell.pid, versions)
        self.reply(cell.result())
        self.trim(self.settings["undo_depth"] + 1)

    def step_back(self) -> None:
        """The child is dead; the tip says so itself, and then it can serve again."""
        cell = self.cell
        assert cell is not None
        if not self.tip.dead and self.tip.ended is None:
            self.stir(time.monotonic() + SETTLE_S)
            if time.monotonic() < self.since + PATIENCE_S / 2:
                return
            self.tip.dead = True  # mute: what a cell has made of it
        cell.drain()
        self.let_go(cell, keep_link=False)
        used = (self.tip.ended or {}).get("cpu", 0.0)
        self.cpu_s += used if type(used) is float else 0.0
        if self.tip.dead:
            self.start_anew(cell)
            return
        self.tip.versions = self.restored(self.tip.versions)
        self.reply(cell.result())

    def start_anew(self, cell: CellRun) -> None:
        """The state is lost. The host runs the committed cells again, in an empty folder."""

        def empty() -> None:
            self.then = None
            self.stir(float("inf"))
            self.restored([Version() for _ in self.keepers])
            self.begin(None, cell)

        while self.chain:
            self.discard(self.chain.pop())
        self.then = None
        self.settle(empty)

    def undone(self) -> None:
        if not self.tip.dead and self.tip.ended is None:
            self.stir(time.monotonic() + SETTLE_S)
            if time.monotonic() < self.since + PATIENCE_S / 2:
                return
            self.tip.dead = True
        if self.tip.dead:
            raise RuntimeError("the process that held the earlier state is dead")
        self.tip.versions = self.restored(self.tip.versions)
        self.reply({})

    def vacate(self) -> None:
        """Give the folder back. The question is that of `close`, or none."""
        for folder in self.folders:
            folder.clear()
        self.unguard()
        self.runner.closed(self)
        self.reply({})

    # parts

    def versions(self, last: list[Version], mapped: bool) -> list[Version]:
        return [keeper.take(version, mapped) for keeper, version in zip(self.keepers, last, strict=True)]

    def restored(self, versions: list[Version]) -> list[Version]:
        return [keeper.restore(version) for keeper, version in zip(self.keepers, versions, strict=True)]

    def spent(self) -> tuple[str, str] | None:
        """The limit of the whole session that it has reached."""
        if self.cpu_s > self.settings["session_cpu_s"]:
            return "cpu", f"not run: the session has used its {self.settings['session_cpu_s']:g} s of CPU time"
        if self.printed > self.settings["session_output_mb"] << 20:
            return "output", f"not run: the session has printed its {self.settings['session_output_mb']} MiB"
        return None

    def let_go(self, cell: CellRun, keep_link: bool) -> None:
        """Watch a cell no longer."""
        for fd in (*cell.pipes, cell.link.fileno()):
            self.runner.forget(fd)
        cell.close(keep_link)
        self.printed += cell.out.seen + cell.err.seen
        self.cell = None

    def discard(self, point: Point) -> None:
        """End a process of the chain."""
        if not point.dead:
            with suppress(ProcessLookupError):
                os.kill(point.pid, signal.SIGKILL)
            self.dying.add(point.pid)
        self.runner.processes.known.discard(point.pid)
        self.runner.forget(point.link.fileno())
        point.link.close()

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
            self.runner.wire.send({"lost": False, **answer, "id": self.pending})
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
        """Leave nothing running. The host closes the session; its folder is not used again."""
        if self.cell is not None:
            self.let_go(self.cell, keep_link=False)
        while self.chain:
            self.discard(self.chain.pop())
        if self.settings["own_ids"]:
            self.runner.processes.as_user(self.uid, signal.SIGKILL)
