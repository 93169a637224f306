"""From scored rollouts to a group that is trained on: void turns, limits, equal rewards, resampling."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from toolreason.train import groups
from toolreason.train.groups import Member, Mute
from toolreason.types import Cell, CellResult, Judgement, Outcome, Segment, Source, StopReason, Trajectory, Verdict

CALL, ANSWER = "<python>print(1)</python>", "<answer>1</answer>"
OK, ERROR = Outcome.OK, Outcome.ERROR


def told(
    *said: str | Outcome,
    stop: StopReason = StopReason.ANSWERED,
    right: bool | None = True,
    faults: tuple[str, ...] = (),
    written: str = "tagged",
    name: str = "t",
) -> Trajectory:
    segments = [Segment(Source.PROMPT, "Q", (1,))]
    for part in said:
        if isinstance(part, Outcome):
            segments.append(Segment(Source.TOOL, "<output>1</output>", (2,), cell=Cell("c", "print(1)", CellResult(part))))
        else:
            segments.append(Segment(Source.MODEL, part, (3,), (-1.0,)))
    judgement = Judgement.UNSCORED if right is None else Judgement.CORRECT if right else Judgement.WRONG
    return Trajectory(
        name, "p", "artist", "x", tuple(segments), stop, settings={"format": written}, verdict=Verdict(judgement), faults=faults
    )


def member(trajectory: Trajectory, reward: float | None = 0.0) -> Member:
    return Member(trajectory, {"accuracy": reward}, reward)


@pytest.mark.parametrize(
    ("trajectory", "void"),
    [
        (told(CALL, OK, ANSWER), False),
        (told(CALL, OK, "so it is", stop=StopReason.NO_ANSWER), True),
        (told("so it is", stop=StopReason.NO_ANSWER), True),
        (told(CALL, OK, "<python>print(", stop=StopReason.LENGTH), True),
        (told(CALL, OK, stop=StopReason.LENGTH), False),  # the limit struck between two turns
        (told(CALL, OK, CALL, stop=StopReason.CALL_LIMIT), False),  # a complete call, not run
        (told(CALL, OK, f"{CALL}\n", stop=StopReason.LENGTH), False),
        (told(ANSWER + " and on and on", stop=StopReason.LENGTH), False),
        (told("```python\nprint(1)\n```", stop=StopReason.NO_ANSWER, written="fenced"), False),
        (told("```python\nprint(1)\n", stop=StopReason.LENGTH, written="fenced"), True),
        (told("[call]", stop=StopReason.LENGTH, written="another package's"), True),
        (told("[call]", stop=StopReason.TURN_LIMIT, written="another package's"), False),
        (told(stop=StopReason.LENGTH), False),
    ],
)
def test_a_turn_is_void_where_it_has_neither_a_complete_call_nor_an_answer(trajectory: Trajectory, void: bool) -> None:
    assert groups.void(trajectory) is void


def test_each_member_is_muted_for_its_first_reason_and_rewards_stay() -> None:
    members = [
        member(told(ANSWER), 1.0),
        member(told("hm", stop=StopReason.NO_ANSWER, right=False)),
        member(told(CALL, OK, stop=StopReason.LENGTH, right=False)),
        member(told(ANSWER, right=None), None),
        member(told(ANSWER, stop=StopReason.ABORTED), None),
        member(told(stop=StopReason.LENGTH, right=False)),
    ]
    groups.mute(members, too_long=True)
    assert [one.mute for one in members] == [None, Mute.VOID, Mute.OVER_LENGTH, Mute.UNSCORED, Mute.ABORTED, Mute.SILENT]
    assert [one.reward for one in members] == [1.0, 0.0, 0.0, None, None, 0.0]


def test_filters_can_be_turned_off() -> None:
    members = [member(told("hm", stop=StopReason.LENGTH, right=False)) for _ in range(2)]
    groups.mute(members, void_turns=False, too_long=False, same=False)
    assert [one.mute for one in members] == [None, None]


@pytest.mark.parametrize(
    ("rewards", "equal"),
    [([1.0, 1.0], True), ([0.0, 0.0, None], True), ([1.0, 0.0], False), ([None, 1.0], True), ([None, None], True)],
)
def test_a_group_is_equal_where_no_reward_differs_from_another(rewards: list[float | None], equal: bool) -> None:
    members = [member(told(ANSWER), reward) for reward in rewards]
    assert groups.equal(members) is equal
    groups.mute(members)
    assert [one.mute for one in members if one.reward is not None] == [Mute.EQUAL if equal else None] * sum(
        reward is not None for reward in rewards
    )


def test_a_group_has_failed_where_it_was_judged_and_nobody_was_right() -> None:
    wrong, unscored, right = (told(ANSWER, right=right) for right in (False, None, True))
    assert groups.failed([member(wrong), member(unscored, None)])
    assert not groups.failed([member(wrong), member(right, 1.0)])
    assert not groups.failed([member(unscored, None)])


def _of(right: int, wrong: int, unscored: int = 0) -> list[Member]:
    made = [member(told(CALL, OK, ANSWER, name=f"right{n}"), 1.0) for n in range(right)]
    made += [member(told(ANSWER, right=False, name=f"wrong{n}"), 0.0) for n in range(wrong)]
    return made + [member(told(ANSWER, right=None, name=f"unscored{n}"), None) for n in range(unscored)]


@pytest.mark.parametrize(
    ("right", "wrong", "unscored", "kept"),
    [
        (6, 6, 0, (3, 3, 0)),
        (3, 9, 0, (2, 4, 0)),  # 1.5, to the even number
        (1, 11, 0, (1, 5, 0)),  # the one success stays
        (11, 1, 0, (5, 1, 0)),  # and the one failure
        (12, 0, 0, (6, 0, 0)),
        (0, 12, 0, (0, 6, 0)),
        (2, 2, 8, (2, 2, 2)),  # those who could not be judged fill up
        (0, 0, 12, (0, 0, 6)),
        (1, 1, 1, (1, 1, 1)),  # fewer than there are places
    ],
)
def test_resampling_keeps_the_proportion_and_both_kinds(right: int, wrong: int, unscored: int, kept: tuple[int, int, int]) -> None:
    members = _of(right, wrong, unscored)
    chosen = groups.resample(members, 6, random.Random(1))
    names = [one.trajectory.id.rstrip("0123456789") for one in chosen]
    assert (names.count("right"), names.count("wrong"), names.count("unscored")) == kept
    assert [one for one in members if one in chosen] == chosen  # in their order


def test_resampling_prefers_successes_with_few_tool_errors_and_a_clean_format() -> None:
    clean = member(told(CALL, OK, ANSWER, name="clean"), 1.0)
    messy = member(told(CALL, ERROR, CALL, OK, ANSWER, name="messy"), 1.0)
    faulty = member(told(CALL, ERROR, ANSWER, name="faulty", faults=("invented_output",)), 1.0)
    kept = Counter[str]()
    for seed in range(400):
        kept.update(one.trajectory.id for one in groups.resample([faulty, messy, clean], 1, random.Random(seed)))
    assert kept["clean"] > 1.5 * kept["messy"] > 2 * kept["faulty"] > 0


def test_resampling_keeps_failures_uniformly() -> None:
    kept = Counter[str]()
    for seed in range(400):
        kept.update(one.trajectory.id for one in groups.resample(_of(0, 4), 2, random.Random(seed)))
    assert set(kept) == {"wrong0", "wrong1", "wrong2", "wrong3"}
    assert min(kept.values()) > 150
