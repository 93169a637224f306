"""What the pages beside list and trajectory say: collections compared, trainings as curves, libraries of tools."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolreason import runs
from toolreason.errors import InputError
from toolreason.stats import Rate, paired, wilson
from toolreason.tools.library import Library, open_library
from toolreason.tools.package import ToolPackage
from toolreason.train import curves, sft_files
from toolreason.view.detail import CODE, highlighted
from toolreason.view.harmless import harmless
from toolreason.view.index import Index

MOST_LINES = 20_000  # of a training's metrics


def card(index: Index, run: Path) -> dict[str, Any]:
    """A run in a few numbers. What cannot be read is said in its place."""
    try:
        told = runs.manifest(run)
    except InputError as error:
        return {"error": harmless(str(error))}
    progress = index.refresh(0.2)
    sums = index.sums()
    low, high = wilson(sums["correct"], sums["scored"])
    return harmless(
        {
            "strategy": told.strategy,
            "policy": told.policy,
            "problems_from": told.problems,
            "started": told.started,
            "settings": json.dumps(told.settings)[:2000],
            "temperature": told.sampling.temperature,
            **sums,
            "accuracy": sums["correct"] / sums["scored"] if sums["scored"] else None,
            "low": low,
            "high": high,
            "indexed": progress.done / progress.size if progress.size else 1.0,
            "damaged": progress.damaged,
        }
    )


def against(first: Index, second: Index) -> dict[str, Any]:
    """Two runs over the rollouts that both have: how many only one got right, and McNemar's p."""
    mine, theirs = first.right(), second.right()
    found = paired(mine, theirs)
    shared = mine.keys() & theirs.keys()
    return {
        "shared": len(shared),
        "both": found.both,
        "only_first": found.only_first,
        "only_second": found.only_second,
        "neither": found.neither,
        "p": found.p if shared else None,
        "first": _share(mine, shared),
        "second": _share(theirs, shared),
    }


def _share(right: Mapping[tuple[str, int], bool], shared: Any) -> dict[str, Any]:
    rate = Rate.of(right[key] for key in shared)
    return {"correct": rate.correct, "scored": rate.scored, "accuracy": rate.accuracy, "low": rate.low, "high": rate.high}


def training(path: Path) -> dict[str, Any]:
    """A training's panels of curves, as `train curves` draws them, and its settings."""
    lines = sft_files.read_metrics(path)[-MOST_LINES:]
    panels = [
        {
            "title": panel.title,
            "share": panel.share,
            "curves": [{"name": one.name, "points": one.points, "band": one.band} for one in panel.curves],
        }
        for panel in curves.panels({"": lines})
    ]
    manifest, report = (_json(path / name) for name in (sft_files.MANIFEST, sft_files.REPORT))
    return harmless({"panels": panels, "steps": len(lines), "manifest": manifest, "report": report})


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


async def library(spec: str) -> list[dict[str, Any]]:
    """The tools of a library in their current versions, with how they were used."""
    async with open_library(spec) as opened:
        usages = await opened.usages()
        return [harmless(_line(package) | _used(usages.get(package.name))) for package in await opened.list()]


async def tool(spec: str, name: str) -> dict[str, Any]:
    """All versions of a tool, newest first, with tests and parents; what happened to it. Raises InputError where there is none."""
    async with open_library(spec) as opened:
        versions = await opened.history(name)
        events = await opened.events(name)
        return {
            "name": harmless(name),
            "versions": [_version(package) for package in reversed(versions)],
            "events": harmless(
                [
                    {
                        "kind": one.kind,
                        "version": one.version,
                        "status": one.status,
                        "by": one.by,
                        "reason": one.reason,
                        "at": one.at,
                    }
                    for one in events
                ]
            ),
            "made_from": harmless(await _descendants(opened, name)),
            **harmless(_used((await opened.usages()).get(name))),
        }


async def _descendants(opened: Library, name: str) -> list[str]:
    """Versions of other tools that were made from this one."""
    found = []
    for other in await opened.list():
        for package in await opened.history(other.name):
            if other.name != name and any(parent.partition("@")[0] == name for parent in package.parents):
                found.append(package.identity)
    return found


def _line(package: ToolPackage) -> dict[str, Any]:
    return {
        "name": package.name,
        "version": package.version,
        "status": package.status.value,
        "category": package.category,
        "description": package.description[:500],
        "author": package.author,
        "created": package.created,
    }


def _version(package: ToolPackage) -> dict[str, Any]:
    ticket = package.ticket
    told = {
        **_line(package),
        "reason": package.reason[:2000],
        "parents": list(package.parents),
        "requirements": list(package.requirements),
        "parameters": json.dumps(package.parameters, indent=2)[:5000],
        "need": None if ticket is None else str(ticket.need)[:2000],
    }
    return harmless(told) | {"code": highlighted(package.code[:CODE]), "tests": highlighted(package.tests[:CODE])}


def _used(usage: Any) -> dict[str, Any]:
    if usage is None:
        return {"calls": 0, "successes": 0, "problems": 0, "reuse": 0}
    return {name: getattr(usage, name) for name in ("calls", "successes", "problems", "reuse")}
