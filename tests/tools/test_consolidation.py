"""A consolidation in a real sandbox: what is merged, what stays apart, what is no longer offered, and that nothing is lost."""

from __future__ import annotations

import asyncio
import re
import sys
import types
from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore

from tests.tools import kin, samples
from tests.tools.packages import admitted
from toolreason.errors import InputError, SandboxError, SettingsError
from toolreason.execution import Limits, ScriptedSandbox, open_sandbox
from toolreason.execution.base import Sandbox
from toolreason.graphs.consolidate import ConsolidateContext, build
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.tools import applying, consolidation, signature, unions
from toolreason.tools.admission import admit, dependencies, examine
from toolreason.tools.classify import Classifier
from toolreason.tools.consolidation import ConsolidationSettings
from toolreason.tools.gate_tests import test_names as names_of_tests
from toolreason.tools.library import Library, open_library
from toolreason.tools.package import Status, Ticket, ToolPackage, Use
from toolreason.tools.plan import Action, Plan

PAGE = Path(__file__).parent.parent.parent / "docs" / "consolidate.md"
QUIET = ConsolidationSettings(classify=False)


@pytest.fixture(params=[pytest.param("shared", marks=pytest.mark.docker)])
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    async with open_sandbox("docker", Limits(cell_timeout_s=5), density=request.param, pool=1) as opened:
        yield opened


async def fill(library: Library, sandbox: Sandbox, *packages: ToolPackage) -> None:
    for package in packages:
        admission = await admit(library, package, sandbox)
        assert admission.admitted, admission.reasons


async def plan_of(
    library: Library, sandbox: Sandbox, settings: ConsolidationSettings = QUIET, *, apply: bool = False, **more: Any
) -> Plan:
    context = ConsolidateContext(library, sandbox, settings=settings, **more)
    done = await build().compile().ainvoke({"apply": apply}, context=context)
    plan: Plan = done["plan"]
    return plan


def steps(plan: Plan) -> list[tuple[str, str]]:
    return [(step.action.value, step.tool) for step in plan.steps]


async def statuses(library: Library) -> dict[str, str]:
    return {one.name: f"{one.version} {one.status}" for one in await library.list()}


async def test_copies_become_one_that_passes_the_tests_of_all(library: Library, sandbox: Sandbox) -> None:
    ticket = Ticket("a product", problem_id="p2")
    await fill(library, sandbox, kin.factorial(ticket=Ticket("n!", problem_id="p1")), kin.copy(ticket=ticket), samples.square())
    await library.record(Use("factorial@1", "p3", True))
    before = await statuses(library)
    plan = await plan_of(library, sandbox)
    assert steps(plan) == [("merge", "factorial"), ("deprecate", "product_up_to")]
    assert await statuses(library) == before, "a plan changes nothing"
    assert plan.before is not None
    assert plan.after is not None
    assert (plan.before.offered, plan.after.offered) == (3, 2)
    assert (plan.before.redundancy, plan.after.redundancy) == (pytest.approx(2 / 3), 0.0)
    assert plan.before.stability == plan.after.stability == 1.0

    applied = await plan_of(library, sandbox, apply=True)
    assert applied.done == 2
    assert applied.after == plan.after
    merged = await library.get("factorial")
    assert (merged.version, merged.status, merged.parents) == (2, Status.ADMITTED, ("factorial@1", "product_up_to@1"))
    assert names_of_tests(merged.tests) == ["test_five", "test_zero", "test_cases", "test_five_2"]
    gone = await library.get("product_up_to")
    assert (gone.status, "factorial stands for it" in gone.reason) == (Status.DEPRECATED, True)
    assert [hit.package.identity for hit in await library.search("product of whole numbers")] == ["factorial@2"]
    assert (await examine(library, merged, sandbox)).admitted
    assert (await library.usage("factorial")).origins == {"p1", "p2"}, "a call on a problem of either is no reuse"
    assert {event.by for event in (await library.events()) if event.version == 2} >= {"consolidate"}
    assert (await plan_of(library, sandbox)).steps == (), "nothing is left to do"


