"""`toolreason sandbox stats`: the containers on the engine, whose they are, and what they use."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from rich.table import Table

from toolreason.commands import common


def stats(
    reap: Annotated[bool, typer.Option("--reap", help="Remove those whose owner is dead.")] = False,
    json_: common.JsonOption = False,
) -> None:
    """List the sandbox's containers on the engine: the process that owns each, its age, memory, processes and CPU time.

    Example: toolreason sandbox stats --reap
    """
    from toolreason.errors import SetupError
    from toolreason.execution import reaper
    from toolreason.execution.engine import Engine, asking

    client = Engine.find().client()
    try:
        with asking("the engine does not list its containers", SetupError):
            removed = reaper.reap(client) if reap else 0
            rows = [row(client, found) for found in client.api.containers(all=True, filters={"label": reaper.LABEL})]
    finally:
        client.close()
    if json_:
        common.print_json({"removed": removed, "containers": rows})
        return
    table = Table("container", "density", "owner", "age s", "memory MB", "processes", "CPU s", box=None, pad_edge=False)
    for entry in rows:
        table.add_row(*(common.harmless("-" if value is None else str(value)) for value in entry.values()))
    common.stdout().print(table)
    common.say(f"{len(rows)} containers" + (f", {removed} removed" if reap else ""), "green")


def row(client: Any, found: dict[str, Any]) -> dict[str, Any]:
    """One container; None for what the engine does not tell, or when it ends just now."""
    import docker

    from toolreason.execution import reaper

    labels = found.get("Labels") or {}
    owner = f"{labels.get(f'{reaper.LABEL}.pid', '?')} ({'dead' if reaper.orphaned(labels) else 'alive, or elsewhere'})"
    memory = processes = cpu = None
    try:
        used = client.api.stats(found["Id"], stream=False, one_shot=True)
        memory = round(used["memory_stats"].get("usage", 0) / 1e6, 1)
        processes = used["pids_stats"].get("current")
        cpu = round(used["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9, 2)
    except (docker.errors.APIError, KeyError):
        pass
    return {
        "container": found["Id"][:12],
        "density": labels.get(f"{reaper.LABEL}.density"),
        "owner": owner,
        "age_s": round(time.time() - found["Created"]),
        "memory_mb": memory,
        "processes": processes,
        "cpu_s": cpu,
    }
