"""Rewards, part by part: ARTIST's numbers, what does not count, and who is left out."""

from __future__ import annotations

import pytest

from toolreason.errors import SettingsError
from toolreason.train import rewards
from toolreason.types import Cell, CellResult, Judgement, Outcome, Segment, Source, StopReason, Trajectory, Verdict

THINK, CALL, ANSWER = "<think>hm</think>", "<python>print(1)</python>", "<answer>1</answer>"
ERROR = Outcome.ERROR


def told(
    *said: str | Outcome,
    judgement: Judgement | None = Judgement.CORRECT,
    stop: StopReason = StopReason.ANSWERED,
    written: str = "tagged",
    prompt: str = "Q",
) -> Trajectory:
    """A trajectory of what the model said, a tool's result wherever an outcome stands."""
    segments = [Segment(Source.PROMPT, prompt)]
    for part in said:
        if isinstance(part, Outcome):
            result = Cell("c", "print(1)", CellResult(part, stdout="<answer>7</answer>"))
            segments.append(Segment(Source.TOOL, "\n<output>\n<answer>7</answer>\n</output>\n", cell=result))
        else:
            segments.append(Segment(Source.MODEL, part))
    verdict = None if judgement is None else Verdict(judgement)
    return Trajectory("t", "p", "artist", "none", tuple(segments), stop, settings={"format": written}, verdict=verdict)


FULL = told(THINK + CALL, Outcome.OK, THINK + ANSWER)


def test_the_preset_of_the_paper_gives_its_numbers() -> None:
    chosen = rewards.weights("artist")
    parts = rewards.score(FULL, chosen)
    assert parts == {"answer": 2.0, "format_relaxed": 0.5, "format_strict": 0.5, "tool_success": 1.0}
    assert rewards.total(parts, chosen) == 4.0


def test_neat_tags_around_a_wrong_answer_are_worth_a_bare_right_one_which_is_why_parts_are_logged() -> None:
    chosen = rewards.weights("artist")
    neat = told(THINK + CALL, Outcome.OK, THINK + ANSWER, judgement=Judgement.WRONG)
    bare = told("the answer is \\boxed{1}")
    assert rewards.total(rewards.score(neat, chosen), chosen) == rewards.total(rewards.score(bare, chosen), chosen) == 2.0


@pytest.mark.parametrize(
    ("trajectory", "relaxed", "strict"),
    [
        (FULL, 0.5, 0.5),
        (told(THINK + CALL, Outcome.OK, CALL, ERROR, THINK + ANSWER), 0.5, 0.5),
        (told("hm</think>" + CALL, Outcome.OK, ANSWER, prompt="Q<think>\n"), 0.5, 0.5),  # the template opened it
        (told(CALL, Outcome.OK, THINK + ANSWER), 0.5, 0.0),  # acts before it thinks
        (told(THINK + CALL, Outcome.OK, ANSWER + ANSWER), 0.5, 0.0),
        (told("<think>" + CALL, Outcome.OK, "</think>" + ANSWER), 0.5, 0.0),  # one inside the other
        (told(THINK + ANSWER), 0.25, 0.0),  # complete is all four
        (told(THINK + CALL + "<output>1</output>" + ANSWER), 0.375, 0.0),  # made up: no tool wrote it
        (told(THINK + CALL, Outcome.OK, "no answer"), 0.375, 0.0),  # the one that the tool printed is nobody's
        (told(THINK + "<answer>1"), 0.125, 0.0),
        (told("nothing"), 0.0, 0.0),
    ],
)
def test_format_counts_pairs_and_their_order(trajectory: Trajectory, relaxed: float, strict: float) -> None:
    assert rewards.format_relaxed(trajectory) == relaxed
    assert rewards.format_strict(trajectory) == strict


def test_tags_are_not_asked_of_who_writes_fences() -> None:
    chosen = rewards.weights("artist")
    parts = rewards.score(told("```python\n", Outcome.OK, written="fenced"), chosen)
    assert parts == {"answer": 2.0, "format_relaxed": None, "format_strict": None, "tool_success": 1.0}
    assert rewards.total(parts, chosen) == 3.0


def test_tool_success_is_the_share_of_calls_that_ran_well_and_zero_without_one() -> None:
    assert rewards.tool_success(told(CALL, Outcome.OK, CALL, ERROR, CALL, Outcome.TIMEOUT, CALL, Outcome.OK, ANSWER)) == 0.5
    assert rewards.tool_success(told(ANSWER)) == 0.0


@pytest.mark.parametrize(
    "trajectory",
    [
        told(THINK + CALL, Outcome.OK, THINK + ANSWER, judgement=Judgement.UNSCORED),
        told(THINK + CALL, Outcome.OK, THINK + ANSWER, judgement=None),
        told(THINK + CALL, Outcome.OK, stop=StopReason.ABORTED),
    ],
    ids=["unscored", "not judged", "aborted"],
)
def test_who_cannot_be_judged_has_no_reward_not_even_for_its_format(trajectory: Trajectory) -> None:
    chosen = rewards.weights("artist")
    parts = rewards.score(trajectory, chosen)
    assert set(parts) == set(chosen)
    assert set(parts.values()) == {None}
    assert rewards.total(parts, chosen) is None


def test_of_several_rounds_the_text_that_is_trained_on_is_rewarded() -> None:
    right = told(ANSWER)
    other = Trajectory(
        **{name: getattr(right, name) for name in ("id", "problem_id", "strategy", "policy", "segments", "stop")},
        verdict=Verdict(Judgement.CORRECT),  # that on its first round
        round_verdicts=(Verdict(Judgement.CORRECT), Verdict(Judgement.WRONG)),
    )
    assert rewards.accuracy(other) == 0.0


def calls(trajectory: Trajectory) -> float:
    return float(len(trajectory.cells))


def test_weights_change_a_preset_and_a_function_of_ones_own_is_a_part() -> None:
    own = f"{__name__}:calls"
    chosen = rewards.weights("outcome", ["accuracy=2", f"{own}=-0.25"])
    assert chosen == {"accuracy": 2.0, own: -0.25}
    assert rewards.total(rewards.score(FULL, chosen), chosen) == 1.75
    assert rewards.weights("artist", ["tool_success=0"]) == {"answer": 1.0, "format_relaxed": 1.0, "format_strict": 1.0}


@pytest.mark.parametrize("preset", rewards.PRESETS)
def test_every_part_of_every_preset_is_a_function(preset: str) -> None:
    assert all(callable(rewards.find(name)) for name in rewards.weights(preset))


@pytest.mark.parametrize(
    ("preset", "changes", "message"),
    [
        ("arist", [], "no rewards 'arist': there are artist, outcome, functions"),
        ("outcome", ["speed=1"], "no reward 'speed'"),
        ("outcome", ["no.such:thing=1"], "no reward 'no.such:thing'"),
        ("outcome", ["accuracy"], "no name=weight"),
        ("outcome", ["accuracy=nan"], "is no number"),
        ("outcome", ["accuracy=0"], "nothing would be learned"),
    ],
)
def test_what_is_not_understood_is_named(preset: str, changes: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        rewards.weights(preset, changes)
