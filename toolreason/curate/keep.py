"""The keep rule of Hint-RFT (START, section 3.2): a problem stays only where plain reasoning was wrong and a hinted trace is right.

A rollout without a verdict that counts takes its problem out, or falls itself: it is counted apart from wrong ones. That plain
reasoning was wrong once is partly luck, so measure a gain on fresh samples. The second stage has no keep rule: right is enough.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from enum import StrEnum

from toolreason.curate.settings import CurateSettings
from toolreason.curate.steps import Fall, Row
from toolreason.stats import scored
from toolreason.types import StopReason, Trajectory


class Plain(StrEnum):
    """What plain reasoning made of a problem."""

    WRONG = "plain was wrong"
    RIGHT = "plain was right"
    UNSCORED = "plain unscored"
    UNFINISHED = "plain did not end with an answer"
    MISSING = "no plain rollout"


def plain_states(plain: Iterable[Trajectory], settings: CurateSettings) -> dict[str, Plain]:
    """By problem. Of several plain rollouts of one problem all have to be wrong (the paper has one, greedy)."""
    found: defaultdict[str, set[Plain]] = defaultdict(set)
    for one in plain:
        found[one.problem_id].add(_state(one, settings))
    order = (Plain.RIGHT, Plain.UNSCORED, Plain.UNFINISHED, Plain.WRONG, Plain.MISSING)
    return {problem: next(state for state in order if state in states) for problem, states in found.items()}


def _state(one: Trajectory, settings: CurateSettings) -> Plain:
    if one.stop is StopReason.ABORTED:
        return Plain.MISSING
    right = scored(one)
    if right is None:
        return Plain.UNSCORED
    if right:
        return Plain.RIGHT
    return Plain.UNFINISHED if settings.plain_answered and not _answered(one) else Plain.WRONG


def _answered(one: Trajectory) -> bool:
    """Whether the model ended with an answer. A program, or a letter without a box, is one that the verifier alone sees."""
    told = one.verdict is not None and one.verdict.answer is not None
    return one.stop is StopReason.ANSWERED or (one.stop is StopReason.NO_ANSWER and told)


def right(row: Row) -> Fall | None:
    """Only right traces that ended with an answer."""
    one = row.trajectory
    if one.stop is StopReason.ABORTED:
        return Fall("aborted", one.error or "")
    judged = scored(one)
    if judged is None:
        return Fall("unscored", one.verdict.reason if one.verdict else "not verified")
    if not judged:
        return Fall("wrong", (one.verdict.answer if one.verdict else None) or "no answer")
    return None if _answered(one) else Fall("did not end with an answer", one.stop.value)


def hint_rft(row: Row, plain: Mapping[str, Plain]) -> Fall | None:
    """Right, and of a problem that plain reasoning got wrong."""
    state = plain.get(row.trajectory.problem_id, Plain.MISSING)
    return Fall(state.value) if state is not Plain.WRONG else right(row)
