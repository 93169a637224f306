"""The wire process: it speaks to the host, opens sessions, and holds what runs in them to its limits.

In a container it is process 1 and root with few capabilities, each session has a user id of its own, and no cell can signal,
trace or starve it. When it ends, everything ends; it ends when its standard input closes, so a host that dies takes its
containers with it. PROTOCOL.md describes the messages and the life of a cell.

    wire process  --fork-->  zygote (the imports)  --fork-->  session process (the variables)  --fork, per cell-->  child
"""

from __future__ import annotations

import itertools
import json
import os
import random
import selectors
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

import runner_links as links
import runner_zygote
from runner_chain import Chain
from runner_folder import Folder, Refused
from runner_processes import Processes, resident_mb
from runner_requests import Session
from runner_system import PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE, prctl
from runner_wire import Wire


class Runner:
    """The sessions, and the loop in which everything happens."""

    def __init__(self, wire: Wire, settings: dict[str, Any], zygote: socket.socket, zygote_pid: int) -> None:
        self.wire, self.settings, self.zygote = wire, settings, zygote
        self.processes = Processes(own_ids=settings["own_ids"])
        self.processes.known.add(zygote_pid)
        self.selector = selectors.DefaultSelector()
        self.sessions: dict[int, Session] = {}
        self.active: set[Chain] = set()  # those with something under way
        self.free = list(reversed(settings["slots"]))
        self.numbers = itertools.count(1)
        self.ids = itertools.count(first_id()) if settings["own_ids"] else itertools.repeat(os.getuid())
        self.watch(wire.read_fd, self.hear)

    def loop(self) -> NoReturn:
        for turn in itertools.count():
            for key, _ in self.selector.select(self.patience()):
                if self.selector.get_map().get(key.fd) is key:  # else an earlier callback of this turn has let it go
                    key.data()
            now = time.monotonic()
            for session in [session for session in self.active if session.wake <= now]:
                session.guarded(session.tick)
            self.wire.flush()
            if turn % 16 == 0:
                self.processes.reap()
        raise AssertionError("an endless loop")

    def patience(self) -> float | None:
        """How long nothing needs to be done."""
        return max(0.0, min(session.wake for session in self.active) - time.monotonic()) if self.active else None

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        self.selector.register(fd, selectors.EVENT_READ, callback)

    def forget(self, fd: int) -> None:
        with suppress(KeyError, ValueError):
            self.selector.unregister(fd)

    def hear(self) -> None:
        self.wire.fill()
        while (request := self.wire.frame()) is not None:
            self.answer(request)

    def answer(self, request: dict[str, Any]) -> None:
        """Begin what the host asks for. What it can't have is refused, and harms no other session."""
        session = self.sessions.get(request.get("session", 0))
        try:
            if request["op"] == "open":
                self.open(request)
            elif session is None:
                raise Refused("there is no such session")
            else:
                getattr(session, f"do_{request['op']}")(request)
            return
        except Refused as refusal:
            answer = {"refused": str(refusal)}
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            answer = {"failed": f"{type(error).__name__}: {error}"}
        if session is not None and session.pending == request["id"]:
            session.reply(answer)
        else:
            self.wire.send(answer | {"id": request["id"]})

    def open(self, request: dict[str, Any]) -> None:
        """A fresh session under a new user id."""
        session = self.place(next(self.ids), fork=False)
        session.begin(request["id"])

    def place(self, uid: int, fork: bool) -> Session:
        """A session without processes, in a free work folder. Raises Refused when there is none."""
        if not self.free:
            raise Refused("all places are taken")
        path = self.free.pop()
        scratch = self.settings["scratch"] if path == self.settings["slots"][0] and not fork else None
        folders = [Folder(place, self.settings, uid) for place in (path, scratch) if place]
        for folder in folders:
            folder.give()
        session = Session(self, next(self.numbers), uid, folders)
        self.sessions[session.number] = session
        return session

    def closed(self, session: Session) -> None:
        """A session has ended, and its folder is empty again."""
        self.active.discard(session)
        del self.sessions[session.number]
        self.free.append(session.folders[0].place)

    def siblings(self, session: Chain) -> list[Session]:
        """The other sessions under the same user id: forks of one another."""
        return [other for other in self.sessions.values() if other.uid == session.uid and other is not session]

    def start_process(self, session: Session) -> socket.socket:
        """Have the zygote fork a session process; our end of its link. It says `ready` there."""
        link, theirs = links.pair()
        order = links.pack([str(session.uid)], [session.folders[0].path, session.scratch])
        socket.send_fds(self.zygote, [order], [theirs.fileno()])
        theirs.close()
        return link

    def end(self) -> NoReturn:
        self.processes.end_all()
        os._exit(0)


def first_id() -> int:
    """A random start of the sessions' user ids: the kernel counts processes by user over all containers of a machine."""
    with open("/proc/self/uid_map") as file:
        most = sum(int(line.split()[2]) for line in file)
    return random.randrange(1 << 20, 1 << 30) if most > 1 << 31 else random.randrange(1000, most // 2)


def main() -> None:
    settings = json.loads(sys.argv[1])
    wire = Wire(os.dup(0), os.dup(1))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)  # what an import prints must not reach the wire
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_DUMPABLE, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 is deaf to signals without a handler
    zygote, theirs = links.pair()
    pid = os.fork()
    if pid == 0:
        wire.close()
        zygote.close()
        runner_zygote.serve(theirs, settings)
    theirs.close()
    runner = Runner(wire, settings, zygote, pid)
    try:
        zygote.recv(64)  # the imports are made
        settings["base_mb"] = resident_mb([pid])
        runner.watch(zygote.fileno(), runner.end)  # without it there is nothing to go on with
        wire.send({"hello": 2, "python": sys.version.split()[0]})
        wire.flush()
        runner.loop()
    except (EOFError, BrokenPipeError):
        runner.end()


if __name__ == "__main__":
    main()
