"""What holds for a library wherever it lies: versions, heads, events, uses."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest
from langgraph.store.memory import InMemoryStore

from tests.tools.packages import admitted, tool
from toolreason.errors import InputError, SetupError
from toolreason.tools.events import Kind
from toolreason.tools.library import open_library
from toolreason.tools.package import Status, Ticket, ToolPackage, Use


async def test_a_change_is_a_new_version_and_the_same_content_is_not(spec: str) -> None:
    async with open_library(spec) as library:
        first = await library.add(tool("gcd"))
        assert (first.identity, first.status) == ("gcd@1", Status.CANDIDATE)
        assert first.created.endswith("+00:00")
        assert await library.add(tool("gcd")) == first
        second = await library.add(tool("gcd", body="return n + 1"))
        third = await library.add(tool("gcd", body="return n + 1", category="number theory"))
        assert [package.version for package in await library.history("gcd")] == [1, 2, 3]
        assert await library.history("gcd") == [first, second, third]
        assert await library.get("gcd") == third
        assert await library.get("gcd", 1) == first


async def test_a_candidate_does_not_replace_an_admitted_head_until_it_is_admitted(spec: str) -> None:
    async with open_library(spec) as library:
        await library.add(admitted("gcd"))
        await library.add(tool("gcd", body="return 0"))
        assert (await library.get("gcd")).version == 1
        await library.set_status("gcd", Status.BROKEN, "wrong for 0", version=2)
        assert (await library.get("gcd")).version == 1
        changed = await library.set_status("gcd", Status.ADMITTED, "passes now", version=2, by="critic")
        assert (changed.version, changed.status, changed.reason) == (2, Status.ADMITTED, "passes now")
        assert await library.get("gcd") == changed


async def test_adding_again_what_was_not_admitted_admits_it(spec: str) -> None:
    async with open_library(spec) as library:
        await library.add(tool("gcd"))
        again = await library.add(admitted("gcd", reason="gate passed"))
        assert (again.version, again.status, again.reason) == (1, Status.ADMITTED, "gate passed")
        assert (await library.add(tool("gcd"))).status is Status.ADMITTED, "a candidate takes no admission back"


async def test_a_rollback_deletes_nothing_and_can_be_taken_back(spec: str) -> None:
    async with open_library(spec) as library:
        await library.add_all([admitted("gcd"), admitted("gcd", body="return 0")])
        assert (await library.rollback("gcd", 1, reason="2 is wrong")).version == 1
        assert (await library.get("gcd")).version == 1
        assert len(await library.history("gcd")) == 2
        await library.rollback("gcd", 2)
        assert (await library.get("gcd")).version == 2
        assert (await library.add(admitted("gcd", body="return 1"))).version == 3
        assert (await library.get("gcd")).version == 3


async def test_events_say_what_was_done_by_whom_and_why(spec: str) -> None:
    async with open_library(spec) as library:
        await library.add(tool("gcd", author="qwen", reason="made for p1"))
        await library.add(tool("lcm"))
        await library.set_status("gcd", Status.ADMITTED, "gate passed", by="gate")
        await library.rollback("gcd", 1, reason="just so")
        mine = [(e.kind, e.version, e.status, e.by, e.reason) for e in await library.events("gcd")]
        assert mine == [
            (Kind.ADDED, 1, Status.CANDIDATE, "qwen", "made for p1"),
            (Kind.STATUS, 1, Status.ADMITTED, "gate", "gate passed"),
            (Kind.HEAD, 1, Status.ADMITTED, "human", "just so"),
        ]
        assert [event.tool for event in await library.events()] == ["gcd", "lcm", "gcd", "gcd"]


async def test_heads_are_listed_by_name_and_by_what_they_are(spec: str) -> None:
    async with open_library(spec) as library:
        await library.add_all([tool("b"), admitted("c", category="text"), admitted("a"), admitted("a", body="return 2")])
        assert [package.identity for package in await library.list()] == ["a@2", "b@1", "c@1"]
        assert [package.name for package in await library.list(status=Status.ADMITTED)] == ["a", "c"]
        assert [package.name for package in await library.list(category="text")] == ["c"]


async def test_what_is_not_there_is_named_with_what_is_like_it(spec: str) -> None:
    async with open_library(spec) as library:
        await library.add(tool("count_primes"))
        with pytest.raises(InputError, match="did you mean count_primes"):
            await library.get("count_prime")
        with pytest.raises(InputError, match=r"no version 7; there are: 1"):
            await library.get("count_primes", 7)
        for call in (library.rollback("count_primes", 2), library.set_status("nope", Status.BROKEN, ""), library.history("nope")):
            with pytest.raises(InputError):
                await call
        assert len(await library.events()) == 1, "what was refused left no event"


async def test_every_field_comes_back_even_what_databases_refuse(spec: str) -> None:
    package = ToolPackage(
        "odd",
        "half a pair \ud83d, NUL \0, \\u0000, 日本",
        "def odd():\n    return '\0\ud800'\n",
        "def test_odd():\n    assert True\n",
        {"type": "object", "properties": {"n": {"maximum": 2**80, "default": 1e308}}},
        category="it's",
        requirements=("numpy", "sympy"),
        parents=("a@1", "b@2"),
        ticket=Ticket("need", "context", "p1", "a@1", "odd(1)"),
        author="qwen",
        reason="because\0",
    )
    async with open_library(spec) as library:
        added = await library.add(package)
        found = await library.get("odd")
    assert found == added
    assert found.hash == package.hash
    assert (found.parameters, found.ticket, found.parents) == (package.parameters, package.ticket, package.parents)
    assert (found.author, found.reason, found.requirements) == ("qwen", "because\0", ("numpy", "sympy"))


async def test_uses_give_rate_quality_and_reuse_on_other_problems_only(spec: str) -> None:
    async with open_library(spec) as library:
        await library.add(admitted("gcd", ticket=Ticket("gcd", problem_id="p1")))
        assert ((await library.usage("gcd")).success_rate, (await library.usage("gcd")).quality) == (0.5, 0.0)
        for problem, ok in (("p1", True), ("p1", True), ("p2", True), ("p3", False)):
            await library.record(Use("gcd@1", problem, ok, latency_s=0.5, tokens=10))
        usage = await library.usage("gcd")
        assert (usage.calls, usage.successes, usage.problems, usage.tokens, usage.latency_s) == (4, 3, 3, 40, 0.5)
        assert usage.by_problem["p1"].calls == 2
        assert usage.reuse == 2, "p1 is where it was made"
        assert usage.success_rate == pytest.approx(4 / 6)
        assert usage.quality == pytest.approx(4 / 6 * math.log(4))
        assert (await library.usages()) == {"gcd": usage}


async def test_a_merged_tool_is_not_reused_where_its_members_were_made(spec: str) -> None:
    async with open_library(spec) as library:
        await library.add(admitted("a", ticket=Ticket("", problem_id="p1")))
        await library.add(admitted("b", ticket=Ticket("", problem_id="p2"), parents=("a@1",)))
        await library.add(admitted("merged", parents=("b@1", "merged@1")))
        for problem in ("p1", "p2", "p3"):
            await library.record(Use("merged@1", problem, True))
        assert (await library.usage("merged")).reuse == 1


async def test_uses_are_kept_by_version_too_and_of_known_versions_only(spec: str) -> None:
    async with open_library(spec) as library:
        await library.add_all([admitted("gcd"), admitted("gcd", body="return 0")])
        await library.record(Use("gcd@1", "p1", False))
        await library.record(Use("gcd@2", "p1", True))
        assert (await library.usage("gcd")).calls == 2
        assert (await library.usage("gcd", 2)).successes == 1
        for name in ("gcd@3", "gcd", "nope@1", "gcd@x", "gcd@-1"):
            with pytest.raises(InputError):
                await library.record(Use(name, "p1", True))


async def test_a_frozen_library_shows_what_was_there_and_refuses_every_change(spec: str) -> None:
    async with open_library(spec) as library:
        await library.add(admitted("gcd", "greatest common divisor"))
        frozen = library.frozen()
        await library.add(admitted("gcd", "greatest common divisor", body="return 0"))
        await library.add(admitted("lcm", "least common multiple"))
        assert [package.identity for package in await frozen.list()] == ["gcd@1"]
        assert [hit.package.identity for hit in await frozen.search("common")] == ["gcd@1"]
        for change in (
            frozen.add(tool("x")),
            frozen.set_status("gcd", Status.BROKEN, ""),
            frozen.rollback("gcd", 1),
            frozen.record(Use("gcd@1", "p", True)),
        ):
            with pytest.raises(InputError, match="frozen"):
                await change
        assert (await library.usage("gcd")).calls == 0
        assert frozen.frozen() is not library


async def test_each_sees_what_another_has_written(shared_spec: str) -> None:
    async with open_library(shared_spec) as one, open_library(shared_spec) as two:
        for number in range(3):
            await one.add(tool("gcd", body=f"return {number}"))
            assert (await two.get("gcd")).version == 2 * number + 1
            await two.add(tool("gcd", body=f"return -{number} - 1"))
            assert (await one.get("gcd")).version == 2 * number + 2
        await two.set_status("gcd", Status.ADMITTED, "")
        assert [hit.package.version for hit in await one.search("gcd")] == [6]
        assert [(e.kind, e.version) for e in await one.events()] == [(e.kind, e.version) for e in await two.events()]


async def test_it_is_there_when_opened_again_and_libraries_of_other_names_are_apart(shared_spec: str) -> None:
    async with open_library(shared_spec) as library, open_library(shared_spec, name="default2") as other:
        await library.add_all([tool(f"t{number}") for number in range(1100)])  # more than one statement of the store
        await library.record(Use("t7@1", "p", True))
        assert await other.list() == []
    async with open_library(shared_spec) as library:
        assert len(await library.list()) == 1100
        assert (await library.usage("t7")).calls == 1


async def test_a_cancelled_change_is_done_and_leaves_the_library_in_order(shared_spec: str) -> None:
    async with open_library(shared_spec) as library:
        for number in range(20):
            task = asyncio.create_task(library.add(tool("gcd", body=f"return {number}")))
            for _ in range(number % 7):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for _ in range(5):
            search = asyncio.create_task(library.search("gcd"))
            await asyncio.sleep(0)
            search.cancel()
            await asyncio.gather(search, return_exceptions=True)
        last = await library.add(tool("gcd", body="return 100"))
        versions = [package.version for package in await library.history("gcd")]
        assert versions == list(range(1, last.version + 1))
        assert last.version > 10


async def test_a_store_of_the_callers_is_used_as_it_is() -> None:
    store = InMemoryStore()
    async with open_library(store) as one, open_library(store) as two:
        await asyncio.gather(*(library.add(tool("gcd", body=f"return {n}")) for n in range(20) for library in [(one, two)[n % 2]]))
        assert [package.version for package in await two.history("gcd")] == list(range(1, 21))
    async with open_library(store) as again:
        assert len(await again.history("gcd")) == 20


async def test_a_bad_place_is_an_error_that_names_the_fix(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("this is no database, however often one asks it" * 100)
    for spec, error, text in (
        ("mysql://x/y", InputError, r"give a file, postgresql://\.\.\., or memory"),
        ("", InputError, "no place"),
        (str(tmp_path), InputError, "cannot be opened"),
        (str(tmp_path / "text.sqlite"), InputError, "cannot be opened"),
        (f"postgresql://me:secret@/none?host={tmp_path}", SetupError, "Is the server running"),
    ):
        with pytest.raises(error, match=text) as caught:
            async with open_library(spec):
                pass
        assert "secret" not in str(caught.value)
    with pytest.raises(InputError, match="name of a library"):
        async with open_library("memory", name="a.b"):
            pass


async def test_the_default_place_is_under_toolreason_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLREASON_HOME", str(tmp_path / "home"))
    async with open_library() as library:
        await library.add(tool("gcd"))
    assert (tmp_path / "home" / "tools.sqlite").is_file()
