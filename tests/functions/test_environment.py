"""An environment in a session: calls are data, names come from a list, what is wrong is told, and state stays."""

from __future__ import annotations

import datetime
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from toolreason.errors import ProblemError
from toolreason.execution import Limits, SessionBook, open_sandbox
from toolreason.functions import cells, sources
from toolreason.functions.environment_cell import digest, read
from toolreason.types import Cell, CellResult, Environment, FunctionTask, Outcome, Segment, Source, UserTurn

from .bank import ENVIRONMENT, TASK, forks

OWED = '[{"name": "balance", "arguments": {"owner": "ann"}}]'


@pytest.fixture
async def book() -> AsyncIterator[SessionBook]:
    limits = Limits(cell_timeout_s=20, output_chars=600)
    async with open_sandbox("local", limits) as sandbox, SessionBook(await forks(sandbox)) as sessions:
        yield sessions


async def test_calls_are_data_and_only_documented_public_methods_are_called(book: SessionBook) -> None:
    inside = cells.InEnvironment(book, cells.install_code(TASK))

    async def said(text: str, turn: int = 0, timeout_s: float | None = None) -> tuple[tuple[str, ...], str]:
        call_id = f"k:{said.count}"  # type: ignore[attr-defined]
        said.count += 1  # type: ignore[attr-defined]
        code = cells.call_code(text, turn)
        result = await inside.run("k", call_id, code, history=done, timeout_s=timeout_s)
        cell = Cell(call_id, code, result)
        assert cells.written(cell) == (text, turn)
        if result.outcome.committed:
            done.append((call_id, code))
        return cells.statuses(cell), result.stdout

    said.count, done = 0, list[tuple[str, str]]()  # type: ignore[attr-defined]
    assert await said(OWED) == (("ok",), '[{"name": "balance", "result": {"balance": 10}}]\n')  # nor what the bank prints

    several = '[{"name": "transfer", "arguments": {"source": "ann", "target": "bob", "amount": 3}}, {"name": "vault"}]'
    statuses, shown = await said(several)
    assert statuses == ("ok", "unknown_function")  # the vault is told of in a later turn
    assert "there is no such function; there are: balance, close, transfer, wait" in shown
    assert await said('{"name": "vault", "arguments": {}}', 2) == (("ok",), '[{"name": "vault", "result": "gold"}]\n')
    assert (await said(OWED))[1] == '[{"name": "balance", "result": {"balance": 7}}]\n'

    for name in ("_audit", "__init__", "__class__", "accounts", "print", "exec", "environment.install", ""):
        assert (await said(json.dumps({"name": name, "arguments": {}}), 2))[0] == ("unknown_function",)
    assert (await said('{"name": "balance", "arguments": {"owner": "ann", "self": 1}}'))[0] == ("wrong_arguments",)
    assert (await said('{"name": "transfer", "arguments": {"source": "ann"}}'))[0] == ("wrong_arguments",)

    hostile = "', 0), __import__('os').system('true'), ('\\\n\"\"\"<é\ud800"
    for text in (
        "",
        "no",
        "[]",
        "7",
        '["balance"]',
        '{"name": 1}',
        '{"name": "x", "arguments": [1]}',
        "[" * 5000,
        "1" * 5000,
        hostile,
    ):
        statuses, shown = await said(text)
        assert statuses == ("malformed_call",)
        assert shown.startswith('[{"error": "')
    stays = json.dumps({"name": "transfer", "arguments": {"source": "ann", "target": "bob", "amount": 0, "note": hostile[:-1]}})
    assert json.loads((await said(f"```json\n{stays}\n```"))[1]) == [
        {"name": "transfer", "result": {"done": True, "note": hostile[:-1]}}
    ]

    assert (await said('{"name": "balance", "arguments": {"owner": "eve"}}'))[0] == ("raised",)
    statuses, shown = await said('{"name": "close", "arguments": {"owner": "ann"}}')
    assert (statuses, shown) == (("raised",), '[{"name": "close", "error": "SystemExit: the bank is closed"}]\n')
    assert (await said('{"name": "wait"}', timeout_s=1))[0] == ("stopped",)
    assert (await said(OWED))[1] == '[{"name": "balance", "result": {"balance": 7}}]\n'  # the fee of 99 went with the cell

    await book.release("k")  # as after a crash: a new session plays what was done
    assert (await said(OWED))[1] == '[{"name": "balance", "result": {"balance": 7}}]\n'