async def test_the_one_that_was_used_with_success_stands_for_the_rest(library: Library, sandbox: Sandbox) -> None:
    await fill(library, sandbox, kin.factorial(), kin.copy())
    for problem in ("p1", "p2"):
        await library.record(Use("product_up_to@1", problem, True))
    assert steps(await plan_of(library, sandbox)) == [("merge", "product_up_to"), ("deprecate", "factorial")]


async def test_a_near_copy_that_behaves_otherwise_stays_and_says_why(library: Library, sandbox: Sandbox) -> None:
    await fill(library, sandbox, kin.factorial(), kin.copy(), kin.strict())
    plan = await plan_of(library, sandbox)
    assert steps(plan) == [("merge", "factorial"), ("deprecate", "product_up_to")]
    (left,) = plan.left
    assert set(left.tools) == {"factorial", "product_up_to", "factorial_strict"}
    assert "factorial_strict: factorial does not pass its tests: test_zero_is_refused failed" in left.reason


async def test_what_another_tool_imports_is_not_taken_from_it(library: Library, sandbox: Sandbox) -> None:
    await fill(library, sandbox, kin.factorial(), kin.copy(), kin.choose())
    await library.record(Use("factorial@1", "p1", True))
    plan = await plan_of(library, sandbox, apply=True)
    assert steps(plan) == [("merge", "product_up_to"), ("deprecate", "factorial")], "the imported one stands for the other"
    assert (await examine(library, await library.get("choose"), sandbox)).admitted


async def test_no_tool_is_left_without_one_that_it_imports(library: Library, sandbox: Sandbox) -> None:
    """Each of the two is imported by another tool: both stay."""
    await fill(library, sandbox, kin.factorial(), kin.copy(), kin.choose(), kin.ways())
    plan = await plan_of(library, sandbox, apply=True)
    assert not {"factorial", "product_up_to"} & {tool for action, tool in steps(plan) if action == "deprecate"}
    assert any("would still import it" in one.reason for one in plan.left)
    for head in await library.list(status=Status.ADMITTED):
        await dependencies(library, head)


def says(code: str) -> str:
    return f"Here it is.\n```python\n{code}```\n"


async def test_a_policy_may_write_a_tool_for_all_but_it_has_to_pass_the_tests_of_all(library: Library, sandbox: Sandbox) -> None:
    await fill(library, sandbox, kin.scale(), kin.shift())
    plain = await plan_of(library, sandbox)
    assert (plain.steps, len(plain.left)) == ((), 1), "neither of the two is the other"
    wrong = kin.GENERAL.replace("by + plus", "by - plus")
    policy = ScriptedPolicy([says(wrong), says(kin.GENERAL)])
    plan = await plan_of(library, sandbox, policy=policy)
    assert steps(plan) == [("merge", "scale"), ("deprecate", "scale_shift")]
    assert "return [value * 2 + plus for value in values]" in policy.calls[0].prompt
    assert "test_plus failed" in policy.calls[1].prompt, "the second try is told why the first was refused"
    package = plan.steps[0].package
    assert package is not None
    assert (package.author, package.parents) == ("scripted", ("scale@1", "scale_shift@1"))
    assert "plus" in package.parameters["properties"]
    assert plan.tokens > 0


async def test_what_a_policy_writes_goes_through_the_gate(library: Library, sandbox: Sandbox) -> None:
    await fill(library, sandbox, kin.scale(), kin.shift())
    for reply, reason in (
        (says("import os\n" + kin.GENERAL), "os is not among the modules"),
        ("I would rather not.", "no closed ```python block"),
        (says(kin.GENERAL.replace("scale", "general")), "the tool is named scale"),
    ):
        plan = await plan_of(library, sandbox, policy=ScriptedPolicy(lambda prompt, index, reply=reply: reply))
        assert plan.steps == ()
        assert any("scripted wrote none that passes: " in one.reason and reason in one.reason for one in plan.left), plan.left


