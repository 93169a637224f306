"""Whole rollouts of each strategy: the segments, where they came from, why they ended."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolreason.errors import CapabilityError, PolicyError, SandboxError, SettingsError
from toolreason.formats import INVENTED_OUTPUT
from toolreason.graphs.nodes import Event
from toolreason.policies.base import Completion, Finish
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.rollouts import rollout
from toolreason.strategies import places
from toolreason.strategies.artist import ArtistSettings
from toolreason.strategies.base import Settings
from toolreason.strategies.hint_infer import HintInferSettings
from toolreason.strategies.plain import PlainSettings
from toolreason.strategies.prompts import messages
from toolreason.types import (
    CellResult,
    Outcome,
    Problem,
    Reference,
    ReferenceKind,
    Sampling,
    Segment,
    Source,
    StopReason,
    Trajectory,
)
from toolreason.verify.extract import answer, own_text

from ..exactness import Recorder, check
from .conftest import FakeSessions, RecordingPolicy

PROBLEM = Problem("p1", "What is 6 times 7?")
FENCED = ArtistSettings(format="fenced")
CALL = "Let me compute.\n```python\nprint(6*7)\n```\n"
HINT_START = "Let me use Python to compute this:\n```python\n"


def sources(trajectory: Trajectory) -> list[str]:
    return [segment.source.value for segment in trajectory.segments]


async def test_plain_is_a_prompt_and_what_the_model_said() -> None:
    policy = ScriptedPolicy(["It is \\boxed{42}."])
    done = await rollout(PROBLEM, strategy="plain", policy=policy)
    assert sources(done) == ["prompt", "model"]
    assert done.stop is StopReason.ANSWERED
    assert done.response == "It is \\boxed{42}.<|im_end|>"
    assert done.token_ids[-1] == policy.tokenizer.end_id
    assert policy.calls[0].stop == ()


async def test_artist_runs_a_call_and_inserts_its_result(sessions: FakeSessions) -> None:
    policy = ScriptedPolicy([CALL + "never said", "So \\boxed{42}"])
    done = await rollout(PROBLEM, strategy="artist", policy=policy, sessions=sessions, settings=FENCED)
    assert sources(done) == ["prompt", "model", "tool", "model"]
    assert [s.text for s in done.segments[1:]] == [CALL, "```output\n42\n```\n", "So \\boxed{42}<|im_end|>"]
    assert done.cells[0].code == "print(6*7)\n"
    assert done.cells[0].call_id == f"{done.id}:0"
    assert sessions.released[-1] == done.id


async def test_artist_in_the_tags_of_the_paper(sessions: FakeSessions) -> None:
    policy = ScriptedPolicy(["<think>hm</think><python>print(6*7)</python> more", "<answer>42</answer> and more"])
    done = await rollout(PROBLEM, strategy="artist", policy=policy, sessions=sessions)
    assert [s.text for s in done.segments[2:]] == ["\n<output>\n42\n</output>\n", "<answer>42</answer>"]
    assert done.stop is StopReason.ANSWERED


async def test_artist_without_an_offer_asks_as_hinted_rollouts_do_and_runs_what_comes(sessions: FakeSessions) -> None:
    policy = ScriptedPolicy([CALL, "So \\boxed{42}"])
    unoffered = ArtistSettings(format="fenced", offered=False)
    done = await rollout(PROBLEM, strategy="artist", policy=policy, sessions=sessions, settings=unoffered)
    hinted = await rollout(PROBLEM, strategy="hint_infer", policy=ScriptedPolicy([CALL, "So \\boxed{42}"]), sessions=sessions)
    assert done.segments[0] == hinted.segments[0]
    assert "Python" not in done.segments[0].text
    assert sources(done) == ["prompt", "model", "tool", "model"]
    with pytest.raises(SettingsError, match="add format=fenced"):
        ArtistSettings(offered=False)


async def test_the_print_missing_feedback_reaches_the_model() -> None:
    silent = FakeSessions(lambda code: CellResult(Outcome.OK))
    policy = ScriptedPolicy([CALL, "\\boxed{1}"])
    await rollout(PROBLEM, strategy="artist", policy=policy, sessions=silent, settings=FENCED)
    assert "print() what you want to see" in policy.calls[1].prompt


async def test_a_start_hint_opens_the_answer_and_the_model_goes_on_in_its_fence(sessions: FakeSessions) -> None:
    policy = ScriptedPolicy(["print(6*7)\n```\n", "So \\boxed{42}"])
    settings = HintInferSettings(kind="complex calculation", wording=0)
    done = await rollout(PROBLEM, strategy="hint_infer", policy=policy, sessions=sessions, settings=settings)
    assert sources(done) == ["prompt", "hint", "model", "tool", "model"]
    assert done.segments[1].text == HINT_START
    assert done.segments[1].token_ids == policy.encode(HINT_START)
    assert done.segments[1].logprobs is None
    assert done.cells[0].code == "print(6*7)\n"


async def test_an_end_hint_takes_the_end_token_back_and_nothing_else(sessions: FakeSessions) -> None:
    policy = RecordingPolicy(["It is \\boxed{41}.", "print(6*7)\n```\n", "So \\boxed{42}"])
    done = await rollout(PROBLEM, strategy="hint_infer", policy=policy, sessions=sessions, settings=HintInferSettings(hint="end"))
    assert sources(done) == ["prompt", "model", "hint", "model", "tool", "model"]
    drawn = policy.exchanges[0][1]
    assert done.segments[1].token_ids == drawn[:-1]
    assert done.segments[1].text == "It is \\boxed{41}."
    assert len(done.segments[1].logprobs or ()) == len(drawn) - 1


async def test_an_end_hint_goes_before_the_end_of_thinking(sessions: FakeSessions) -> None:
    policy = ScriptedPolicy(["<think>hm 41</think> so", "print(6*7)\n```\n", "ok</think>\\boxed{42}"])
    done = await rollout(PROBLEM, strategy="hint_infer", policy=policy, sessions=sessions, settings=HintInferSettings(hint="end"))
    assert done.segments[1].text == "<think>hm 41"
    assert done.stop is StopReason.ANSWERED


WAITING = "It is 41. Wait, is it? Yes, \\boxed{41}."


async def test_a_hint_at_the_last_conjunction_keeps_what_it_took_back(sessions: FakeSessions) -> None:
    policy = Recorder(ScriptedPolicy([WAITING, "print(6*7)\n```\n", "So \\boxed{42}"]))
    settings = HintInferSettings(hint="last", min_prefix_tokens=0)
    done = await rollout(PROBLEM, strategy="hint_infer", policy=policy, sessions=sessions, settings=settings)
    assert sources(done) == ["prompt", "model", "hint", "model", "tool", "model"]
    assert done.segments[1].text == "It is 41. "
    assert done.segments[2].text.startswith("\n\n")
    assert [(part.after, part.segment.text, part.stop) for part in done.taken_back] == [(2, WAITING[10:] + "<|im_end|>", None)]
    assert done.spent == done.tokens() + len(done.taken_back[0].segment.token_ids)
    check(policy, done)


async def test_a_small_hint_goes_on_after_the_conjunction(sessions: FakeSessions, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('[[hint]]\nkind = "mine"\nplaces = ["middle", "end"]\ntext = "let me compute:\\n```python\\n"\n')
    policy = Recorder(ScriptedPolicy([WAITING, "print(6*7)\n```\n", "So \\boxed{42}"]))
    settings = HintInferSettings(hint="last", min_prefix_tokens=0, hints=str(own), kind="mine")
    done = await rollout(PROBLEM, strategy="hint_infer", policy=policy, sessions=sessions, settings=settings)
    assert "".join(segment.text for segment in done.segments[1:3]) == "It is 41. Wait, let me compute:\n```python\n"
    check(policy, done)


async def test_hints_at_all_conjunctions_are_written_as_the_reasoning_goes(sessions: FakeSessions) -> None:
    replies = ["So 41. Wait, I", "print(6*7)\n```\n", "It is 42. Await, said he. Wait, hm", "print(6*7)\n```\n", "\\boxed{42}"]
    spoken = iter([*replies[:3], "said he. Wait, hm", *replies[3:]])
    policy = Recorder(ScriptedPolicy(lambda prompt, index: next(spoken)))
    settings = HintInferSettings(hint="all", min_prefix_tokens=0, max_hints=2)
    done = await rollout(PROBLEM, strategy="hint_infer", policy=policy, sessions=sessions, settings=settings)
    assert sources(done) == ["prompt", "model", "hint", "model", "tool", "model", "model", "hint", "model", "tool", "model"]
    assert (done.segments[5].text, done.segments[6].text) == ("It is 42. Await,", " said he. ".removeprefix(" "))
    assert done.stop is StopReason.ANSWERED
    assert len(done.cells) == 2
    check(policy, done)


async def test_a_model_that_thinks_gets_its_start_hint_inside_its_thoughts(sessions: FakeSessions) -> None:
    policy = ScriptedPolicy(["print(6*7)\n```\n", "</think>So \\boxed{42}"])
    policy.thinks = True
    done = await rollout(PROBLEM, strategy="hint_infer", policy=policy, sessions=sessions)
    assert done.segments[1].text.startswith("<think>\n")
    settings = HintInferSettings(think="no", execute=False)
    done = await rollout(PROBLEM, strategy="hint_infer", policy=policy, settings=settings, sampling=Sampling(seed=1))
    assert "<think>" not in done.segments[1].text


async def test_each_round_takes_the_ending_back_and_keeps_its_answer(sessions: FakeSessions) -> None:
    first, cell, second, third = (
        "<think>hm</think>\\boxed{41}",
        "print(6*7)\n```\n",
        "ok</think>\\boxed{42}",
        "hm</think>\\boxed{43}",
    )
    policy = Recorder(ScriptedPolicy([first, cell, second, cell, third]))
    settings = HintInferSettings(hint="end", rounds=2)
    done = await rollout(PROBLEM, strategy="hint_infer", policy=policy, sessions=sessions, settings=settings)
    assert sources(done) == ["prompt", "model", "hint", "model", "tool", "model", "hint", "model", "tool", "model"]
    assert [part.stop for part in done.taken_back] == [None, StopReason.ANSWERED]
    assert [answer(own_text(one.segments)) for one in done.rounds] == ["42", "43"]
    assert done.rounds[0].response.endswith("ok</think>\\boxed{42}<|im_end|>")
    assert [len(one.cells) for one in done.rounds] == [1, 2]
    check(policy, done)


async def test_each_round_has_its_own_calls(sessions: FakeSessions) -> None:
    cell = "print(6*7)\n```\n"
    policy = ScriptedPolicy([cell, "\\boxed{1}", cell, "\\boxed{2}", cell, "\\boxed{3}"])
    settings = HintInferSettings(hint="start", max_calls=1, rounds=3)
    done = await rollout(PROBLEM, strategy="hint_infer", policy=policy, sessions=sessions, settings=settings)
    assert [len(one.cells) for one in done.rounds] == [1, 2, 3]
    assert done.stop is StopReason.ANSWERED


async def test_calls_that_a_round_did_not_make_are_not_the_next_ones(sessions: FakeSessions) -> None:
    call = "print(6*7)\n```\n"
    policy = ScriptedPolicy(["\\boxed{1}", call, "```python\n" + call, "never"])
    settings = HintInferSettings(max_calls=1, rounds=2)
    done = await rollout(PROBLEM, strategy="hint_infer", policy=policy, sessions=sessions, settings=settings)
    assert (done.stop, len(done.cells)) == (StopReason.CALL_LIMIT, 1)


async def test_what_no_hint_could_follow_is_not_taken_back(sessions: FakeSessions) -> None:
    said = "So three. Wait, \\boxed{42}"
    length = len(ScriptedPolicy([]).encode(said)) + 1
    tight: list[dict[str, Any]] = [{"hint": "last", "max_tokens": length}, {"hint": "end", "max_turns": 1}, {"max_tokens": length}]
    for more in tight:
        settings = HintInferSettings(min_prefix_tokens=0, rounds=2, **{"hint": "end", **more})
        done = await rollout(PROBLEM, strategy="hint_infer", policy=ScriptedPolicy([said]), sessions=sessions, settings=settings)
        assert (done.stop, done.response, done.spent) == (StopReason.ANSWERED, f"{said}<|im_end|>", length)
    policy = ScriptedPolicy(["42\n```\n\\boxed{1}"])
    settings = HintInferSettings(rounds=3, max_turns=1, execute=False)
    done = await rollout(PROBLEM, strategy="hint_infer", policy=policy, settings=settings)
    assert (done.stop, len(done.rounds)) == (StopReason.ANSWERED, 1)


@pytest.mark.parametrize("end", ["", "</think>"])
async def test_a_hint_after_an_open_block_closes_it_first(sessions: FakeSessions, end: str) -> None:
    policy = ScriptedPolicy([f"So:\n```python\nx = (\n{end}", "print(6*7)\n```\n", "So \\boxed{42}"])
    settings = HintInferSettings(hint="end", kind="general tool use")
    done = await rollout(PROBLEM, strategy="hint_infer", policy=policy, sessions=sessions, settings=settings)
    assert done.segments[2].text == "```\n\nWait, maybe using Python here is a good idea:\n```python\n"
    assert [cell.code for cell in done.cells] == ["print(6*7)\n"]


async def test_a_program_that_is_taken_back_is_not_debugged(sessions: FakeSessions) -> None:
    problem = Problem("c", "Write f", domain="code")
    program = "```python\ndef f(): return 1\n```\n"
    settings = HintInferSettings(hint="last", kind="debug", min_prefix_tokens=0)
    for said, there in ((f"Hm. Wait, so:\n{program}", False), (f"So:\n{program}Good. Wait, is it?", True)):
        policy = ScriptedPolicy([said, "print(1)\n```\n", "Yes."])
        done = await rollout(problem, strategy="hint_infer", policy=policy, sessions=sessions, settings=settings)
        hint = next(segment for segment in done.segments if segment.source is Source.HINT)
        assert ("def f()" in hint.text) is there
        assert hint.text.endswith("```python\n") is not there


async def test_who_wants_no_hint_where_thinking_ends_is_not_asked_again(
    sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setitem(places.CHOOSERS, "never", lambda found, draw: asked.append(len(found)))
    policy = ScriptedPolicy(["<think>One. Wait, two.</think>", "So. Wait, \\boxed{42}"])
    settings = HintInferSettings(hint="never", min_prefix_tokens=0)
    done = await rollout(PROBLEM, strategy="hint_infer", policy=policy, sessions=sessions, settings=settings)
    assert (sources(done), set(asked)) == (["prompt", "model", "model"], {2})


async def test_turns_of_which_nothing_is_left_count_too() -> None:
    settings = HintInferSettings(hint="end", kind="wait", execute=False, rounds=400)
    done = await rollout(PROBLEM, strategy="hint_infer", policy=Silent([]), settings=settings)
    assert done.stop in (StopReason.TURN_LIMIT, StopReason.LENGTH, StopReason.NO_ANSWER)
    assert len(done.rounds) <= settings.max_turns


async def test_a_program_is_an_answer_where_one_is_asked_for() -> None:
    problem = Problem("p", "Write f.", Reference(ReferenceKind.CODE, tests=("assert f() == 1",)))
    policy = ScriptedPolicy(["```python\ndef f(): return 1\n```\n"] * 2)
    assert (await rollout(problem, strategy="plain", policy=policy)).stop is StopReason.ANSWERED
    assert (await rollout(PROBLEM, strategy="plain", policy=policy)).stop is StopReason.NO_ANSWER


async def test_the_token_limit_counts_what_was_taken_back(sessions: FakeSessions) -> None:
    settings = HintInferSettings(hint="last", min_prefix_tokens=0, max_tokens=120)
    policy = ScriptedPolicy([WAITING, "x" * 200])
    done = await rollout(PROBLEM, strategy="hint_infer", policy=policy, sessions=sessions, settings=settings)
    assert done.stop is StopReason.LENGTH
    assert done.spent == 120 > done.tokens()


async def test_without_execution_there_is_no_tool_segment_and_invented_output_is_a_fault() -> None:
    policy = ScriptedPolicy(["print(6*7)\n```\n```output\n41\n```\n\\boxed{41}"])
    done = await rollout(PROBLEM, strategy="hint_infer", policy=policy, settings=HintInferSettings(execute=False))
    assert policy.calls[0].stop == ()
    assert Source.TOOL not in [segment.source for segment in done.segments]
    assert done.faults == (INVENTED_OUTPUT,)
    assert done.stop is StopReason.ANSWERED


async def test_variables_live_on_only_where_the_strategy_says_so(sessions: FakeSessions) -> None:
    policy = ScriptedPolicy([CALL, CALL, "\\boxed{42}"])
    await rollout(PROBLEM, strategy="artist", policy=policy, sessions=sessions, settings=FENCED)
    assert sessions.histories[1] == [(sessions.ran[0][1], "print(6*7)\n")]


async def test_a_cell_that_kept_nothing_is_no_history_of_the_next() -> None:
    results = iter([CellResult(Outcome.TIMEOUT, duration_s=10), CellResult(Outcome.OK, "1\n")])
    sessions = FakeSessions(lambda code: next(results))
    policy = ScriptedPolicy([CALL, CALL, "\\boxed{42}"])
    await rollout(PROBLEM, strategy="artist", policy=policy, sessions=sessions, settings=FENCED)
    assert sessions.histories[1] == []


async def test_a_sandbox_that_fails_once_is_tried_again() -> None:
    results = iter([SandboxError("engine away"), CellResult(Outcome.OK, "42\n")])
    sessions = FakeSessions(lambda code: next(results))
    done = await rollout(
        PROBLEM, strategy="artist", policy=ScriptedPolicy([CALL, "\\boxed{42}"]), sessions=sessions, settings=FENCED
    )
    assert done.stop is StopReason.ANSWERED
    assert len(done.cells) == 1


async def test_a_sandbox_that_stays_away_aborts_the_rollout_and_keeps_what_was_said() -> None:
    sessions = FakeSessions(lambda code: SandboxError("engine away"))
    done = await rollout(PROBLEM, strategy="artist", policy=ScriptedPolicy([CALL]), sessions=sessions, settings=FENCED)
    assert done.stop is StopReason.ABORTED
    assert done.error == "SandboxError: engine away"
    assert sources(done) == ["prompt", "model"]
    assert sessions.released[-1] == done.id


async def test_a_call_that_is_tried_again_takes_its_end_token_back_once() -> None:
    results = iter([SandboxError("engine away"), CellResult(Outcome.OK, "42\n")])
    sessions = FakeSessions(lambda code: next(results))
    policy = ScriptedPolicy(["```python\nprint(6*7)\n```", "\\boxed{42}"])  # the end token follows the call
    cuts: list[int] = []

    def on_event(event: Event) -> None:
        if event["kind"] == "cut":
            cuts.append(event["characters"])

    done = await rollout(PROBLEM, strategy="artist", policy=policy, sessions=sessions, settings=FENCED, on_event=on_event)
    assert sources(done) == ["prompt", "model", "tool", "model"]
    assert cuts == [len("<|im_end|>")]


class Unreleasable(FakeSessions):
    async def release(self, key: str) -> None:
        await super().release(key)
        raise SandboxError("the engine is away")


async def test_a_session_that_cannot_be_given_back_aborts_its_rollout_and_no_other(sessions: FakeSessions) -> None:
    broken = Unreleasable(sessions.answer)
    done = await rollout(PROBLEM, strategy="artist", policy=ScriptedPolicy([CALL, "\\boxed{42}"]), sessions=broken, settings=FENCED)
    assert (done.stop, done.error) == (StopReason.ABORTED, "SandboxError: the engine is away")
    assert sources(done) == ["prompt", "model", "tool", "model"]


async def test_a_session_that_cannot_be_given_back_hides_no_other_error() -> None:
    broken = Unreleasable(lambda code: CellResult(Outcome.OK))
    policy = ScriptedPolicy(lambda prompt, index: PolicyError("no server"))
    done = await rollout(PROBLEM, strategy="artist", policy=policy, sessions=broken)
    assert done.error == "PolicyError: no server"
    policy = ScriptedPolicy([CALL])
    policy.exact = False  # type: ignore[misc]
    with pytest.raises(CapabilityError):
        await rollout(PROBLEM, strategy="hint_infer", policy=policy, sessions=broken)


async def test_an_answer_in_code_alone_is_none_and_one_after_a_result_counts(sessions: FakeSessions) -> None:
    code = "print('\\boxed{42}')\n```"  # ended without a line end: the result follows on a line of its own
    done = await rollout(PROBLEM, strategy="hint_infer", policy=ScriptedPolicy([code, "Done."]), sessions=sessions)
    assert done.stop is StopReason.NO_ANSWER
    done = await rollout(PROBLEM, strategy="hint_infer", policy=ScriptedPolicy([code, "So \\boxed{42}"]), sessions=sessions)
    assert done.stop is StopReason.ANSWERED


async def test_a_block_that_the_end_token_follows_is_closed() -> None:
    policy = ScriptedPolicy(["print(6*7)\n```"])
    done = await rollout(PROBLEM, strategy="hint_infer", policy=policy, settings=HintInferSettings(execute=False))
    assert done.response.endswith("```<|im_end|>")
    assert done.faults == ()


class Silent(ScriptedPolicy):
    """Ends its turn without a single token, as a server may."""

    async def sample(self, segments: Sequence[Segment], sampling: Sampling, **options: Any) -> Completion:
        return Completion("", (), (), Finish.END)


async def test_a_model_that_says_nothing_takes_nothing_back() -> None:
    policy = Silent([])
    done = await rollout(PROBLEM, strategy="plain", policy=policy)
    assert (done.stop, sources(done)) == (StopReason.NO_ANSWER, ["prompt"])
    settings = HintInferSettings(hint="end", execute=False)
    done = await rollout(PROBLEM, strategy="hint_infer", policy=policy, settings=settings)
    assert done.segments[0] == policy.prompt(messages(PROBLEM, "hint_infer"))
    assert sources(done) == ["prompt", "hint"]


async def test_an_engine_that_stays_away_aborts_the_rollout() -> None:
    done = await rollout(PROBLEM, strategy="plain", policy=ScriptedPolicy(lambda prompt, index: PolicyError("no server")))
    assert (done.stop, done.error) == (StopReason.ABORTED, "PolicyError: no server")


async def test_a_cancelled_rollout_gives_its_session_back(sessions: FakeSessions) -> None:
    policy = ScriptedPolicy(lambda prompt, index: "x" * 1000, delay_s=0.01)
    task = asyncio.create_task(rollout(PROBLEM, strategy="artist", policy=policy, sessions=sessions))
    while not policy.busy:  # noqa: ASYNC110 - the fake has no event to wait for
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert policy.busy == 0
    assert len(sessions.released) == 1


async def test_a_strategy_that_runs_code_says_that_it_needs_sessions() -> None:
    with pytest.raises(CapabilityError, match="SessionBook"):
        await rollout(PROBLEM, strategy="artist", policy=ScriptedPolicy([CALL]), settings=FENCED)


async def test_a_text_only_policy_cannot_be_hinted_and_the_error_says_what_can() -> None:
    policy = ScriptedPolicy([CALL])
    policy.exact = False  # type: ignore[misc]
    with pytest.raises(CapabilityError, match="vllm:URL"):
        await rollout(PROBLEM, strategy="hint_infer", policy=policy)


@pytest.mark.parametrize(
    ("strategy", "settings", "stop"),
    [
        ("plain", PlainSettings(max_tokens=5), StopReason.LENGTH),
        ("artist", ArtistSettings(format="fenced", max_calls=2), StopReason.CALL_LIMIT),
        ("artist", ArtistSettings(format="fenced", max_turns=2), StopReason.TURN_LIMIT),
        ("artist", ArtistSettings(format="fenced", max_tokens=60), StopReason.LENGTH),
    ],
)
async def test_each_limit_ends_the_rollout_with_its_reason(
    strategy: str, settings: Settings, stop: StopReason, sessions: FakeSessions
) -> None:
    policy = ScriptedPolicy(lambda prompt, index: CALL)
    done = await rollout(PROBLEM, strategy=strategy, policy=policy, sessions=sessions, settings=settings)
    assert done.stop is stop
    assert done.tokens(Source.MODEL) <= settings.max_tokens


async def test_a_full_context_ends_the_rollout() -> None:
    policy = ScriptedPolicy(["x" * 500], context_length=300)
    done = await rollout(PROBLEM, strategy="plain", policy=policy)
    assert done.stop is StopReason.CONTEXT_FULL
    assert len(done.token_ids) == 300


async def test_each_turn_draws_with_a_seed_of_its_own_that_sampling_seed_and_problem_decide(sessions: FakeSessions) -> None:
    async def seeds(seed: int, problem: Problem = PROBLEM) -> list[int]:
        policy = ScriptedPolicy([CALL, CALL, "\\boxed{1}"])
        sampling = Sampling(temperature=1.0, seed=seed)
        await rollout(problem, strategy="artist", policy=policy, sessions=sessions, sampling=sampling, settings=FENCED)
        return [call.seed for call in policy.calls]

    first, again, other = await seeds(1), await seeds(1), await seeds(2)
    elsewhere = await seeds(1, Problem("another", PROBLEM.question))  # else all problems would go wrong, or right, together
    assert first == again
    assert len({*first, *other, *elsewhere}) == 9
    assert all(0 <= seed < 1 << 31 for seed in (*first, *other, *elsewhere))


MARKS = ["```\n", "```python\n", "```output\n", "```", "<python>", "</python>", "</answer>", "</think>", "<|im_end|>", "\\boxed{3}"]
PIECES = st.sampled_from([*MARKS, "print(1)\n", "\n\n", "Wait", "é", "日本", "🧮", "\x00"])
SCRIPTS = st.lists(st.lists(PIECES, max_size=8).map("".join), min_size=1, max_size=5)
OUTPUTS = st.lists(PIECES, max_size=5).map("".join)
PLANS = st.sampled_from(
    [
        ("plain", PlainSettings(max_tokens=120)),
        ("artist", ArtistSettings(max_tokens=120)),
        ("artist", ArtistSettings(format="fenced", max_tokens=120, max_calls=2)),
        ("hint_infer", HintInferSettings(max_tokens=200)),
        ("hint_infer", HintInferSettings(hint="end", max_tokens=200)),
        ("hint_infer", HintInferSettings(hint="end", execute=False, max_tokens=200)),
    ]
)


@given(SCRIPTS, OUTPUTS, PLANS)
def test_the_ids_are_what_the_engine_was_given_and_gave_back(scripts: list[str], output: str, plan: tuple[str, Settings]) -> None:
    """Whatever the model writes: cuts and stop strings inside tokens, split characters, special tokens in the middle."""
    policy = RecordingPolicy(lambda prompt, index: scripts[index % len(scripts)])
    sessions = FakeSessions(lambda code: CellResult(Outcome.OK, output))
    events: list[str] = []

    def on_event(event: object) -> None:
        if event["kind"] == "text":  # type: ignore[index]
            events.append(event["text"])  # type: ignore[index]
        elif event["kind"] == "cut":  # type: ignore[index]
            said = "".join(events)
            events[:] = [said[: len(said) - event["characters"]]]  # type: ignore[index]

    done = asyncio.run(rollout(PROBLEM, strategy=plan[0], settings=plan[1], policy=policy, sessions=sessions, on_event=on_event))
    end = policy.tokenizer.end_id
    for (given_ids, drawn), (later, _) in zip(policy.exchanges, policy.exchanges[1:], strict=False):
        so_far = given_ids + drawn
        kept = so_far if later[: len(so_far)] == so_far else _common(so_far, later)
        assert later[: len(kept)] == kept
        lost = so_far[len(kept) :]
        assert not lost or lost[-1] == end or "</think>" in policy.decode(lost)
    last_given, last_drawn = policy.exchanges[-1]
    assert done.token_ids[: len(last_given)] == last_given
    if done.segments[-1].source is Source.MODEL and last_drawn:
        assert done.token_ids == last_given + last_drawn
    assert policy.decode(done.token_ids) == done.text
    assert "".join(events) == done.response
    for segment in done.segments:
        assert segment.source is Source.MODEL or segment.logprobs is None
        assert end not in segment.token_ids or segment.source in (Source.PROMPT, Source.MODEL)
        if segment.source is Source.MODEL:
            assert len(segment.logprobs or ()) == len(segment.token_ids)
    assert [s.token_ids for s in done.segments if s.source is Source.HINT] in (
        [],
        [policy.encode(s.text) for s in done.segments if s.source is Source.HINT],
    )


def _common(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    count = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    return left[:count]
