"""Which round's answer counts, and that every round gets its verdict."""

from dataclasses import replace

import pytest

from toolreason.errors import SettingsError
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.rollouts import rollout
from toolreason.scaling import WAYS, choose, judge
from toolreason.strategies.hint_infer import HintInferSettings
from toolreason.types import (
    Judgement,
    Problem,
    Reference,
    ReferenceKind,
    Segment,
    Source,
    StopReason,
    TakenBack,
    Trajectory,
    Verdict,
)
from toolreason.verify import Verifier

PROMPT, HINT = Segment(Source.PROMPT, "p", (1,)), Segment(Source.HINT, "h", (9,))


def spoken(certainty: float) -> Segment:
    return Segment(Source.MODEL, "x", (2,), (-0.1,), certainties=(certainty,))


def rounds(*answers: str | None, certainties: tuple[float, ...] = (), last: StopReason = StopReason.ANSWERED) -> Trajectory:
    """A trajectory of so many rounds, each of one token; None: a round without an answer."""
    segments, taken, verdicts = [PROMPT], [], []
    for at, answer in enumerate(answers):
        said = spoken(certainties[at] if certainties else 1.0)
        stop = StopReason.ANSWERED if answer is not None else StopReason.NO_ANSWER
        if at + 1 < len(answers):
            segments.append(HINT)
            taken.append(TakenBack(len(segments) - 1, said, stop))
        else:
            segments.append(said)
        verdicts.append(Verdict(Judgement.CORRECT if answer == "7" else Judgement.WRONG, answer))
    stop = last if answers[-1] is not None else StopReason.NO_ANSWER
    return Trajectory("t", "p", "s", "m", tuple(segments), stop, taken_back=tuple(taken), round_verdicts=tuple(verdicts))


@pytest.mark.parametrize(
    ("answers", "by", "chosen"),
    [
        (("1", "2", "3"), "last", 2),
        (("1", "2", None), "last", 1),
        ((None, None), "last", 1),
        (("1", "2", "2", "3"), "majority", 1),
        (("1", "2", "3"), "majority", 0),
        (("1", None, None), "majority", 0),
        (("1",), "majority", 0),
    ],
)
def test_each_way_to_choose(answers: tuple[str | None, ...], by: str, chosen: int) -> None:
    assert choose(rounds(*answers), by) == chosen


def test_the_first_rounds_alone_can_be_asked_for() -> None:
    assert [choose(rounds("1", "2", "2"), "majority", upto) for upto in (1, 2, 3)] == [0, 0, 1]


def test_a_round_cut_off_by_a_limit_does_not_count() -> None:
    assert choose(rounds("1", "2", "3", last=StopReason.LENGTH), "last") == 1


def test_the_most_certain_round_is_measured_by_its_own_tokens() -> None:
    assert choose(rounds("1", "2", "3", certainties=(4, 9, 5)), "certain") == 1
    assert choose(rounds("1", "2", "3", certainties=(4, 4, 4)), "certain") == 0
    bare = rounds("1", "2")
    bare = replace(bare, segments=(PROMPT, HINT, Segment(Source.MODEL, "x", (2,))))
    with pytest.raises(SettingsError, match="top-logprobs"):
        choose(bare, "certain")
    with pytest.raises(SettingsError, match="last, majority, certain"):
        choose(bare, "best")


async def test_a_rollout_of_several_rounds_is_judged_round_by_round() -> None:
    problem = Problem("p", "?", Reference(ReferenceKind.MATH, "7"))
    policy = ScriptedPolicy(["\\boxed{7}", "\\boxed{7}", "\\boxed{8}"])
    for way in WAYS:
        policy.calls.clear()
        settings = HintInferSettings(kind="wait", execute=False, hint="start", rounds=3, answer=way)  # type: ignore[arg-type]
        done = await rollout(problem, strategy="hint_infer", policy=policy, settings=settings)
        async with Verifier() as verifier:
            judged = await judge(problem, done, verifier)
        assert [verdict.answer for verdict in judged.round_verdicts] == ["7", "7", "8"]
        assert judged.verdict is not None
        assert judged.verdict == judged.round_verdicts[choose(judged, way)]
        assert (done.segments[-1].certainties is not None) == (way == "certain")