async def test_what_a_policy_writes_may_not_break_what_imports_the_old_one(library: Library, sandbox: Sandbox) -> None:
    await fill(library, sandbox, kin.scale(), kin.shift(), kin.total())
    cheat = kin.GENERAL.replace("for value in values]", "for value in values if value < 10]")
    policy = ScriptedPolicy(lambda prompt, index: says(cheat))
    plan = await plan_of(library, sandbox, policy=policy)
    assert plan.steps == ()
    assert any("doubled_sum imports scale and does not pass with the new version" in one.reason for one in plan.left)
    fair = await plan_of(library, sandbox, policy=ScriptedPolicy([says(kin.GENERAL)]), apply=True)
    assert steps(fair) == [("merge", "scale"), ("deprecate", "scale_shift")]


async def test_what_fails_now_is_deprecated_and_not_merged(library: Library, sandbox: Sandbox) -> None:
    await fill(library, sandbox, kin.factorial(), samples.square(), samples.cube())
    wrong = kin.COPY.replace("range(2, n + 1)", "range(2, n)")
    await library.add(replace(kin.copy(), code=wrong, status=Status.ADMITTED))
    await library.add(replace(samples.square(), code=samples.SQUARE.replace("n * n", "abs(n) * n"), status=Status.ADMITTED))
    plan = await plan_of(library, sandbox, apply=True)
    assert sorted(tool for action, tool in steps(plan) if action == "deprecate") == ["cube", "product_up_to", "square"]
    gone = await library.get("product_up_to")
    assert (gone.status, "its tests do not pass any more: test_cases failed" in gone.reason) == (Status.DEPRECATED, True)
    assert plan.before is not None
    assert plan.after is not None
    assert (plan.before.stability, plan.after.stability) == (0.25, 1.0)


async def test_a_sandbox_that_fails_deprecates_nothing(library: Library, sandbox: Sandbox) -> None:
    await fill(library, sandbox, kin.factorial())
    with pytest.raises(SandboxError):
        await plan_of(library, ScriptedSandbox(lambda code: SandboxError("no engine")), apply=True)
    assert await statuses(library) == {"factorial": "1 admitted"}


async def test_tools_that_cannot_be_read_any_more_stop_nothing(library: Library, sandbox: Sandbox) -> None:
    """As an older gate may have let them in: no Python, tests that are none, an import of a tool that there is not."""
    await fill(library, sandbox, kin.factorial(), kin.copy())
    await library.add(replace(samples.square(), code="from toolbox import (", status=Status.ADMITTED))
    await library.add(replace(kin.scale(), tests="def (", status=Status.ADMITTED))
    await library.add(replace(kin.shift(), code="from toolbox import nothing\n" + kin.SHIFT, status=Status.ADMITTED))
    plan = await plan_of(library, sandbox)
    assert [step.tool for step in plan.steps] == ["factorial", "product_up_to", "scale", "scale_shift", "square"]
    unseen = await plan_of(library, sandbox, replace(QUIET, tests=False))
    assert [step.tool for step in unseen.steps] == ["factorial", "product_up_to"]
    assert ("scale", "scale_shift") in [one.tools for one in unseen.left]


async def test_a_plan_that_was_tampered_with_is_refused(library: Library, sandbox: Sandbox) -> None:
    await fill(library, sandbox, kin.factorial(), kin.copy(), kin.strict())
    plan = await plan_of(library, sandbox)
    await applying.check_packages(library, plan, sandbox)
    merge, gone = plan.steps
    more = replace(merge, members=(*merge.members, "factorial_strict@1"))
    with pytest.raises(InputError, match="does not pass the tests of factorial_strict@1: test_zero_is_refused"):
        await applying.check_packages(library, replace(plan, steps=(more, gone)), sandbox)
    other = replace(gone, tool="factorial_strict")
    with pytest.raises(InputError, match="says that factorial stands for factorial_strict, and does not make it so"):
        await applying.check_packages(library, replace(plan, steps=(merge, other)), sandbox)


