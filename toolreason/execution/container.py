"""A container and the runner in it: how it is locked down, started, and ended."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from toolreason.execution import reaper
from toolreason.execution.base import Limits

if TYPE_CHECKING:
    from toolreason.execution.session import RunnerSession
    from toolreason.execution.wire import Runner

Density = Literal["container", "shared"]
RUNNER_MB = 128  # what the runner and its imports take, on top of the sessions' own memory
FRESH_MB, BUSY = 16, 4  # what a shared container has for each session, and how many of them may use all of theirs at a time
CAPABILITIES = ["CHOWN", "KILL", "SETGID", "SETUID"]  # of process 1 alone: cells have none
MOST_PROCESSES = 8192
RUNTIME_PROCESSES = 4096  # of a runtime that is a kernel of its own: its threads count too
RUNTIME_MB = 512  # and its memory
PERIOD_US = 20_000  # of CPU shares: a cell's burst that meets its share's end waits for the next period, so it is a short one
MOUNT = "rw,noexec,nosuid,nodev,mode=0700"


@dataclass(frozen=True, slots=True)
class Plan:
    """What containers of one sandbox are like. `slots` counts sessions, forks included."""

    limits: Limits
    density: Density
    slots: int
    image: str
    runtime: str | None
    memory_mb: int | None
    labels: dict[str, str]
    cores: int

    def settings(self) -> dict[str, Any]:
        """What the runner gets told."""
        shared = self.density == "shared"
        return asdict(self.limits) | {
            "slots": self.folders(),
            "scratch": None if shared else "/tmp",
            "keep": "/keep",
            "own_ids": True,
            "shared": shared,
            "watch_memory": shared,
            "most_processes": self.processes(),
        }

    def folders(self) -> list[str]:
        """The sessions' work folders."""
        if self.density == "shared":
            return [f"/work/{number}" for number in range(1, self.slots + 1)]
        return ["/work", *(f"/fork/{number}" for number in range(1, self.slots))]

    def processes(self) -> int:
        """Of one user id: what cells may have, and the processes that hold states."""
        return self.limits.processes + (self.limits.undo_depth + 2) * (self.limits.forks + 1)

    def all_processes(self) -> int:
        """Of a container."""
        most = min(MOST_PROCESSES, 8 + self.processes() * (self.slots if self.density == "shared" else 1))
        return most + (RUNTIME_PROCESSES if self.runtime else 0)

    def memory(self) -> int:
        limits = self.limits
        if self.memory_mb is not None:
            return self.memory_mb << 20
        own = RUNNER_MB + (RUNTIME_MB if self.runtime else 0)
        if self.density == "shared":
            return (own + BUSY * limits.memory_mb + self.slots * FRESH_MB) << 20
        return (own + limits.memory_mb + 2 * limits.disk_mb) << 20  # files lie in memory, and are kept twice

    def config(self, api: Any) -> dict[str, Any]:
        """The arguments of docker-py's `create_container`."""
        limits, shared = self.limits, self.density == "shared"
        folder = f"{MOUNT},size={limits.disk_mb}m,nr_inodes={limits.disk_files + 64}"
        mounts = dict.fromkeys([*self.folders(), *([] if shared else ["/tmp"])], folder)
        host = api.create_host_config(
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            cap_add=CAPABILITIES,
            security_opt=["no-new-privileges"],
            pids_limit=self.all_processes(),
            mem_limit=self.memory(),
            memswap_limit=self.memory(),
            cpu_period=None if shared else PERIOD_US,
            cpu_quota=None if shared else max(1000, int(min(limits.cpus, self.cores) * PERIOD_US)),
            ulimits=[{"Name": "nofile", "Soft": 16384, "Hard": 16384}],
            tmpfs=mounts | {"/keep": f"{MOUNT},size={limits.disk_mb * (self.slots + limits.undo_depth)}m"},
            log_config={"type": "none"},
            auto_remove=True,
            runtime=self.runtime,
            # multiprocessing's locks live in /dev/shm; shared by sessions it would be a way past their user ids
            **({"ipc_mode": "none"} if shared else {"ipc_mode": "private", "shm_size": 16 << 20}),
        )
        return {
            "image": self.image,
            "command": [json.dumps(self.settings())],
            "user": "0:0",
            "stdin_open": True,  # attached, so docker-py sets StdinOnce too: the runner's input closes when this process dies
            "network_disabled": True,
            "hostname": "sandbox",
            "labels": self.labels | {f"{reaper.LABEL}.density": self.density, f"{reaper.LABEL}.slots": str(self.slots)},
            "host_config": host,
        }


@dataclass(eq=False)
class Container:
    """A running one, and the sessions in it."""

    id: str
    runner: Runner
    slots: int
    sessions: set[RunnerSession] = field(default_factory=set)
    busy: int = 0  # places of sessions that are being opened or closed

    @property
    def has_room(self) -> bool:
        return self.runner.alive and len(self.sessions) + self.busy < self.slots
