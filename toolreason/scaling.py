"""Sequential test-time scaling: which round's answer counts (START, arXiv 2503.04625, section 3.2; the ways to choose are ours).

last       the last round that came to an end of its own
majority   the answer that most rounds gave; of equals, the one given first
certain    the round whose own tokens had the highest mean self-certainty
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

from toolreason.errors import SettingsError
from toolreason.policies.certainty import mean
from toolreason.types import Problem, Source, StopReason, Trajectory, Verdict

WAYS = ("last", "majority", "certain")

Judge = Callable[[Problem, Trajectory], Awaitable[Verdict]]


def choose(trajectory: Trajectory, by: str, upto: int | None = None) -> int:
    """The number, from 0, of the round whose answer counts among the first `upto` (default: all).

    Rounds without an answer count only where none has one, rounds that a limit cut off only where none ended. `majority` reads the
    rounds' verdicts. Raises SettingsError where `by` is unknown, or "certain" and the tokens carry no certainties.
    """
    if by not in WAYS:
        raise SettingsError(f"no way {by!r} to choose a round: there are {', '.join(WAYS)}")
    rounds = trajectory.rounds[:upto]
    answered = [at for at, one in enumerate(rounds) if one.stop is StopReason.ANSWERED]
    ended = answered or [at for at, one in enumerate(rounds) if one.stop is StopReason.NO_ANSWER] or [len(rounds) - 1]
    if by == "last" or len(ended) == 1:
        return ended[-1]
    if by == "certain":
        return max(ended, key=lambda at: (_certainty(trajectory, at), -at))
    answers = {at: verdict.answer for at in ended if (verdict := _verdict(trajectory, at)) and verdict.answer is not None}
    if not answers:
        return ended[-1]
    counts = Counter(answers.values())
    return max(answers, key=lambda at: (counts[answers[at]], -at))


async def judge(problem: Problem, trajectory: Trajectory, verifier: Judge) -> Trajectory:
    """The trajectory with a verdict on each round, and as its own that of the round that its settings choose."""
    rounds = trajectory.rounds
    verdicts = tuple([await verifier(problem, one) for one in rounds])
    if len(rounds) == 1:
        return trajectory.with_verdict(verdicts[0])
    judged = replace(trajectory, round_verdicts=verdicts)
    return judged.with_verdict(verdicts[choose(judged, str(trajectory.settings.get("answer", "last")))])


def whole(trajectory: Trajectory) -> Trajectory:
    """The trajectory with the verdict on its whole text, which is what is trained on: its own may be that on an earlier round."""
    return trajectory.with_verdict(trajectory.round_verdicts[-1]) if trajectory.round_verdicts else trajectory


def _verdict(trajectory: Trajectory, at: int) -> Verdict | None:
    return trajectory.round_verdicts[at] if at < len(trajectory.round_verdicts) else trajectory.verdict


def _certainty(trajectory: Trajectory, at: int) -> float:
    """The mean over what the model said in this round: not what a round before had said."""
    rounds = trajectory.rounds
    begun = _begun(trajectory, at)
    spoken = [segment for segment in rounds[at].segments[begun:] if segment.source is Source.MODEL and segment.token_ids]
    values = [value for segment in spoken for value in segment.certainties or ()]
    found = mean(values)
    if found is None:
        raise SettingsError("the tokens carry no certainties: collect with --top-logprobs 20 to choose the most certain round")
    return found


def _begun(trajectory: Trajectory, at: int) -> int:
    """The first segment of a round."""
    ends = [part.after for part in trajectory.taken_back if part.stop is not None]
    return ends[at - 1] if at else 0