async def test_without_tests_nothing_is_known_to_fail(library: Library, sandbox: Sandbox) -> None:
    await library.add(replace(samples.square(), code=samples.SQUARE.replace("n * n", "n"), status=Status.ADMITTED))
    plan = await plan_of(library, sandbox, replace(QUIET, tests=False))
    assert plan.steps == ()
    assert plan.before is not None
    assert (plan.before.stability, plan.before.coverage, plan.before.ran) == (None, None, 0)


async def test_what_nobody_reuses_goes_if_it_is_old_and_asked_for(library: Library, sandbox: Sandbox) -> None:
    await fill(library, sandbox, samples.square(ticket=Ticket("n", problem_id="p0")), samples.cube(), samples.digits())
    old = replace(QUIET, tests=False, unused_days=1e-9)
    assert (await plan_of(library, sandbox, old)).steps == (), "before anything was called nothing is known"
    await library.record(Use("digit_counts@1", "p1", True))
    await library.record(Use("square@1", "p0", True))
    assert steps(await plan_of(library, sandbox, old)) == [("deprecate", "cube")], "square is imported, digit_counts reused"
    assert (await plan_of(library, sandbox, replace(QUIET, tests=False))).steps == (), "off by default"
    assert (await plan_of(library, sandbox, replace(old, unused_days=1))).steps == ()
    heads, usages = await library.list(), await library.usages()
    later = datetime.now(UTC) + timedelta(days=2)
    step, *_ = await consolidation.unused_steps(library, heads, usages, {}, replace(old, unused_days=1), later)
    assert (step.unused, "never called on another problem since 20" in step.reason) == (True, True)


async def test_problems_since_are_those_that_younger_tools_saw(library: Library) -> None:
    for name in ("old", "middle", "young"):
        await library.add(admitted(name))
        await asyncio.sleep(0.005)  # `created` counts milliseconds
    for tool, problem in (("old", "p1"), ("middle", "p2"), ("middle", "p3"), ("young", "p3"), ("young", "p4"), ("young", "")):
        await library.record(Use(f"{tool}@1", problem, True))
    heads, usages = await library.list(), await library.usages()
    assert await consolidation.problems_since(library, heads, usages) == {"old": 3, "middle": 2, "young": 0}
    settings = replace(QUIET, unused_problems=3)
    usages.pop("old")
    assert [step.tool for step in await consolidation.unused_steps(library, heads, usages, {}, settings)] == ["old"]
    assert await consolidation.unused_steps(library, heads, usages, {}, replace(settings, unused_problems=4)) == []


async def test_tools_without_a_category_get_the_one_of_their_words(library: Library, sandbox: Sandbox) -> None:
    await fill(library, sandbox, kin.factorial(category="maths"), samples.square(), samples.digits(category="general"))
    prime = samples.square()
    prime = replace(prime, description="Whether n is prime: it has no divisor but itself.")
    await library.add(replace(prime, status=Status.ADMITTED))
    await library.set_status("square", Status.ADMITTED, "", version=2)
    plan = await plan_of(library, sandbox, ConsolidationSettings(tests=False), apply=True)
    assert ("classify", "square") in steps(plan)
    square = await library.get("square")
    assert (square.category, square.version, square.parents, square.status) == ("number_theory", 3, ("square@2",), Status.ADMITTED)
    assert (await library.get("factorial")).category == "maths", "what somebody decided stays"


def test_a_classifier_learns_from_the_library_and_says_nothing_where_it_is_not_sure() -> None:
    taught = [replace(samples.square(), name=f"t{n}", description="Knit a scarf of yarn", category="crafts") for n in range(3)]
    scarf = replace(samples.square(), name="knit_hat", description="Knit a hat of yarn")
    assert (Classifier(taught).category(scarf) or ("", 0))[0] == "crafts"
    assert Classifier([]).category(scarf) is None
    assert Classifier([]).category(replace(scarf, description="Sort the list of words and the graph of primes")) is None


