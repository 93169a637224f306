"""What a consolidation looks for in a library (UCT, arXiv 2602.01983; thresholds and measures are ours): tools that are alike,
tools that fail or that nobody reuses, tools without a category. Here it is found; `toolreason.graphs.consolidate` puts it
together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from toolreason.errors import SettingsError
from toolreason.tools import similar
from toolreason.tools.classify import UNSORTED, Classifier
from toolreason.tools.duplicates import exact_groups
from toolreason.tools.health import Runs
from toolreason.tools.merging import Merge
from toolreason.tools.package import Status, ToolPackage
from toolreason.tools.plan import Action, Step
from toolreason.tools.retrieval import document
from toolreason.tools.usage import Usage

if TYPE_CHECKING:
    from toolreason.tools.library import Library

NEAREST = 3  # hits that a tool has to be among to be near in meaning, both ways


@dataclass(frozen=True, slots=True)
class ConsolidationSettings:
    """`code` and `described`: the least Jaccard index of two tools that are alike in code, or in the words of name and description.
    `meaning`: also pairs that find each other by the library's own search, for one with vectors. `tests`: run every tool's tests
    again; without, nothing is known to fail. `unused_days`, `unused_problems`: how old a tool has to be, and of how many problems
    tools that are younger have to have seen, before it is deprecated for want of reuse; both, where both are given; None: never.
    `at_once`: sessions at a time.
    """

    code: float = 0.7
    described: float = 0.6
    meaning: bool = False
    tests: bool = True
    merge: bool = True
    classify: bool = True
    unused_days: float | None = None
    unused_problems: int | None = None
    at_once: int = 4

    def __post_init__(self) -> None:
        for name in ("code", "described"):
            if not 0.3 <= getattr(self, name) <= 1:
                raise SettingsError(
                    f"{name} {getattr(self, name)} is outside 0.3 to 1: it is the least share that two tools have in common"
                )
        if self.at_once < 1:
            raise SettingsError(f"at_once {self.at_once} is below 1")
        for name in ("unused_days", "unused_problems"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise SettingsError(f"{name} {value} is not above 0: leave it out for never")


def better(
    usages: Mapping[str, Usage], users: Mapping[str, Sequence[ToolPackage]], heads: Sequence[ToolPackage]
) -> Callable[[str], object]:
    """A key that sorts names by what should stand for others: quality in use, then what others import, then age."""
    created = {one.name: one.created for one in heads}
    return lambda name: (-usages[name].quality if name in usages else 0.0, -len(users.get(name, ())), created.get(name, ""), name)


async def alike(
    library: Library, offered: Sequence[ToolPackage], settings: ConsolidationSettings, better: Callable[[str], object]
) -> tuple[list[list[str]], list[list[str]]]:
    """The groups of exact duplicates, and those of all that are alike, exact ones among them; names, best first. The scan runs in a
    thread: 10,000 tools take seconds.
    """
    scan = await asyncio.to_thread(similar.scan, offered)
    exact = [sorted(group, key=better) for group in exact_groups(scan.same)]  # type: ignore[arg-type]
    twins = {name for group in exact for name in group[1:]}
    single = [one for one in offered if one.name not in twins]
    pairs = await asyncio.to_thread(similar.near_pairs, single, scan, code=settings.code, described=settings.described)
    near = set(pairs) | (await _near_in_meaning(library, single) if settings.meaning else set())
    near |= {(group[0], name) for group in exact for name in group[1:]}
    return exact, similar.stars([one.name for one in offered], near, better)


async def _near_in_meaning(library: Library, packages: Sequence[ToolPackage]) -> set[tuple[str, str]]:
    """Pairs of tools, called alike, that find each other."""
    by_name = {one.name: one for one in packages}
    found = {}
    for one in packages:
        hits = await library.search(document(one), NEAREST + 1)
        found[one.name] = [hit.package.name for hit in hits if hit.package.name != one.name][:NEAREST]
    return {
        (name, other)
        for name, others in found.items()
        for other in others
        if name < other and name in found.get(other, ()) and similar.called_alike(by_name[name], by_name[other])
    }


def merge_steps(merge: Merge, classifier: Classifier | None) -> list[Step]:
    """The new version of the survivor, and then the deprecation of the others."""
    if merge.package is None:
        return []
    survivor, *others = merge.members
    package = replace(merge.package, category=_category(merge, classifier))
    members = tuple(one.identity for one in merge.members)
    reason = f"it stands for {', '.join(members[1:])}, and passes the tests of all"
    steps = [
        Step(
            Action.MERGE,
            survivor.name,
            survivor.version,
            survivor.status,
            reason,
            survivor.reason,
            package=package,
            members=members,
        )
    ]
    for one in others:
        gone = f"{survivor.name} stands for it: it passes its tests, too"
        steps.append(Step(Action.DEPRECATE, one.name, one.version, one.status, gone, one.reason, into=survivor.name))
    return steps


def _category(merge: Merge, classifier: Classifier | None) -> str:
    given = [one.category for one in merge.members if one.category != UNSORTED]
    if given or classifier is None or merge.package is None:
        return given[0] if given else UNSORTED
    found = classifier.category(merge.package)
    return found[0] if found else UNSORTED


def classify_steps(heads: Sequence[ToolPackage], classifier: Classifier) -> list[Step]:
    """Tools on offer that nobody put into a category."""
    steps = []
    for one in heads:
        if one.category == UNSORTED and (found := classifier.category(one)):
            category, sure = found
            package = replace(
                one,
                category=category,
                version=one.version + 1,
                parents=(one.identity,),
                status=Status.CANDIDATE,
                reason="",
                created="",
            )
            reason = f"its words are those of {category} ({sure:.0%})"
            steps.append(Step(Action.CLASSIFY, one.name, one.version, one.status, reason, one.reason, package=package))
    return steps


def failing_steps(offered: Sequence[ToolPackage], runs: Runs) -> list[Step]:
    return [
        Step(
            Action.DEPRECATE,
            one.name,
            one.version,
            one.status,
            f"its tests do not pass any more: {runs[one.hash].reason}",
            one.reason,
        )
        for one in offered
        if one.hash in runs and not runs[one.hash].ok
    ]


async def unused_steps(
    library: Library,
    offered: Sequence[ToolPackage],
    usages: Mapping[str, Usage],
    users: Mapping[str, Sequence[ToolPackage]],
    settings: ConsolidationSettings,
    now: datetime | None = None,
) -> list[Step]:
    """Tools that are old enough and were called on no problem but those they were made for. What another tool imports is in use,
    and where nothing was ever called nothing is known.
    """
    if (settings.unused_days is None and settings.unused_problems is None) or not any(usage.calls for usage in usages.values()):
        return []
    since = await problems_since(library, offered, usages) if settings.unused_problems is not None else {}
    before = (now or datetime.now(UTC)) - timedelta(days=settings.unused_days or 0)
    steps = []
    for one in offered:
        seen = since.get(one.name, 0)
        if users.get(one.name) or (one.name in usages and usages[one.name].reuse) or datetime.fromisoformat(one.created) > before:
            continue
        if settings.unused_problems is not None and seen < settings.unused_problems:
            continue
        reason = f"never called on another problem since {one.created[:10]}" + (
            f", with {seen} problems or more since" if seen else ""
        )
        steps.append(Step(Action.DEPRECATE, one.name, one.version, one.status, reason, one.reason, unused=True))
    return steps


async def problems_since(library: Library, offered: Sequence[ToolPackage], usages: Mapping[str, Usage]) -> dict[str, int]:
    """At least how many problems there were since each tool's current version, by name: uses have no time, but those of a younger
    tool came after it.
    """
    first = {}
    for one in await library.list():
        oldest = one if one.version == 1 else (await library.history(one.name))[0]
        first[one.name] = oldest.created
    young = sorted(first, key=lambda name: first[name])  # the youngest last
    seen: set[str] = set()
    found = {}
    for one in sorted(offered, key=lambda one: one.created, reverse=True):
        while young and first[young[-1]] > one.created:
            name = young.pop()
            seen |= usages[name].by_problem.keys() - {""} if name in usages else set()
        found[one.name] = len(seen)
    return found
