"""The processes of one session: a chain, each with the state before one more cell, and the work folder as it was then.

The last of the chain, the tip, is the one that runs cells. Before each it leaves a copy of itself behind, its past; of these as
many are kept as cells may be taken back. Here they are born, woken, killed and waited for; what for, `runner_requests.py` says.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import runner_links as links
from runner_folder import Folder
from runner_guard import Guard
from runner_processes import living
from runner_versions import Keeper, Version
from runner_watch import CellRun

if TYPE_CHECKING:
    from runner import Runner

SETTLE_S = 0.002  # how often it is looked whether the killed are dead
PATIENCE_S = 30.0  # how long the killed may take to die, and the woken to answer, on a machine that has too much to do


@dataclass
class Point:
    """A process that holds a state, and the folder as it was then. `done` counts the cells that made the state. `pid` is 0 until it
    is known, `end` a descriptor that tells of the end of the one that runs cells.
    """

    link: socket.socket
    versions: list[Version]
    done: int = 0
    pid: int = 0
    end: int = -1
    dead: bool = False

    def has_ended(self) -> bool:
        """Whether its process is dead by now."""
        if self.end < 0:
            return self.dead or not living(self.pid)
        poll = select.poll()
        poll.register(self.end, select.POLLIN)
        return bool(poll.poll(0))


class Chain(ABC):
    """What a session has. `pending` is the host's question under way, `then` what comes when no stray process lives any more."""

    def __init__(self, runner: Runner, number: int, uid: int, folders: list[Folder]) -> None:
        self.runner, self.number, self.uid, self.folders = runner, number, uid, folders
        self.settings, self.processes = runner.settings, runner.processes
        self.keepers = [Keeper(folder, self.settings) for folder in folders]
        self.chain: list[Point] = []
        self.cell: CellRun | None = None
        self.pending: int | None = None  # the host's question under way
        self.then: Callable[[], None] | None = None
        self.unheard: Callable[[], None] | None = None  # what comes if a process that was called never answers
        self.wake = self.since = float("inf")
        self.stopped = self.killed = False  # whether strays were, and are to be followed up
        self.dying: set[int] = set()  # killed, and waited for
        self.guard: Guard | None = None
        self.undone_cells = 0  # committed cells whose processes have died since

    @property
    def tip(self) -> Point:
        return self.chain[-1]

    # the host's question

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

    # births

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

    def ask_guard(self) -> None:
        if self.guard is not None and not self.guard.hear():
            self.runner.forget(self.guard.fd)

    def unguard(self) -> None:
        if self.guard is not None and not self.runner.siblings(self):
            self.runner.forget(self.guard.fd)
            self.guard.close()
        self.guard = None

    # what a session makes of it

    @abstractmethod
    def on_report(self) -> None:
        """The process that runs the cells has said something."""

    @abstractmethod
    def on_end(self, point: Point) -> None:
        """The process that runs the cells is dead."""

    @abstractmethod
    def lose(self) -> None:
        """The process that held the state is dead."""

    @abstractmethod
    def successor(self) -> int:
        """The process that is about to take over from the tip, since it shed its threads; 0 when there is none."""

    @abstractmethod
    def tick(self) -> None:
        """The time is `wake`."""

    # who is who

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

    def strays(self) -> set[int]:
        """What runs below the chain and is no part of it; a process that takes over is one by now."""
        children = self.know_past()
        takes_over = {self.successor()} - {0}
        for pid in takes_over:
            children += self.processes.children(pid)
        # where a past is not known yet it may be an orphan, which is not to be taken for a stray
        sure = all(point.pid for session in (self, *self.runner.siblings(self)) for point in session.chain)
        return self.processes.strays(self.uid if sure else None, children, takes_over)

    def ours(self) -> set[int]:
        """All that runs for this session and may go on."""
        return {point.pid for point in self.chain if point.pid} | (self.strays() | {self.cell.pid} if self.cell else set())

    # ends

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

    def succeed(self, pid: int) -> None:
        """A process that left its threads behind goes on as another."""
        old = self.chain.pop()
        self.chain.append(Point(old.link, old.versions, old.done))
        self.runner.forget(old.link.fileno())
        with suppress(ProcessLookupError):
            os.kill(old.pid, signal.SIGKILL)
        self.unlist(old)
        self.appoint(self.tip, pid)

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
            self.processes.killed(point.pid)
        if point.end >= 0:
            self.runner.forget(point.end)
            os.close(point.end)
            point.end = -1

    def trim(self, most: int) -> None:
        """Keep fewer states. Nobody waits for the end of the processes that held the others."""
        while len(self.chain) > most:
            self.discard(self.chain.pop(0))
        self.dying.clear()

    # the folder

    def versions(self, last: list[Version], mapped: bool) -> list[Version]:
        return [keeper.take(version, mapped) for keeper, version in zip(self.keepers, last, strict=True)]

    def restored(self, versions: list[Version]) -> list[Version]:
        return [keeper.restore(version) for keeper, version in zip(self.keepers, versions, strict=True)]