async def test_the_state_is_plain_and_a_run_goes_on_where_it_was(library: Library, sandbox: Sandbox) -> None:
    await fill(library, sandbox, kin.factorial(), kin.copy())
    saver = InMemorySaver()
    compiled = build().compile(checkpointer=saver, interrupt_before=["plan"])
    config: Any = {"configurable": {"thread_id": "t"}}
    context = ConsolidateContext(library, sandbox, settings=QUIET)
    await compiled.ainvoke({"apply": True}, config, context=context)
    fresh = build().compile(checkpointer=saver)
    done = await fresh.ainvoke(None, config, context=context)
    assert isinstance(done["plan"], Plan)
    assert steps(done["plan"]) == [("merge", "factorial"), ("deprecate", "product_up_to")]
    assert (await library.get("factorial")).version == 2
    assert all(type(step.action) is Action for step in (await fresh.aget_state(config)).values["plan"].steps)


async def test_embeddings_find_what_words_do_not(sandbox: Sandbox) -> None:
    """Vectors of a made-up language: everything that multiplies is one direction."""

    def embed(texts: Any) -> list[list[float]]:
        return [[1.0, 0.0] if any(word in text for word in ("product", "fakul", "multip")) else [0.0, 1.0] for text in texts]

    store = InMemoryStore(index={"dims": 2, "embed": embed, "fields": ["text"]})
    async with open_library(store, embed=True) as library:
        other = 'import math\n\n\ndef fakul(zahl: int) -> int:\n    """Fakul einer Zahl."""\n    return math.factorial(zahl)\n'
        tests = (
            "from toolbox import fakul\n\n\ndef test_a():\n    assert fakul(3) == 6\n\n\ndef test_b():\n    assert fakul(4) == 24\n"
        )
        await fill(library, sandbox, kin.factorial(), signature.package(other, tests), samples.digits())
        assert (await plan_of(library, sandbox)).steps == ()
        assert steps(await plan_of(library, sandbox, replace(QUIET, meaning=True))) == [
            ("merge", "factorial"),
            ("deprecate", "fakul"),
        ]


def test_the_union_of_tests_keeps_what_each_file_means() -> None:
    joined = unions.union(
        "factorial", kin.FACTORIAL_TESTS, [("product_up_to", kin.COPY_TESTS), ("factorial_strict", kin.STRICT_TESTS)]
    )
    names: dict[str, Any] = {}

    def factorial(n: int) -> int:
        return n and 24 if n == 4 else {0: 1, 3: 6, 5: 120, 6: 720}[n]

    toolbox = types.ModuleType("toolbox")
    toolbox.factorial = factorial  # type: ignore[attr-defined]
    sys.modules["toolbox"] = toolbox
    try:
        exec(joined, names)
        for test in names_of_tests(joined):
            if "refused" not in test:
                names[test]()
    finally:
        del sys.modules["toolbox"]
    assert names["CASES"] == {3: 6, 6: 720}
    assert names["CASES_3"] == {4: 24}
    assert len(names_of_tests(joined)) == 7


def test_tests_that_are_the_same_are_kept_once() -> None:
    copy = kin.FACTORIAL_TESTS.replace("factorial", "product_up_to").replace("test_five", "test_another_name")
    assert unions.union("factorial", kin.FACTORIAL_TESTS, [("product_up_to", copy)]) == kin.FACTORIAL_TESTS
    with pytest.raises(InputError, match="the test file of copy"):
        unions.union("factorial", kin.FACTORIAL_TESTS, [("copy", "def (")])


@pytest.mark.parametrize("wrong", [{"code": 0.1}, {"described": 2}, {"at_once": 0}, {"unused_days": 0}, {"unused_problems": -1}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        ConsolidationSettings(**wrong)


async def test_the_python_of_the_page_consolidates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sandbox: Sandbox
) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_library("tools.sqlite") as library:
        await fill(library, sandbox, kin.factorial(), kin.copy())
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    names["open_sandbox"] = lambda _: nullcontext(sandbox)
    await names["consolidate"]()
    assert "'admitted': 2" in capsys.readouterr().out
    async with open_library("tools.sqlite") as library:
        assert await statuses(library) == {"factorial": "2 admitted", "product_up_to": "1 deprecated"}
