"""The nouns round-trip through JSON and strict msgpack, and refuse what cannot be."""

import dataclasses
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from toolreason import types
from toolreason.errors import SettingsError
from toolreason.types import (
    Cell,
    CellResult,
    Judgement,
    Outcome,
    Problem,
    Reference,
    ReferenceKind,
    Sampling,
    Segment,
    Source,
    StopReason,
    TakenBack,
    Trajectory,
    Verdict,
    from_json,
    to_json,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
SECONDS = st.floats(0, 1e6, allow_nan=False)
RESULTS = st.builds(
    CellResult, st.sampled_from(Outcome), TEXT, TEXT, st.none() | TEXT, st.none() | TEXT, TEXT, st.integers(0, 2**40), SECONDS
)
IDS = st.lists(st.integers(0, 2**31), max_size=12).map(tuple)


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    source = draw(st.sampled_from(Source))
    ids = draw(IDS)
    logprobs = certainties = None
    if source is Source.MODEL and draw(st.booleans()):
        logprobs = tuple(draw(st.floats(-50, 0)) for _ in ids)
        certainties = tuple(draw(st.floats(0, 50)) for _ in ids)
    cell = Cell(draw(TEXT), draw(TEXT), draw(RESULTS)) if source is Source.TOOL else None
    return Segment(source, draw(TEXT), ids, logprobs, cell, certainties)


PROBLEMS = st.builds(
    Problem,
    TEXT,
    TEXT,
    st.builds(Reference, st.sampled_from(ReferenceKind), TEXT, st.lists(TEXT).map(tuple), st.lists(TEXT).map(tuple), TEXT, TEXT),
    TEXT,
    st.lists(TEXT).map(tuple),
)
TRAJECTORIES = st.builds(
    Trajectory,
    id=TEXT,
    problem_id=TEXT,
    strategy=TEXT,
    policy=TEXT,
    segments=st.lists(segments(), max_size=5).map(tuple),
    stop=st.sampled_from(StopReason),
    sample=st.integers(0, 100),
    sampling=st.builds(Sampling, st.floats(0, 2), st.floats(0.1, 1), st.integers(0, 100), st.integers(0, 2**31)),
    settings=st.dictionaries(TEXT, st.none() | st.booleans() | st.integers(-(2**40), 2**40) | TEXT, max_size=3),
    verdict=st.none() | st.builds(Verdict, st.sampled_from(Judgement), st.none() | TEXT, TEXT),
    faults=st.lists(TEXT, max_size=3).map(tuple),
    rewards=st.dictionaries(TEXT, st.floats(-5, 5), max_size=3),
    timings=st.dictionaries(TEXT, SECONDS, max_size=3),
    error=st.none() | TEXT,
    taken_back=st.lists(
        st.builds(TakenBack, st.integers(0, 9), segments(), st.none() | st.sampled_from(StopReason)), max_size=2
    ).map(tuple),
    round_verdicts=st.lists(st.builds(Verdict, st.sampled_from(Judgement)), max_size=2).map(tuple),
)


@given(TRAJECTORIES)
def test_a_trajectory_round_trips_through_one_line_of_json(trajectory: Trajectory) -> None:
    line = to_json(trajectory)
    assert "\n" not in line
    assert from_json(Trajectory, line) == trajectory


@given(PROBLEMS)
def test_a_problem_round_trips_through_json(problem: Problem) -> None:
    assert from_json(Problem, to_json(problem)) == problem


ALLOWED = [getattr(types, name) for name in dir(types) if dataclasses.is_dataclass(getattr(types, name))] + [
    Source, StopReason, Outcome, Judgement, ReferenceKind
]  # fmt: skip


@given(TRAJECTORIES, PROBLEMS)
def test_the_nouns_round_trip_through_strict_msgpack(trajectory: Trajectory, problem: Problem) -> None:
    serde = JsonPlusSerializer(allowed_msgpack_modules=ALLOWED, pickle_fallback=False)
    for noun in (trajectory, problem, list(trajectory.segments)):
        again = serde.loads_typed(serde.dumps_typed(noun))
        assert again == noun
    for segment in serde.loads_typed(serde.dumps_typed(list(trajectory.segments))):
        hash(segment)  # tuples came back as tuples


def test_every_noun_is_frozen_and_every_field_is_plain() -> None:
    for noun in (value for value in vars(types).values() if dataclasses.is_dataclass(value)):
        assert noun.__dataclass_params__.frozen, noun
        for name, hint in typing.get_type_hints(noun).items():
            assert "Callable" not in str(hint), (noun, name)


def test_only_sampled_tokens_have_log_probabilities() -> None:
    with pytest.raises(ValueError, match="no log-probabilities"):
        Segment(Source.HINT, "a", (1,), (-0.1,))


def test_log_probabilities_come_one_per_token_and_finite() -> None:
    with pytest.raises(ValueError, match="2 tokens but 1"):
        Segment(Source.MODEL, "ab", (1, 2), (-0.1,))
    with pytest.raises(ValueError, match="finite"):
        Segment(Source.MODEL, "a", (1,), (float("-inf"),))


def test_a_tool_segment_carries_its_cell_and_no_other_does() -> None:
    cell = Cell("1", "print(1)", CellResult(Outcome.OK, "1\n"))
    with pytest.raises(ValueError, match="carries its cell"):
        Segment(Source.TOOL, "1")
    with pytest.raises(ValueError, match="carries its cell"):
        Segment(Source.MODEL, "1", cell=cell)


def test_a_cell_that_timed_out_or_crashed_keeps_nothing_and_one_that_raised_keeps_its_state() -> None:
    kept = {outcome for outcome in Outcome if outcome.committed}
    assert kept == {Outcome.OK, Outcome.ERROR}


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.5}, {"top_k": -1}])
def test_a_sampling_setting_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        Sampling(**wrong)


def test_tokens_are_counted_by_source_and_the_prompt_only_when_asked_for() -> None:
    row = (Segment(Source.PROMPT, "p", (1, 2, 3)), Segment(Source.HINT, "h", (4,)), Segment(Source.MODEL, "m", (5, 6)))
    trajectory = Trajectory("t", "p", "plain", "scripted", row, StopReason.ANSWERED)
    assert trajectory.tokens() == 3
    assert trajectory.tokens(Source.PROMPT) == 3
    assert trajectory.tokens(Source.MODEL) == 2
    assert trajectory.token_ids == (1, 2, 3, 4, 5, 6)
    assert trajectory.response == "hm"


def test_rounds_are_the_trajectory_as_it_stood_at_each_ending() -> None:
    prompt, hint = Segment(Source.PROMPT, "p", (1,)), Segment(Source.HINT, "h", (9,))
    kept, ending = Segment(Source.MODEL, "so ", (2,)), Segment(Source.MODEL, "2.", (3, 4))
    conjunction = TakenBack(2, Segment(Source.MODEL, "Wait", (5,)))
    last = Segment(Source.MODEL, "3.", (6,))
    verdicts = (Verdict(Judgement.WRONG), Verdict(Judgement.CORRECT))
    whole = Trajectory(
        "t",
        "p",
        "hint_infer",
        "scripted",
        (prompt, kept, hint, last),
        StopReason.ANSWERED,
        taken_back=(TakenBack(2, ending, StopReason.NO_ANSWER), conjunction),
        verdict=verdicts[1],
        round_verdicts=verdicts,
    )
    first, second = whole.rounds
    assert (first.segments, first.stop, first.verdict) == ((prompt, kept, ending), StopReason.NO_ANSWER, verdicts[0])
    assert second is whole
    assert (first.spent, whole.spent) == (3, 6)
