"""Several tools into one (UCT, arXiv 2602.01983): tried in the sandbox, with the tests of all of them, before anything is said of
it.

Without a policy one of the tools stands for those whose tests it passes. With one, where none stands for all, the policy may
write a tool that does. Nothing of the library is changed here.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from toolreason.errors import InputError
from toolreason.execution.base import Sandbox
from toolreason.tools import signature, trial, unions
from toolreason.tools.admission import dependencies, examine
from toolreason.tools.asking import ask, code_block, said
from toolreason.tools.classify import texts
from toolreason.tools.gate import GateSettings
from toolreason.tools.package import Status, ToolPackage
from toolreason.types import Sampling, Trajectory

if TYPE_CHECKING:
    from toolreason.policies.base import Message, Policy
    from toolreason.tools.library import Library

CANDIDATES = 3  # members, best first, that are tried in the place of the others
ATTEMPTS = 2  # of a policy
PURPOSE = "consolidate:merge"


@dataclass(frozen=True)
class Maker:
    """What a merge is made with. `users` are the tools on offer by the names of those that they import."""

    library: Library
    sandbox: Sandbox
    users: dict[str, list[ToolPackage]] = field(default_factory=dict)
    policy: Policy | None = None
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int = 1_500
    gate: GateSettings | None = None


@dataclass(frozen=True)
class Merge:
    """`package`, the next version of the first of `members`, stands for all of them. None where nothing came of it. `reasons`:
    why a member, by name, or the whole ("") stays as it is. `aside`: the policy's calls.
    """

    package: ToolPackage | None = None
    members: tuple[ToolPackage, ...] = ()
    reasons: dict[str, str] = field(default_factory=dict)
    aside: tuple[Trajectory, ...] = ()


async def merge(group: Sequence[ToolPackage], maker: Maker) -> Merge:
    """Try to let one tool stand for a group of admitted tools, the best first. Raises SandboxError and PolicyError."""
    try:
        return await _merge(group, maker)
    except InputError as error:  # a tool of an older gate, or one whose own tools are gone
        return Merge(reasons={"": str(error)})


async def _merge(group: Sequence[ToolPackage], maker: Maker) -> Merge:
    best: tuple[ToolPackage, list[ToolPackage], dict[str, str]] = (group[0], [], {})
    for survivor in group[:CANDIDATES]:
        covered, reasons = await _covers(survivor, [one for one in group if one.name != survivor.name], maker)
        if len(covered) > len(best[1]) or not best[2]:
            best = survivor, covered, reasons
        if len(covered) == len(group) - 1:
            break
    survivor, covered, reasons = best
    made = Merge(reasons=reasons)
    if maker.policy is not None and len(covered) < len(group) - 1:
        made = await _generalised(group, maker)
        if made.package is not None:
            return made
    if not covered:
        return replace(made, reasons=reasons | made.reasons)
    plain = await _whole(survivor, covered, maker)
    return replace(plain, reasons={**reasons, **plain.reasons}, aside=made.aside)


async def _covers(survivor: ToolPackage, others: Sequence[ToolPackage], maker: Maker) -> tuple[list[ToolPackage], dict[str, str]]:
    """The tools whose tests `survivor` passes, and why it does not stand for the rest."""
    needed = await dependencies(maker.library, survivor, offered=False)
    inside, reasons = [], {}
    for other in others:
        if users := in_use(other.name, maker.users, survivor.name):
            reasons[other.name] = f"{', '.join(users)} would still import it"
            continue
        report = await trial.run(with_tests_of(survivor, other), maker.sandbox, needed=needed)
        if report.ok:
            inside.append(other)
        else:
            reasons[other.name] = f"{survivor.name} does not pass its tests: {'; '.join(report.reasons)[:300]}"
    return inside, reasons


def in_use(name: str, users: dict[str, list[ToolPackage]], besides: str = "") -> list[str]:
    """The tools on offer that import one."""
    return [one.name for one in users.get(name, ()) if one.name != besides]


def with_tests_of(survivor: ToolPackage, other: ToolPackage) -> ToolPackage:
    """`survivor` as the tests of `other` are to see it. Raises InputError where they are no Python."""
    return replace(survivor, tests=unions.aimed_at(other.tests, other.name, survivor.name))


async def _whole(survivor: ToolPackage, others: Sequence[ToolPackage], maker: Maker) -> Merge:
    """The next version of `survivor`, with all tests, through gate and trial."""
    tests = unions.union(survivor.name, survivor.tests, [(one.name, one.tests) for one in others])
    package = _next(survivor, others, survivor.code, tests, survivor.author)
    return await _tried(package, (survivor, *others), maker)


def _next(survivor: ToolPackage, others: Sequence[ToolPackage], code: str, tests: str, author: str) -> ToolPackage:
    parents = tuple(one.identity for one in (survivor, *others))
    tests = f"# The tests of {', '.join(parents)}.\n{tests}"
    description = None if code != survivor.code else survivor.description
    package = signature.package(code, tests, description=description, category=survivor.category, author=author)
    return replace(package, parents=parents, ticket=survivor.ticket)


async def _tried(package: ToolPackage, members: tuple[ToolPackage, ...], maker: Maker) -> Merge:
    seen = await examine(maker.library, package, maker.sandbox, settings=maker.gate)
    if not seen.admitted:
        return Merge(reasons={"": f"one tool with the tests of all: {'; '.join(seen.reasons)[:500]}"})
    if package.code != members[0].code and (broken := await _breaks(package, maker)):
        return Merge(reasons={"": broken})
    return Merge(package, members)


async def _breaks(package: ToolPackage, maker: Maker) -> str:
    """Why a tool that imports the old version would not pass with the new one; nothing where all do."""
    for user in maker.users.get(package.name, ()):
        needed = [package if one.name == package.name else one for one in await dependencies(maker.library, user, offered=False)]
        if not (report := await trial.run(user, maker.sandbox, needed=needed)).ok:
            return f"{user.name} imports {package.name} and does not pass with the new version: {'; '.join(report.reasons)[:300]}"
    return ""


async def _generalised(group: Sequence[ToolPackage], maker: Maker) -> Merge:
    """A tool that the policy writes, for all of the group that no other tool imports."""
    survivor, policy, aside = group[0], maker.policy, []
    others = [one for one in group[1:] if not in_use(one.name, maker.users, survivor.name)]
    if policy is None or not others:
        return Merge()
    reasons: tuple[str, ...] = ()
    for attempt in range(ATTEMPTS):
        messages: list[Message] = [{"role": "user", "content": _wording([survivor, *others], survivor.name, reasons)}]
        answer = await ask(
            policy,
            messages,
            purpose=PURPOSE,
            sampling=maker.sampling,
            max_tokens=maker.max_tokens,
            seed=maker.sampling.seed + attempt,
        )
        aside.append(answer)
        made = await _written(code_block(said(answer)), survivor, others, maker)
        if made.package is not None:
            return replace(made, aside=tuple(aside))
        reasons = tuple(made.reasons.values())
    return Merge(reasons={"": f"{policy.name} wrote none that passes: {reasons[0]}"}, aside=tuple(aside))


async def _written(code: str | None, survivor: ToolPackage, others: Sequence[ToolPackage], maker: Maker) -> Merge:
    if code is None:
        return Merge(reasons={"": "there was no closed ```python block in the answer"})
    try:
        signature.read(code, survivor.name)
        tests = unions.union(survivor.name, survivor.tests, [(one.name, one.tests) for one in others])
        assert maker.policy
        package = _next(survivor, others, code, tests, maker.policy.name)
        return await _tried(package, (survivor, *others), maker)
    except InputError as error:
        return Merge(reasons={"": str(error)})


def _wording(tools: Sequence[ToolPackage], name: str, reasons: Collection[str]) -> str:
    shown = "\n\n".join(f"```python\n{one.code.rstrip()}\n```" for one in tools)
    told = f"\nThe last attempt was refused:\n{'; '.join(reasons)[:1200]}\n" if reasons else ""
    filled = {"tools": shown, "name": name, "feedback": told}
    wording = texts()["merge"].strip()
    return re.sub(r"\{(\w+)\}", lambda found: filled.get(found.group(1), found.group()), wording)  # in one pass


def users_of(heads: Sequence[ToolPackage]) -> dict[str, list[ToolPackage]]:
    """The tools on offer by the names of those that they import. What cannot be read imports nothing."""
    found: dict[str, list[ToolPackage]] = {}
    for head in heads:
        if head.status is Status.ADMITTED and signature.TOOLBOX in head.code:
            with contextlib.suppress(InputError):
                for name in signature.other_tools(signature.parse(head.code), head.name):
                    found.setdefault(name, []).append(head)
    return found
