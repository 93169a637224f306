"""Rollouts of `uct` over one library, for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.graphs.competent import Competent
from toolreason.execution import SessionBook
from toolreason.execution.base import Sandbox
from toolreason.policies.base import Policy
from toolreason.rollouts import rollout
from toolreason.strategies.uct import UctSettings
from toolreason.tools import signature
from toolreason.tools.library import Library
from toolreason.tools.package import Status, ToolPackage
from toolreason.tools.workshop import Workshop
from toolreason.types import Problem, Reference, ReferenceKind, StopReason, Trajectory

PROBLEM = Problem("p1", "How many multiples of 7 are there up to 100?", Reference(ReferenceKind.MATH, "14"))
SETTINGS = UctSettings(max_tokens=20_000)


class Run:
    """One rollout to its end, in a session book of its own."""

    def __init__(self, library: Library, sandbox: Sandbox) -> None:
        self.library, self.sandbox = library, sandbox

    async def __call__(self, competent: Competent | Policy, problem: Problem = PROBLEM, **settings: Any) -> Trajectory:
        chosen = replace(SETTINGS, **settings)
        library = self.library.frozen() if chosen.frozen else self.library
        policy = competent.policy() if isinstance(competent, Competent) else competent
        workshop = Workshop(library, self.sandbox)
        async with SessionBook(self.sandbox) as book:
            done = await rollout(problem, strategy="uct", policy=policy, sessions=book, settings=chosen, workshop=workshop)
        assert done.stop is not StopReason.ABORTED, done.error
        return done

    async def keep(self, code: str, tests: str, **more: Any) -> ToolPackage:
        """Put a tool on offer as it is, past gate and trial: as one that fooled both, or that an older gate let in."""
        return await self.library.add(replace(signature.package(code, tests), status=Status.ADMITTED, **more))
