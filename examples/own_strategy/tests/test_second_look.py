"""The package's own test: with a policy that says what it is told to, no model is needed."""

import asyncio

from second_look import SecondLookSettings, strategy

from toolreason import Problem, StopReason, rollout
from toolreason.policies import ScriptedPolicy


def test_it_looks_once_more_and_the_last_answer_counts() -> None:
    policy = ScriptedPolicy(["It is \\boxed{41}.", " Ah, \\boxed{42}."])
    done = asyncio.run(rollout(Problem("p", "6 times 7?"), strategy=strategy, policy=policy))
    assert [segment.source.value for segment in done.segments] == ["prompt", "model", "hint", "model"]
    assert done.segments[2].text.strip() == SecondLookSettings().words
    assert done.stop is StopReason.ANSWERED
