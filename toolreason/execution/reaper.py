"""Who owns a container, written in its labels, and the removal of those whose owner is dead.

A container ends by itself when its owner does (its standard input closes). What is left for the reaper are containers that were
created and never started, and those of an engine that was killed at the same time.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

LABEL = "toolreason.sandbox"


@cache
def host_id() -> str:
    """This machine, this boot, this process-id namespace: where a process id means what it meant."""
    boot = namespace = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    return f"{socket.gethostname()}/{boot}/{namespace}"


def started(pid: int) -> str:
    """When a process started, in the kernel's ticks, so that a reused process id is another owner. Empty if there is none."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return "" if fields[0] in "ZX" else fields[19]
    return ""


def labels(sandbox_id: str) -> dict[str, str]:
    """For every container that this process creates."""
    pid = os.getpid()
    return {LABEL: sandbox_id, f"{LABEL}.host": host_id(), f"{LABEL}.pid": str(pid), f"{LABEL}.started": started(pid)}


def orphaned(marks: dict[str, str]) -> bool:
    """Whether the owner was a process of this machine and boot, and is dead."""
    if marks.get(f"{LABEL}.host") != host_id() or not Path("/proc/self/stat").exists():
        return False
    pid = marks.get(f"{LABEL}.pid", "")
    return pid.isdigit() and started(int(pid)) != marks.get(f"{LABEL}.started")


def reap(client: Any) -> int:
    """Remove the containers of dead owners. Returns how many."""
    count = 0
    for container in client.api.containers(all=True, filters={"label": LABEL}):
        if orphaned(container.get("Labels") or {}):
            count += remove(client, container["Id"])
    return count


def kill(client: Any, container: str) -> bool:
    """Kill; the engine then removes it, being told so at its creation. False if it was gone or going already."""
    import docker

    try:
        client.api.kill(container)
        return True
    except docker.errors.NotFound:
        return False
    except docker.errors.APIError:  # not running, or paused
        return remove(client, container)


def remove(client: Any, container: str) -> bool:
    """Kill and remove. False if it was gone or going already."""
    import docker

    try:
        client.api.remove_container(container, force=True, v=True)
        return True
    except docker.errors.APIError as error:
        if "paused" in str(error):  # an engine kills no paused container
            client.api.unpause(container)
            return remove(client, container)
        if error.status_code in (404, 409):  # gone, or being removed by the engine
            return False
        raise
