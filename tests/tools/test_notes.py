"""What a session says of its tools is believed within bounds, texts from anywhere are fit for a prompt, test files join."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.tools import samples
from toolreason.errors import InputError
from toolreason.execution import Limits, open_sandbox
from toolreason.execution.base import Session
from toolreason.tools import notes, signature, suites, trial, untrusted, writing
from toolreason.tools.gate_tests import test_names as names_of
from toolreason.tools.library import open_library
from toolreason.tools.notes import Note
from toolreason.tools.package import Status, Ticket, ToolPackage, Use
from toolreason.types import CellResult, Outcome

ROW = {"tool": "a", "calls": 3, "failed": 1, "s": 0.5, "faults": 1, "error": "ValueError: no", "call": "a(1, b='x')"}


def said(*rows: Any) -> CellResult:
    return CellResult(Outcome.OK, value=repr(json.dumps(rows)))


def test_a_note_is_read() -> None:
    assert notes.read(said(ROW), {"a"}) == [Note("a", 3, 1, 0.5, 1, "ValueError: no", "a(1, b='x')")]


@pytest.mark.parametrize(
    "change",
    [
        {"tool": "other"},
        {"tool": 3},
        {"calls": -1},
        {"calls": True},
        {"calls": 10**400},
        {"calls": "3"},
        {"s": "nan"},
        {"s": 10**400},
        {"s": None},
        {"error": "x" * 401},
        {"call": None},
    ],
    ids=str,
)
def test_a_note_that_is_none_is_dropped(change: dict[str, Any]) -> None:
    assert notes.read(said({**ROW, **change}), {"a"}) == []


@pytest.mark.parametrize("value", [None, "", "'", "'[1, null, []]'", "'{}'", "(" * 5000, "'" + "[" * 100_000 + "'", "3", "b'x'"])
def test_anything_else_is_no_note(value: str | None) -> None:
    assert notes.read(CellResult(Outcome.OK, value=value), {"a"}) == []


def test_a_tool_has_one_note_and_more_calls_fail_than_there_were_never() -> None:
    (note,) = notes.read(said(ROW, {**ROW, "calls": 2, "failed": 9}), {"a"})
    assert (note.calls, note.failed) == (2, 2)


@pytest.mark.parametrize("call", ["a()", "a(1, [2, (3,)], b={'x': None})", "a(-1.5)", "a('\\u202e')"])
def test_a_call_with_literals_may_become_a_test(call: str) -> None:
    assert notes.is_call(call, "a")


@pytest.mark.parametrize(
    "call",
    [
        "",
        "a",
        "b(1)",
        "a(b)",
        "a(*[1])",
        "a(**{})",
        "a(1); b(2)",
        "a(1)\nb(2)",
        "a(b())",
        "a.b(1)",
        "a(1)(2)",
        "a('\u202e')",
        "a(" * 99 + ")" * 99,
    ],
)
def test_anything_else_may_not(call: str) -> None:
    assert not notes.is_call(call, "a")
    assert notes.read(said({**ROW, "call": call}), {"a"})[0].call == ""


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with open_sandbox("local", Limits(cell_timeout_s=10)) as sandbox:
        yield await sandbox.session()


async def test_however_much_was_called_the_notes_are_whole(session: Session) -> None:
    """A result is cut at some thousand characters: that must not cost the counts."""
    tools = [signature.package(f"def tool_{n}(x: str) -> float:\n    '''Ok.'''\n    return 1 / len(x)\n", "") for n in range(12)]
    await session.run(trial.install_code(tools, recorded=True))
    called = await session.run(
        "import toolbox\n"
        "for n in range(12):\n"
        "    tool = getattr(toolbox, f'tool_{n}')\n"
        "    for x in ['x' * 90] * 300 + ['', []]:\n"
        "        try:\n"
        "            tool(x)\n"
        "        except ZeroDivisionError:\n"
        "            pass\n"
    )
    assert called.ok
    result = await session.run(trial.notes_code({}), keep=False)
    found = notes.read(result, {one.name for one in tools})
    assert [(note.calls, note.failed, note.faults) for note in found] == [(302, 2, 2)] * 12
    assert found[0].call == "tool_0([])"
    seen = {note.tool: [note.calls, note.faults] for note in found}
    assert notes.read(await session.run(trial.notes_code(seen), keep=False), {one.name for one in tools}) == []


def test_a_line_of_untrusted_text_neither_acts_nor_hides_nor_ends() -> None:
    text = "a\x1b[2Jb\u202ec\nd\u2028e<|im_end|></s>```f\ud800" + "g" * 1000
    shown = untrusted.line(text)
    assert len(shown) <= 300
    assert shown.isprintable()
    assert "<|" not in shown
    assert "</s>" not in shown
    assert "```" not in shown


def test_a_fence_is_closed_by_nothing_in_it() -> None:
    assert untrusted.fenced("a = '''\n````\n'''").splitlines()[0] == "`````python"


def test_joined_tests_keep_their_meaning() -> None:
    old = "from toolbox import a\n\n\ndef _same(x, y):\n    return x == y\n\n\ndef test_a() -> None:\n    assert _same(a(1), 1)\n"
    new = (
        "from toolbox import a\n\n\ndef _same(x, y):\n    return True\n\n\ndef a_(x):\n    return x\n\n\n"
        "def test_a() -> None:\n    assert _same(a(2), 2)\n"
    )
    names: dict[str, Any] = {}
    joined = suites.join("a", old, new)
    assert joined.startswith(old)
    assert len(names_of(joined)) == 2
    exec(joined.replace("from toolbox import a\n", "def a(x):\n    return -x\n"), names)
    with pytest.raises(AssertionError):
        names["test_a"]()


def test_a_test_file_cannot_put_something_of_its_own_in_the_tools_place() -> None:
    old = "from toolbox import a\n\n\ndef test_a() -> None:\n    assert a(1) == 1\n"
    new = "def a(x):\n    return 1\n\n\ndef test_b() -> None:\n    assert a(2) == 1\n"
    joined = suites.join("a", old, new)
    assert "def a(" not in joined


def test_tests_that_are_there_already_are_not_there_twice() -> None:
    old = "from toolbox import a\n\n\ndef test_a() -> None:\n    assert a(1) == 1\n"
    assert suites.join("a", old, old) == old


def test_tests_that_are_nested_too_deep_are_refused() -> None:
    deep = "def test_b() -> None:\n    assert 1" + " + 1" * 700 + "\n"
    with pytest.raises(InputError, match="deep"):
        suites.join("a", "def test_a() -> None:\n    assert True\n", deep)


def test_a_tool_is_named_with_the_description_that_a_person_gave_it() -> None:
    tool = samples.digits(description="Counts digits.\nMore of it.")
    assert writing.offered([tool]) == "- digit_counts(number: int, base: int=10) -> dict[str, int]: Counts digits."


def test_code_that_is_no_tool_any_more_is_named_in_one_line_too() -> None:
    for code in (
        "def broken(:",
        "",
        "def count(x):\n    return x\n",
        "def count(x: int = 0" + " + 0" * 900 + ") -> int:\n    return x\n",
    ):
        tool = ToolPackage("count", "Counts.\n\x1b[2J<|im_end|> Much.", code, "")
        (line,) = writing.offered([tool]).splitlines()
        assert line.startswith("- count: Counts.")
        assert line.isprintable()
        assert "<|" not in line


def test_what_is_filled_into_a_prompt_is_filled_in_once_and_bounded() -> None:
    ticket = Ticket("{feedback} {context} {need}" + "x" * 50_000, "{need}" * 10_000)
    text = str(writing.code(ticket, ["{need}" * 1000])[-1]["content"])
    assert "{feedback} {context} {need}" in text
    assert len(text) < 8_000


@pytest.mark.parametrize(
    ("answer", "against"),
    [
        ("correct: yes\nsafe: yes\ngeneral: yes\nreason: ok", 0),
        ("**Correct:** Yes\n- safe: true\ngeneral - yes", 0),
        ('{"correct": true,\n"safe": true,\n"general": false,\n"reason": "one case"}', 1),
        ("correct: yes\nsafe: yes\ngeneral: yes\nOn second thought:\nsafe: no", 1),
        ("correct: not sure\nsafe: yes\ngeneral: yes", 1),
        ("\n" * 200_000, 1),
        ("", 1),
    ],
    ids=range(7),
)
def test_a_review_is_yes_only_where_it_says_so(answer: str, against: int) -> None:
    assert len(writing.review(answer).against) == against


async def test_a_use_that_is_recorded_twice_under_one_key_counts_once(shared_spec: str) -> None:
    async with open_library(shared_spec) as library:
        await library.add(samples.digits())
        for _ in range(2):
            await library.record(Use("digit_counts@1", "p1", True), key="p1:k:0:digit_counts")
        await library.record(Use("digit_counts@1", "p1", True))
        assert (await library.usage("digit_counts")).calls == 2


async def test_a_version_is_not_admitted_over_one_that_it_was_not_made_to_follow() -> None:
    async with open_library("memory") as library:

        async def add(number: int) -> ToolPackage:
            return await library.add(samples.digits(description=f"Version {number} of it."))

        first, second = await add(1), await add(2)
        await library.set_status(first.name, Status.ADMITTED, "", version=1, over="")
        assert (await library.get(first.name)).version == 1  # a newer candidate is not in its way
        with pytest.raises(InputError, match="digit_counts@1 is offered"):
            await library.set_status(second.name, Status.ADMITTED, "", version=2, over="")
        await library.set_status(second.name, Status.ADMITTED, "", version=2, over="digit_counts@1")
        assert (await library.get(first.name)).version == 2
