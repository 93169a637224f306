"""Deciding whether a trajectory's answer is right: `correct`, `wrong`, or `unscored` where that cannot be decided.

`extract` finds the answer in the model's own words; `math`, `choice`, `code` and `gym` decide; `workers` bounds what can run away.
"""

from __future__ import annotations

from typing import Self

from toolreason.errors import VerifierError
from toolreason.execution.base import Sandbox
from toolreason.functions import judge
from toolreason.types import Judgement, Problem, ReferenceKind, StopReason, Trajectory, Verdict
from toolreason.verify import choice, code, extract
from toolreason.verify.workers import Overtime, Workers

__all__ = ["Verifier"]


class Verifier:
    """Grades trajectories. Use it as an async context manager, within one event loop.

    `sandbox` is needed for code and for function calls only; `workers` processes start when first needed; `timeout_s` bounds one
    verdict (one cell, for code). Never raises for what a model wrote, nor for a grader that failed: that is `unscored`.
    """

    def __init__(self, sandbox: Sandbox | None = None, workers: int = 2, timeout_s: float = 10.0) -> None:
        self.sandbox, self.timeout_s = sandbox, timeout_s
        self._workers = Workers(workers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the workers. The sandbox is the caller's. Safe to call twice."""
        await self._workers.aclose()

    async def __call__(self, problem: Problem, trajectory: Trajectory) -> Verdict:
        """The verdict on this trajectory. Only what model and hints wrote counts as an answer."""
        if trajectory.stop is StopReason.ABORTED:
            return Verdict(Judgement.UNSCORED, reason="the rollout was aborted")
        if problem.reference.kind is ReferenceKind.CALLS:
            return await judge.judge(problem, trajectory, self.sandbox, self.timeout_s)
        return await self.grade(problem, extract.own_text(trajectory.segments))

    async def grade(self, problem: Problem, response: str) -> Verdict:
        """The verdict on a response text."""
        reference = problem.reference
        match reference.kind:
            case ReferenceKind.CHOICE:
                return choice.judge(reference, response)
            case ReferenceKind.CODE:
                return await code.judge(reference, response, self.sandbox, self.timeout_s)
            case ReferenceKind.MATH:
                return await self._work(response, "math", reference.answer)
            case ReferenceKind.GYM:
                return await self._work(response, "gym", reference.dataset, reference.entry)
            case ReferenceKind.CALLS:
                return Verdict(Judgement.UNSCORED, reason="calls are judged with their whole trajectory")
            case ReferenceKind.NONE:
                return Verdict(Judgement.UNSCORED, extract.answer(response), "the problem has no reference")

    async def _work(self, response: str, kind: str, *reference: str) -> Verdict:
        answer = extract.answer(response)
        if answer is None:
            return Verdict(Judgement.WRONG, reason="no answer")
        grader = f"toolreason.verify.{kind}:judge"
        try:
            judgement, reason = await self._workers.run(grader, *reference, answer, timeout_s=self.timeout_s)
        except (VerifierError, Overtime) as error:
            return Verdict(Judgement.UNSCORED, answer, str(error))
        return Verdict(Judgement(judgement), answer, reason)
