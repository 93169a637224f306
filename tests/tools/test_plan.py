"""A plan is carried out once, can be taken back, survives being cut short anywhere, and refuses a library that has moved on."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from tests.tools.packages import admitted
from toolreason.errors import InputError
from toolreason.execution import open_sandbox
from toolreason.tools import applying, signature
from toolreason.tools.health import Health
from toolreason.tools.library import Library, open_library
from toolreason.tools.package import Status, ToolPackage, Use
from toolreason.tools.plan import Action, Left, Plan, Progress, Step, dumps, projected, read, to_json


def deprecation(head: ToolPackage, reason: str = "it is a copy", **more: Any) -> Step:
    return Step(Action.DEPRECATE, head.name, head.version, head.status, reason, head.reason, **more)


def renewal(head: ToolPackage, action: Action = Action.MERGE, **changes: Any) -> Step:
    package = replace(head, status=Status.CANDIDATE, parents=(head.identity,), created="", reason="", **changes)
    return Step(action, head.name, head.version, head.status, "better so", head.reason, package, (head.identity, "b@1"))


async def filled(library: Library) -> Plan:
    a, b, c = await library.add_all([admitted(name) for name in "abc"])
    for one in (a, b, c):
        await library.set_status(one.name, Status.ADMITTED, f"{one.name} passed")
    a, b, c = await library.list()
    steps = (renewal(a, tests="# of both\n"), deprecation(b, into="a"), renewal(c, Action.CLASSIFY, category="grids"))
    return Plan(steps, (Left(("a", "c"), "c does more"),), Health({"admitted": 3}), Health({"admitted": 2}), "tools.sqlite", "2026")


async def now(library: Library) -> list[tuple[str, int, Status, str]]:
    return [(one.name, one.version, one.status, one.category) for one in await library.list()]


ONE_STEP = (
    '{"format": 1, "left": [], "steps": [{"action": "ACTION", "tool": "a", "version": 1, "status": "admitted", "reason": ""}]}'
)
AFTER = [("a", 2, "admitted", "general"), ("b", 1, "deprecated", "general"), ("c", 2, "admitted", "grids")]


async def test_a_plan_is_applied_taken_back_and_applied_again(library: Library) -> None:
    plan = await filled(library)
    before = await now(library)
    applied = await applying.apply(library, plan)
    assert await now(library) == AFTER
    assert (applied.done, [step.progress for step in applied.steps]) == (3, [Progress.DONE] * 3)
    undone = await applying.undo(library, applied)
    assert await now(library) == before
    assert (await library.get("b")).reason == "b passed"
    assert {step.progress for step in undone.steps} == {Progress.UNDONE}
    assert await applying.undo(library, undone) == undone, "to undo twice is harmless"
    again = await applying.apply(library, undone)
    assert await now(library) == AFTER, "the versions that are there are taken again"
    events = len(await library.events())
    assert await applying.apply(library, again) == again
    assert len(await library.events()) == events, "to apply twice is harmless"
    await applying.undo(library, again)
    assert await now(library) == before


async def test_a_plan_is_applied_and_taken_back_wherever_a_library_lies(spec: str) -> None:
    async with open_library(spec) as library:
        plan = await filled(library)
        before = await now(library)
        applied = await applying.apply(library, plan)
    async with open_library(spec) as library:
        if spec != "memory":
            assert await now(library) == AFTER
            await applying.undo(library, applied)
            assert await now(library) == before


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", range(6))
async def test_a_plan_that_is_cut_short_anywhere_can_be_finished_or_taken_back(library: Library, at: int) -> None:
    plan = await filled(library)
    before, seen = await now(library), [plan]

    def keep(now: Plan) -> None:
        if len(seen) > at:
            raise Killed
        seen.append(now)

    with pytest.raises(Killed):
        await applying.apply(library, plan, keep=keep)
    known = seen[-1]
    assert known.done <= 3
    undone = await applying.undo(library, known)
    assert await now(library) == before
    finished = await applying.apply(library, undone)
    assert finished.done == 3
    assert await now(library) == AFTER


async def test_a_step_half_done_is_finished(library: Library) -> None:
    """The new version was added, and not yet admitted."""
    plan = await filled(library)
    package = plan.steps[0].package
    assert package is not None
    await library.add(package)
    await applying.apply(library, plan)
    assert await now(library) == AFTER
    assert len(await library.history("a")) == 2


@pytest.mark.parametrize("name", ["a", "b", "c"])
async def test_a_library_that_has_changed_is_refused_before_anything_is_done(library: Library, name: str) -> None:
    plan = await filled(library)
    await library.add(admitted(name, body="return n + 1"))
    before = await now(library)
    with pytest.raises(InputError, match=f"{name} has changed since the plan was made .it is {name}@2, admitted"):
        await applying.apply(library, plan)
    assert await now(library) == before


async def test_a_tool_that_was_taken_back_since_is_not_brought_back(library: Library) -> None:
    plan = await filled(library)
    await library.set_status("a", Status.DEPRECATED, "it lies")
    with pytest.raises(InputError, match=r"a has changed since the plan was made .it is a@1, deprecated: it lies"):
        await applying.apply(library, plan)
    await library.set_status("a", Status.ADMITTED, "a passed")
    applied = await applying.apply(library, plan)
    await library.set_status("b", Status.BROKEN, "it failed")
    with pytest.raises(InputError, match="b has changed"):
        await applying.undo(library, applied)
    assert (await library.get("a")).version == 2, "nothing was taken back by halves"


async def test_a_tool_that_was_never_taken_is_no_obstacle_to_taking_back_the_rest(library: Library) -> None:
    plan = await filled(library)

    def keep(now: Plan) -> None:
        if now.done == 1:
            raise Killed

    with pytest.raises(Killed):
        await applying.apply(library, plan, keep=keep)
    await library.add(admitted("c", body="return 7"))
    await applying.undo(library, plan.with_step(0, Progress.STARTED))
    assert [(one.name, one.version) for one in await library.list()] == [("a", 1), ("b", 1), ("c", 2)]


async def test_what_was_reused_since_is_not_unused(library: Library) -> None:
    await filled(library)
    plan = Plan((deprecation(await library.get("b"), "never called", unused=True),))
    await library.record(Use("b@1", "p1", True))
    with pytest.raises(InputError, match=r"b has changed since the plan was made .it has been used since"):
        await applying.apply(library, plan)


async def test_a_file_cannot_admit_by_undoing_what_was_never_admitted(library: Library) -> None:
    await filled(library)
    await library.add(replace(admitted("d"), status=Status.CANDIDATE))
    await library.set_status("d", Status.DEPRECATED, "it is a copy")
    forged = Plan((Step(Action.DEPRECATE, "d", 1, Status.ADMITTED, "it is a copy", "d passed", progress=Progress.DONE),))
    with pytest.raises(InputError, match="d@1 was never admitted as the plan says"):
        await applying.undo(library, forged)


async def test_what_a_file_brings_passes_gate_and_trial_or_is_refused(library: Library) -> None:
    plan = await filled(library)
    async with open_sandbox("local") as sandbox:
        with pytest.raises(InputError, match="what the plan puts in the place of a does not pass: a has no docstring"):
            await applying.check_packages(library, plan, sandbox)
        (step,) = [step for step in plan.steps if step.action is Action.CLASSIFY]
        assert step.package is not None
        evil = replace(step, package=replace(step.package, code="import os\ndef c(n: int) -> int:\n    return 1\n"))
        with pytest.raises(InputError, match="changes c, where it says that it classifies it"):
            await applying.check_packages(library, Plan((evil,)), sandbox)


async def test_a_plan_goes_through_its_file_and_says_how_it_is_taken_back(library: Library, tmp_path: Path) -> None:
    plan = await filled(library)
    file = tmp_path / "plan.json"
    file.write_text(dumps(plan))
    assert read(file) == plan
    content = json.loads(file.read_text())
    assert content["steps"][1]["inverse"] == {
        "call": "set_status",
        "name": "b",
        "version": 1,
        "status": "admitted",
        "reason": "b passed",
    }
    assert content["steps"][0]["inverse"] == {"call": "rollback", "name": "a", "version": 1}
    assert content["steps"][0]["what"] == "stands for b@1 too: a new version with the tests of all"
    assert content["steps"][2]["what"] == "goes into the category grids"
    assert to_json(replace(plan, before=None, after=None))["before"] is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no plan that"),
        ("[]", "no plan that"),
        ('{"format": 1}', "no plan that"),
        ('{"format": 9, "steps": []}', "format 9"),
        (ONE_STEP.replace("ACTION", "explode"), "no plan that"),
        (ONE_STEP.replace("ACTION", "merge"), "has no package"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(text)
    with pytest.raises(InputError, match=said):
        read(file)
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "nothing.json")


def test_the_heads_as_they_would_be() -> None:
    heads = [admitted(name) for name in "abc"]
    steps = [renewal(heads[0], tests="# more\n"), deprecation(heads[1])]
    then = {one.name: one for one in projected(heads, steps)}
    assert (then["a"].status, then["a"].tests) == (Status.ADMITTED, "# more\n")
    assert then["b"].status is Status.DEPRECATED
    assert then["c"] == heads[2]
    assert asdict(then["a"])["code"] == heads[0].code
    assert signature.parse(then["a"].code)
