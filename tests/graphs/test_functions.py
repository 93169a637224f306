"""Whole rollouts of function calling: the user's turns, the calls, the faults, the tokens; taken up again at any step."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from tests.functions.bank import DONE, PROBLEM, RIGHT, TASK, Forks, call, forks
from toolreason import problems
from toolreason.errors import CapabilityError, ProblemError, SettingsError
from toolreason.execution import Limits, SessionBook, open_sandbox
from toolreason.export.base import Options, Purpose, Report
from toolreason.export.tokens import IGNORED, Maker
from toolreason.functions import cells
from toolreason.graphs import functions
from toolreason.graphs.state import RolloutContext
from toolreason.policies.base import Completion, Finish
from toolreason.policies.chat import ChatPolicy
from toolreason.policies.scripted import END, ScriptedPolicy
from toolreason.rollouts import rollout
from toolreason.strategies.functions import FunctionSettings
from toolreason.train import groups
from toolreason.types import (
    CellResult,
    Judgement,
    Outcome,
    Problem,
    Sampling,
    Segment,
    Source,
    StopReason,
    Trajectory,
    Verdict,
    from_json,
    to_json,
)
from toolreason.verify import Verifier

from ..exactness import Recorder, check
from .conftest import FakeSessions

TURN = f"\n<|im_start|>user\nTake it out of the vault!{END}\n<|im_start|>assistant\n"


@pytest.fixture
async def sandbox() -> AsyncIterator[Forks]:
    async with open_sandbox("local", Limits(cell_timeout_s=20)) as opened:
        yield await forks(opened)


@pytest.fixture
def fine() -> FakeSessions:
    """Every call goes well."""
    return FakeSessions(lambda code: CellResult(Outcome.OK, "[]\n", value=repr('["ok"]')))


def sources(trajectory: Trajectory) -> list[str]:
    return [segment.source.value for segment in trajectory.segments]


async def test_the_users_turns_go_by_and_the_right_calls_are_right(sandbox: Forks) -> None:
    policy = Recorder(ScriptedPolicy(RIGHT))
    async with SessionBook(sandbox) as book, Verifier(sandbox=sandbox) as verifier:
        done = await rollout(PROBLEM, strategy="functions", policy=policy, sessions=book)
        verdict = await verifier(PROBLEM, done)
    assert sources(done) == ["prompt", "model", "tool", "model", "prompt", "model", "prompt", "model", "tool", "model"]
    assert (done.stop, done.faults, done.error) == (StopReason.ANSWERED, (), None)
    assert (
        done.segments[2].text == '\n<tool_result>\n[{"name": "transfer", "result": {"done": true, "note": ""}}]\n</tool_result>\n'
    )
    assert done.segments[8].text.startswith('\n<tool_result>\n[{"name": "vault", "result": "gold"}, {"name": "balance",')
    assert done.segments[3].text == DONE + END  # the end that the model drew is the model's
    assert done.segments[4].text == TURN
    assert '"name": "transfer"' in done.segments[0].text
    assert '"name": "vault"' not in done.segments[0].text
    assert '"name": "vault"' in done.segments[6].text
    assert (verdict.judgement, verdict.parts["function"]) == (Judgement.CORRECT, 1.0)
    check(policy, done)


async def test_what_is_wrong_with_a_call_is_told_and_counted_and_the_model_mends_it(sandbox: Forks) -> None:
    wrong = (
        "<tool>transfer 3 to bob</tool>",
        call(("send", {"amount": 3})),
        call(("transfer", {"amount": 3})),
        call(("_audit", {})),
        "<tool_result>mine</tool_result>" + RIGHT[0],
    )
    policy = Recorder(ScriptedPolicy((*wrong, *RIGHT[1:])))
    async with SessionBook(sandbox) as book, Verifier(sandbox=sandbox) as verifier:
        done = await rollout(PROBLEM, strategy="functions", policy=policy, sessions=book)
        assert (await verifier(PROBLEM, done)).judgement is Judgement.CORRECT
    assert sorted(done.faults) == [
        "invented_output", "malformed_call", "unknown_function", "unknown_function", "wrong_arguments"
    ]  # fmt: skip
    told = [segment.text for segment in done.segments if segment.source is Source.TOOL]
    assert "this is no JSON" in told[0]
    assert "there is no such function; there are: balance, close, transfer, wait" in told[1]
    assert "missing a required argument: 'source'" in told[2]
    assert '"done": true' in told[4]
    check(policy, done)


class OtherEnd(ScriptedPolicy):
    """Ends its turns with a token that its template does not write."""

    async def sample(self, segments: Sequence[Segment], sampling: Sampling, **options: Any) -> Completion:
        drawn = await super().sample(segments, sampling, **options)
        if drawn.finish is not Finish.END:
            return drawn
        ids = (*drawn.token_ids[:-1], self.tokenizer.start_id)
        return replace(drawn, token_ids=ids, text=self.decode(ids))


async def test_an_end_token_that_is_not_the_templates_is_taken_back(fine: FakeSessions) -> None:
    policy = Recorder(OtherEnd([DONE, DONE, DONE]))
    done = await rollout(PROBLEM, strategy="functions", policy=policy, sessions=fine)
    assert [segment.text for segment in done.segments[1:3]] == [DONE, END + TURN]
    assert [(part.after, part.segment.text) for part in done.taken_back] == [(2, "<|im_start|>"), (4, "<|im_start|>")]
    check(policy, done)


async def test_an_end_after_a_call_is_taken_back_and_the_turn_goes_on(fine: FakeSessions) -> None:
    class Talkative(ScriptedPolicy):
        async def sample(self, segments: Sequence[Segment], sampling: Sampling, **options: Any) -> Completion:
            return await super().sample(segments, sampling, **(options | {"stop": ()}))

    policy = Recorder(Talkative([RIGHT[0], DONE, DONE, DONE]))
    done = await rollout(PROBLEM, strategy="functions", policy=policy, sessions=fine)
    assert sources(done) == ["prompt", "model", "tool", "model", "prompt", "model", "prompt", "model"]
    assert [(part.after, part.segment.text) for part in done.taken_back] == [(2, END)]
    check(policy, done)


async def test_each_of_the_users_turns_has_its_own_limit_of_calls(fine: FakeSessions) -> None:
    one, settings = RIGHT[0], FunctionSettings(max_calls=2)
    policy = ScriptedPolicy([one, one, DONE, one, one, DONE, one, DONE])
    done = await rollout(PROBLEM, strategy="functions", policy=policy, sessions=fine, settings=settings)
    assert (done.stop, len(done.cells)) == (StopReason.ANSWERED, 5)
    policy = ScriptedPolicy([one, DONE, one, one, one, "never"])
    done = await rollout(PROBLEM, strategy="functions", policy=policy, sessions=fine, settings=settings)
    assert (done.stop, len(done.cells)) == (StopReason.CALL_LIMIT, 3)
    assert not groups.void(done)  # its last turn was a call


async def test_a_limit_ends_it_before_the_users_last_turn(fine: FakeSessions) -> None:
    policy = ScriptedPolicy([DONE] * 3)
    done = await rollout(PROBLEM, strategy="functions", policy=policy, sessions=fine, settings=FunctionSettings(max_turns=2))
    assert (done.stop, sources(done).count("prompt")) == (StopReason.TURN_LIMIT, 3)
    done = await rollout(PROBLEM, strategy="functions", policy=ScriptedPolicy([DONE]), settings=FunctionSettings(max_tokens=20))
    assert (done.stop, sources(done)) == (StopReason.LENGTH, ["prompt", "model"])
    assert groups.void(done)


async def test_the_environment_is_made_before_the_first_call_and_stands_in_no_segment(fine: FakeSessions) -> None:
    done = await rollout(PROBLEM, strategy="functions", policy=ScriptedPolicy(RIGHT), sessions=fine)
    install = (f"{done.id}:environment", cells.install_code(TASK))
    assert [history[0] for history in fine.histories if history] == [install, install]
    assert [history[1:] for history in fine.histories if history] == [[], [(f"{done.id}:0", done.cells[0].code)]]
    assert "class Bank" not in to_json(done)
    assert from_json(Trajectory, to_json(done)) == done


async def test_the_users_turns_and_the_results_are_never_trained(fine: FakeSessions) -> None:
    done = await rollout(PROBLEM, strategy="functions", policy=ScriptedPolicy(RIGHT), sessions=fine)
    for purpose in (Purpose.SFT, Purpose.RL):
        row = Maker(Options(purpose))(done.with_verdict(Verdict(Judgement.CORRECT)), Report())
        expected = [
            token if segment.source is Source.MODEL else IGNORED for segment in done.segments for token in segment.token_ids
        ]
        assert row["labels"] == expected
        assert row["input_ids"] == list(done.token_ids)
    assert expected.count(ScriptedPolicy([]).tokenizer.end_id) == 3  # the ends of its turns are


async def test_an_environment_that_cannot_be_made_aborts_the_rollout(fine: FakeSessions) -> None:
    fine.answer = lambda code: CellResult(Outcome.ERROR, error="KeyError: 'ann'")
    done = await rollout(PROBLEM, strategy="functions", policy=ScriptedPolicy(RIGHT), sessions=fine)
    assert done.stop is StopReason.ABORTED
    assert "KeyError: 'ann'" in str(done.error)


async def test_what_does_not_fit_is_refused(fine: FakeSessions) -> None:
    with pytest.raises(ProblemError, match="no `task`"):
        await rollout(Problem("p", "2 + 2?"), strategy="functions", policy=ScriptedPolicy([DONE]), sessions=fine)
    with pytest.raises(CapabilityError, match="sessions"):
        await rollout(PROBLEM, strategy="functions", policy=ScriptedPolicy(RIGHT))
    for wrong in ({"stateful": False}, {"format": "fenced"}, {"max_calls": 0}):
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            FunctionSettings(**wrong)  # type: ignore[arg-type]


async def test_a_chat_policy_has_the_conversation_too(fine: FakeSessions) -> None:
    from langchain_core.language_models.fake_chat_models import FakeListChatModel

    policy = ChatPolicy(FakeListChatModel(responses=[RIGHT[0], DONE, DONE, DONE]), prefix="user")
    done = await rollout(PROBLEM, strategy="functions", policy=policy, sessions=fine)
    assert [role for role, _ in policy.messages(done.segments)] == [
        "system", "user", "assistant", "user", "assistant", "user", "assistant", "user", "assistant"
    ]  # fmt: skip
    assert done.stop is StopReason.ANSWERED


def test_a_task_is_a_row_of_a_problem_file(tmp_path: Any) -> None:
    problems.dump([PROBLEM], tmp_path / "tasks.jsonl")
    found = problems.load(str(tmp_path / "tasks.jsonl"))
    assert (found.problems, found.bad) == ([PROBLEM], [])
    hash(found.problems[0])
    earlier = '{"id": "p", "question": "2 + 2?", "reference": {"kind": "math", "answer": "4"}, "domain": "math"}'
    assert from_json(Problem, earlier).reference.task is None


def script(prompt: str, index: int) -> str:
    """What is said depends on what was said: a run taken up again must not depend on a count of calls."""
    turn, calls = prompt.count("<|im_start|>user") - 1, prompt.count("<tool_result>\n[")
    return (RIGHT[0] if calls == 0 else DONE, DONE, RIGHT[3] if calls == 1 else DONE)[turn]


@pytest.fixture(params=["memory", "sqlite"])
async def saver(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[Any]:
    if request.param == "memory":
        yield InMemorySaver()
        return
    async with AsyncSqliteSaver.from_conn_string(str(tmp_path / "checkpoints.sqlite")) as sqlite:
        yield sqlite


async def test_a_run_taken_up_at_any_step_ends_with_the_same_segments(sandbox: Forks, saver: Any) -> None:
    graph = functions.build().compile(checkpointer=saver)
    config = {"configurable": {"thread_id": "t"}}
    async with SessionBook(sandbox) as book:
        context = RolloutContext(ScriptedPolicy(script), book)
        done = await graph.ainvoke({"problem": PROBLEM, "key": "k"}, config, context=context, durability="sync")
    assert done["trajectory"].stop is StopReason.ANSWERED
    steps = [step async for step in graph.aget_state_history(config) if step.next]
    assert len(steps) > 10
    for step in steps if isinstance(saver, InMemorySaver) else steps[::4]:
        async with SessionBook(sandbox) as book:  # a new process has no session
            context = RolloutContext(ScriptedPolicy(script), book)
            again = await graph.ainvoke(None, step.config, context=context, durability="sync")
        assert [(one.source, one.text, one.token_ids) for one in again["trajectory"].segments] == [
            (one.source, one.text, one.token_ids) for one in done["trajectory"].segments
        ]
