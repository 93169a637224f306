"""UCT's task loop: tools are offered, asked for, used, counted, repaired; the task goes on either way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.graphs.competent import TESTS, TICKET, Competent
from tests.graphs.uct_runs import PROBLEM, SETTINGS, Run
from toolreason.errors import CapabilityError, SettingsError
from toolreason.execution import SessionBook
from toolreason.execution.base import Sandbox
from toolreason.rollouts import rollout
from toolreason.strategies.base import parse_settings
from toolreason.strategies.uct import ENOUGH, FROZEN, UctSettings
from toolreason.tools.package import Status
from toolreason.tools.workshop import Workshop
from toolreason.types import Reference, ReferenceKind, Source, StopReason, Trajectory, from_json, to_json
from toolreason.verify import extract


async def test_a_missing_tool_is_asked_for_built_used_and_found_again(run: Run) -> None:
    competent = Competent()
    first = await run(competent)
    assert competent.asked == ["task", "code", "tests", "critic", "task", "task"]
    assert first.stop is StopReason.ANSWERED
    assert first.tooling is not None
    assert first.tooling.offered == ()
    assert first.tooling.made == ("count_multiples@1",)
    assert first.tooling.used == ("count_multiples@1",)
    assert [cell.result.stdout for cell in first.cells][1:] == ["14\n"]
    package = await run.library.get("count_multiples")
    assert package.status is Status.ADMITTED
    assert package.author == "scripted"
    assert package.ticket is not None
    assert package.ticket.problem_id == "p1"

    again = Competent()
    other = await run(again, replace(PROBLEM, id="p2"))
    assert again.asked == ["task", "task"]  # no ticket: it was offered
    assert other.tooling is not None
    assert other.tooling.offered == ("count_multiples@1",)
    assert other.tooling.made == ()
    usage = await run.library.usage("count_multiples")
    assert (usage.calls, usage.successes, usage.reuse) == (2, 2, 1)
    assert usage.tokens > 0


async def test_what_the_builder_said_is_kept_to_the_token_and_counts(run: Run) -> None:
    done = await run(Competent())
    assert [one.strategy for one in done.aside] == ["build:code", "build:tests", "build:critic"]
    for one in done.aside:
        *_, said = one.segments
        assert [segment.source for segment in one.segments] == [Source.PROMPT, Source.HINT, Source.MODEL]
        assert len(said.logprobs or ()) == len(said.token_ids) > 0
    assert done.spent == done.tokens() + sum(one.tokens() for one in done.aside)
    assert from_json(Trajectory, to_json(done)) == done


async def test_who_writes_the_tests_does_not_see_the_code(run: Run) -> None:
    policy = Competent().policy()
    async with SessionBook(run.sandbox) as book:
        await rollout(
            PROBLEM, strategy="uct", policy=policy, sessions=book, settings=SETTINGS, workshop=Workshop(run.library, run.sandbox)
        )
    (prompt,) = [call.prompt for call in policy.calls if "Write tests that show" in call.prompt]
    assert "count_multiples(factor: int, most: int) -> int" in prompt
    assert "most // factor" not in prompt


async def test_a_refused_ticket_costs_tokens_and_not_the_task(run: Run) -> None:
    wrong = "```python\nfrom toolbox import count_multiples\n\ndef test_a() -> None:\n    assert count_multiples(2, 4) == 3\n\n"
    wrong += "def test_b() -> None:\n    assert count_multiples(2, 6) == 4\n```"
    competent = Competent(tests=[wrong])
    done = await run(competent, attempts=2)
    assert competent.asked == ["task", "code", "tests", "code", "tests", "task"]  # the critic sees only what passed
    assert done.stop is StopReason.ANSWERED
    assert done.tooling is not None
    assert len(done.tooling.refused) == 1
    assert "No tool could be made" in done.cells[0].result.stdout
    kept = await run.library.get("count_multiples")
    assert kept.status is Status.CANDIDATE
    assert await run.library.search("multiples") == []


async def test_the_second_attempt_is_told_why_the_first_was_refused(run: Run) -> None:
    bad = "```python\nimport os\n\ndef count_multiples(factor: int, most: int) -> int:\n    '''Count.'''\n    return 1\n```"
    competent = Competent(code=[bad, Competent().code[0]])
    policy = competent.policy()
    async with SessionBook(run.sandbox) as book:
        done = await rollout(
            PROBLEM, strategy="uct", policy=policy, sessions=book, settings=SETTINGS, workshop=Workshop(run.library, run.sandbox)
        )
    second = [call.prompt for call in policy.calls if "Write one Python function" in call.prompt][1]
    assert "os" in second.partition("The last attempt was refused")[2]
    assert done.tooling is not None
    assert done.tooling.made == ("count_multiples@2",)  # 1 is kept, with the reason


async def test_the_critic_can_refuse_and_silence_is_a_no(run: Run) -> None:
    for word in ("correct: yes\nsafe: no\ngeneral: yes\nreason: it may not end", "Looks fine to me."):
        competent = Competent(critic=[word])
        done = await run(competent, attempts=1)
        assert done.tooling is not None
        assert "the critic: not" in done.tooling.refused[0]
    assert (await run.library.get("count_multiples")).status is Status.CANDIDATE


async def test_that_a_number_is_the_answer_is_not_told(run: Run) -> None:
    leaking = Competent().code[0].replace("return most // factor", "return most // factor if most < 1000 else 1429")
    competent = Competent(code=[leaking])
    problem = replace(PROBLEM, question="How many multiples of 7 up to 10003?", reference=Reference(ReferenceKind.MATH, "1429"))
    policy = competent.policy()
    async with SessionBook(run.sandbox) as book:
        done = await rollout(
            problem, strategy="uct", policy=policy, sessions=book, settings=SETTINGS, workshop=Workshop(run.library, run.sandbox)
        )
    assert done.tooling is not None
    assert len(done.tooling.refused) == 1
    told = "".join(call.prompt for call in policy.calls) + done.text
    assert "holds the answer" not in told
    assert "numbers or words of this problem" in told


async def test_a_frozen_library_takes_nothing_and_counts_nothing(run: Run) -> None:
    competent = Competent()
    done = await run(competent, frozen=True)
    assert done.tooling is not None
    assert done.tooling.refused == (FROZEN,)
    assert "code" not in competent.asked
    assert await run.library.list() == []
    await run(Competent())
    used = await run(Competent(), replace(PROBLEM, id="p2"), frozen=True)
    assert used.tooling is not None
    assert used.tooling.used == ("count_multiples@1",)
    assert (await run.library.usage("count_multiples")).calls == 1


async def test_tickets_are_bounded(run: Run) -> None:
    done = await run(Competent(), max_tickets=0)
    assert done.tooling is not None
    assert done.tooling.refused == (ENOUGH,)


async def test_the_tokens_of_the_builder_count_in_the_limit(run: Run) -> None:
    whole = await run(Competent())
    ticket = len(TICKET)
    done = await run(Competent(), replace(PROBLEM, id="p3"), max_tokens=ticket + 60, offered=0)
    assert done.stop is StopReason.LENGTH
    assert whole.spent > done.spent


async def test_a_tool_that_fails_in_use_is_repaired_with_the_failing_call(run: Run) -> None:
    mended = """```python
def count_multiples(factor: int, most: int) -> int:
    \"\"\"How many multiples of `factor` there are from 1 to `most`.\"\"\"
    if factor == 0:
        raise ValueError("factor is 0")
    return most // factor
```"""
    zero = "```python\nfrom toolbox import count_multiples\nprint(count_multiples(0, 100))\n```\n"
    await run(Competent())
    competent = Competent(cell=zero, repair=[mended])
    done = await run(competent, replace(PROBLEM, id="p2"))
    assert competent.asked[:3] == ["task", "repair", "critic"]
    assert done.tooling is not None
    assert done.tooling.repaired == ("count_multiples@2",)
    assert done.tooling.failed[0] == "count_multiples@1"
    package = await run.library.get("count_multiples")
    assert package.version == 2
    assert package.parents == ("count_multiples@1",)
    assert package.ticket is not None
    assert package.ticket.failing == "count_multiples(0, 100)"
    assert "test_repair_2" in package.tests
    assert "test_threes" in package.tests


async def test_a_repair_that_breaks_an_old_test_does_not_replace(run: Run) -> None:
    broken = """```python
def count_multiples(factor: int, most: int) -> int:
    \"\"\"How many multiples of `factor` there are from 1 to `most`.\"\"\"
    return 0 if factor == 0 else most // factor + 1
```"""
    zero = "```python\nfrom toolbox import count_multiples\nprint(count_multiples(0, 100))\n```\n"
    await run(Competent())
    competent = Competent(cell=zero, repair=[broken])
    done = await run(competent, replace(PROBLEM, id="p2"), attempts=1, max_tickets=1)
    assert done.tooling is not None
    assert done.tooling.repaired == ()
    assert len(done.tooling.refused) == 1
    head = await run.library.get("count_multiples")
    assert (head.version, head.status) == (1, Status.ADMITTED)


async def test_a_tool_that_refuses_its_input_is_not_repaired(run: Run) -> None:
    strict = Competent().code[0].replace("    return", "    if factor == 0:\n        raise ValueError('no')\n    return")
    zero = "```python\nfrom toolbox import count_multiples\nprint(count_multiples(0, 100))\n```\n"
    await run(Competent(code=[strict]))
    competent = Competent(cell=zero)
    done = await run(competent, replace(PROBLEM, id="p2"), max_turns=3)
    assert "repair" not in competent.asked
    assert done.tooling is not None
    assert "count_multiples@1" in done.tooling.failed


async def test_a_new_tool_under_a_taken_name_has_to_pass_the_old_tests(run: Run) -> None:
    await run(Competent())
    other = Competent().code[0].replace("most // factor", "(most - 1) // factor")
    tests = TESTS.replace("== 3", "== 3").replace("count_multiples(5, 5) == 1", "count_multiples(5, 5) == 0")
    done = await run(Competent(code=[other], tests=[tests]), replace(PROBLEM, id="p2"), offered=0, attempts=1)
    assert done.tooling is not None
    assert done.tooling.made == ()
    assert (await run.library.get("count_multiples")).version == 1


async def test_without_a_workshop_it_says_what_is_missing(sandbox: Sandbox) -> None:
    async with SessionBook(sandbox) as book:
        with pytest.raises(CapabilityError, match="workshop"):
            await rollout(PROBLEM, strategy="uct", policy=Competent().policy(), sessions=book)


@pytest.mark.parametrize(
    ("wrong", "words"), [("stateful=false", "leave it out"), ("max_calls=0", "at least 1"), ("attempts=0", "at least 1")]
)
def test_settings_that_cannot_be_are_refused_with_what_to_do(wrong: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        parse_settings(UctSettings, [wrong])


def test_a_ticket_is_no_program() -> None:
    """Where a program is asked for, the last block of Python is the answer, whatever is asked for after it."""
    said = "```python\nprint(1)\n```\n```tool\ncount primes\n```\n"
    assert extract.program(said) == "print(1)\n"
    assert extract.program("```tool\ncount primes\n```\n") is None


async def test_the_builder_says_nothing_once_the_tokens_are_used_up(run: Run) -> None:
    spent = len(TICKET) + 60
    competent = Competent()
    done = await run(competent, max_tokens=spent, offered=0)
    assert "critic" not in competent.asked
    assert await run.library.search("multiples") == []
    assert sum(one.spent for one in done.aside) <= spent


async def test_a_tool_that_never_ends_in_use_is_repaired_with_the_call_that_the_cell_spelled(run: Run) -> None:
    hanging = Competent().code[0].replace("    return", "    while factor == 0:\n        pass\n    return")
    mended = hanging.replace("while factor == 0:\n        pass", "if factor == 0:\n        raise ValueError('factor is 0')")
    zero = "```python\nfrom toolbox import count_multiples\nfor n in [100]:\n    print(count_multiples(0, 100))\n```\n"
    await run(Competent(code=[hanging]))
    competent = Competent(cell=zero, repair=[mended])
    done = await run(competent, replace(PROBLEM, id="p2"), cell_timeout_s=2, max_turns=2)
    assert competent.asked[:3] == ["task", "repair", "critic"]
    assert done.tooling is not None
    assert done.tooling.repaired == ("count_multiples@2",)
    ticket = (await run.library.get("count_multiples")).ticket
    assert ticket is not None
    assert ticket.failing == "count_multiples(0, 100)"


async def test_a_tool_is_not_to_blame_for_a_cell_that_hangs_by_itself(run: Run) -> None:
    await run(Competent())
    cell = "```python\nfrom toolbox import count_multiples\ncount_multiples(7, 100)\nwhile True:\n    pass\n```\n"
    competent = Competent(cell=cell)
    done = await run(competent, replace(PROBLEM, id="p2"), cell_timeout_s=2, max_turns=2, max_tickets=1)
    assert "repair" not in competent.asked
    assert done.tooling is not None
    assert "something else was to blame" in done.tooling.refused[0]
    assert (await run.library.get("count_multiples")).status is Status.ADMITTED