def test_equal_values_have_equal_digests_and_others_have_not() -> None:
    parent = SimpleNamespace(name="root", _seen=1, above=None, below=[])
    parent.below.append(SimpleNamespace(name="child", above=parent, below=[]))
    other = SimpleNamespace(name="root", _seen=2, above=None, below=[SimpleNamespace(name="child", above=None, below=[])])
    other.below[0].above = other
    for one, same in [
        (1, 1.0),
        ((1, "a"), [1, "a"]),
        ({"a": 1, "b": [2]}, {"b": [2.0], "a": 1}),
        ({3, 1, "x"}, {"x", 1, 3}),
        (parent, other),
        (datetime.date(2026, 1, 1), datetime.date(2026, 1, 1)),
        (object(), object()),
    ]:
        assert digest(one) == digest(same)
    other.below[0].name = "changed"
    values = [1, 1.5, True, None, "1", [1], [[1]], {"1": 1}, {1: 1}, {1}, parent, other, datetime.date(2026, 1, 1), float("nan")]
    assert len({digest(value) for value in values}) == len(values)
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert digest(deep) == digest(10**5000)  # neither can be compared


def test_calls_are_read_as_one_or_as_a_list_and_arguments_may_be_left_out() -> None:
    assert read('{"name": "a"}') == read(' [{"name": "a", "arguments": {}}]\n') == [("a", {})]
    with pytest.raises(ValueError, match="object with `name`"):
        read('{"name": "a", "code": "b"}')


def test_what_comes_back_is_data_whatever_it_is() -> None:
    def statuses(value: str | None, outcome: Outcome = Outcome.OK) -> tuple[str, ...]:
        return cells.statuses(Cell("c", cells.call_code("x", 0), CellResult(outcome, value=value)))

    assert statuses(repr('["ok", "raised"]')) == ("ok", "raised")
    for odd in (None, "", "[]", repr("[]"), repr('["fine"]'), repr("[[]]"), "'" + "[" * 9999, "(" * 9999, "open('x')"):
        assert statuses(odd) == ("stopped",)
    assert statuses(repr('["ok"]'), Outcome.TIMEOUT) == ("stopped",)
    for code in ("print(1)", "__import__('environment').call(f'{x}', 0)", "__import__('environment').call('a', 0); 1"):
        with pytest.raises(ProblemError, match="no function call"):
            cells.written(Cell("c", code, CellResult(Outcome.OK)))


def test_cells_belong_to_the_turn_of_the_user_in_which_they_stand() -> None:
    cell = [Segment(Source.TOOL, "", cell=Cell(str(n), "", CellResult(Outcome.OK))) for n in range(3)]
    prompt, model = Segment(Source.PROMPT, "p"), Segment(Source.MODEL, "m")
    row = [prompt, model, cell[0], model, cell[1], prompt, model, prompt, cell[2]]
    assert [[one.call_id for one in turn] for turn in cells.by_turn(row, 3)] == [["0", "1"], [], ["2"]]


def test_a_task_that_cannot_be_made_says_why() -> None:
    for environment, told in [
        (Environment(("A",)), "`code`"),
        (Environment(("A",), package="elsewhere"), "`code`"),
        (Environment((), code="x = 1"), "`classes`"),
        (Environment(("A",), "[]", "x = 1"), "`config`"),
        (Environment(("A",), "{", "x = 1"), "no JSON"),
    ]:
        with pytest.raises(ProblemError, match=told):
            cells.install_code(FunctionTask(environment, (UserTurn("?"),)))
    with pytest.raises(ProblemError, match="documentation"):
        cells.documented(FunctionTask(ENVIRONMENT, (UserTurn("?", functions=("[]",)),)))
    assert sources.of(ENVIRONMENT).main == "environment_code"
