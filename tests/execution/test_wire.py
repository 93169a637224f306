"""The host's end of the wire survives any bytes, and takes a reply for what it is: data."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolreason.errors import InputError, SandboxError, SessionLost
from toolreason.execution import Limits
from toolreason.execution.session import REPLAY_CELLS, UNDONE, RunnerSession
from toolreason.execution.wire import MAX_FRAME, PROTOCOL, Frames, Runner, cell_result, encode
from toolreason.types import CellResult, Outcome, to_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    ["outcome", "stdout", "stderr", "value", "error", "traceback", "dropped", "duration_s", "id", "lost", "figures"]
)


class Tape:
    """A wire whose other end says what is on the tape, in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces, self.sent, self.closed = list(pieces), b"", False
        self.stderr = b"last words"

    @property
    def ended(self) -> bool:
        return False

    async def send(self, data: bytes) -> None:
        self.sent += data

    async def receive(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    def close(self) -> None:
        self.closed = True


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6))
def test_any_bytes_are_a_frame_or_a_sandbox_error(pieces: list[bytes]) -> None:
    async def read() -> None:
        frames = Frames(Tape(*pieces))
        with suppress(SandboxError):
            while True:
                assert isinstance(await frames.receive(), dict)

    asyncio.run(read())


@given(
    st.dictionaries(names, json_values)
    | st.fixed_dictionaries({"outcome": st.sampled_from(Outcome)}, optional={"stdout": st.text()})
)
def test_any_reply_is_a_result_that_can_be_stored_or_a_sandbox_error(reply: dict[str, Any]) -> None:
    with suppress(SandboxError):
        assert to_json(cell_result(json.loads(json.dumps(reply))))


@pytest.mark.parametrize(
    "body",
    [b"[]", b"7", b"null", b"{", b"\xff\xfe", b'{"a": 1}}', b"[" * 100_000, b'{"a": ' + b"9" * 10_000 + b"}"],
)
async def test_what_is_no_object_is_an_error(body: bytes) -> None:
    with pytest.raises(SandboxError):
        await Frames(Tape(len(body).to_bytes(4, "big") + body)).receive()


async def test_a_frame_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(SandboxError, match=str(MAX_FRAME + 1)):
        await Frames(Tape((MAX_FRAME + 1).to_bytes(4, "big"))).receive()


async def test_frames_come_whole_however_the_stream_is_cut() -> None:
    sent = [{"hello": 1}, {"text": "é" * 50}, {}]
    stream = b"".join(encode(frame) for frame in sent)
    for size in (1, 3, 7, 1000):
        frames = Frames(Tape(*(stream[i : i + size] for i in range(0, len(stream), size))))
        assert [await frames.receive() for _ in sent] == sent
        with pytest.raises(SessionLost, match="last words"):
            await frames.receive()


def test_lone_surrogates_are_escaped() -> None:
    frame = json.loads('{"outcome": "ok", "stdout": "\\ud800", "value": "\\udfff"}')
    assert cell_result(frame) == CellResult(Outcome.OK, stdout="\\ud800", value="\\udfff")


@pytest.mark.parametrize("figure", [7, "x" * 9, "", "aGVsbG8=", None])
def test_a_figure_that_is_no_png_file_is_no_figure(figure: Any) -> None:
    with pytest.raises(SandboxError, match="figure"):
        cell_result({"outcome": "ok", "figures": [figure]})


class Echo(Tape):
    """Answers each question with the next reply, numbered as it was asked; or says `raw` bytes instead."""

    def __init__(self, *replies: dict[str, Any] | bytes) -> None:
        super().__init__()
        self.replies = [{"session": 1}, *replies]
        self.asked: list[dict[str, Any]] = []
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.heard.put_nowait(encode({"hello": PROTOCOL}))

    async def send(self, data: bytes) -> None:
        question = json.loads(data[4:])
        self.asked.append(question)
        if self.replies:
            reply = self.replies.pop(0)
            self.heard.put_nowait(reply if isinstance(reply, bytes) else encode({"id": question["id"], **reply}))

    async def receive(self) -> bytes:
        return await self.heard.get()


async def session(*replies: dict[str, Any] | bytes, limits: Limits = Limits()) -> tuple[RunnerSession, Echo]:  # noqa: B008
    wire = Echo(*replies)
    runner = Runner(wire)
    await runner.ready()
    return await RunnerSession.open(runner, limits, 0.05), wire


async def test_a_stranger_on_the_wire_ends_the_runner() -> None:
    tape = Tape(encode({"hello": 1}))
    with pytest.raises(SandboxError, match="rebuild"):
        await Runner(tape).ready()
    assert tape.closed


@pytest.mark.parametrize(
    "reply",
    [
        {"id": 7, "outcome": "ok"},
        {"id": -1},
        {"id": []},
        {"outcome": "fine"},
        {},
        {"outcome": []},
        {"outcome": "ok", "duration_s": 10**400},
        {"outcome": "ok", "dropped": 10**400},
        {"failed": "OSError: no"},
        b"\0\0\0\1[",
        b"\xff\xff\xff\xff",
        b"",
    ],
)
async def test_a_reply_that_makes_no_sense_ends_the_session(reply: dict[str, Any] | bytes) -> None:
    made, _ = await session(reply)
    with pytest.raises(SandboxError):
        await made.run("1")
    assert not made.alive
    with pytest.raises(SessionLost):
        await made.run("1")


async def test_what_a_runner_refuses_is_an_input_error_and_the_session_goes_on() -> None:
    made, _ = await session({"refused": "'x': a link is on the way"}, {"outcome": "ok"})
    with pytest.raises(InputError, match="a link"):
        await made.get("x")
    assert (await made.run("1")).ok


async def test_a_lost_state_is_rebuilt_from_what_made_it_in_order() -> None:
    ok, error, crashed = ({"outcome": name} for name in ("ok", "error", "crashed"))
    made, wire = await session(ok, {}, error, ok, crashed | {"lost": True}, ok, {}, error)
    await made.run("a")
    await made.put("f", b"data")
    await made.run("b")
    await made.run("not kept", keep=False)
    assert (await made.run("kill")).outcome is Outcome.CRASHED
    did = [question.get("code", question["op"]) for question in wire.asked]
    assert did == ["open", "a", "put", "b", "not kept", "kill", "a", "put", "b"]


async def test_a_cell_that_met_a_dead_process_runs_after_the_rebuild() -> None:
    ok, lost = {"outcome": "ok", "value": "2"}, {"outcome": "crashed", "lost": True, "ran": False}
    made, wire = await session(ok, lost, ok, ok)
    await made.run("a")
    assert (await made.run("b")).value == "2"
    assert [question.get("code") for question in wire.asked[1:]] == ["a", "b", "a", "b"]


async def test_what_was_taken_back_is_not_run_again() -> None:
    ok = {"outcome": "ok"}
    made, wire = await session(ok, ok, {}, {}, ok | {"lost": True}, ok, {})
    await made.run("a")
    await made.run("b")
    await made.put("f", b"")
    await made.undo()
    await made.run("c")
    assert [question.get("code", question["op"]) for question in wire.asked[1:]] == ["a", "b", "put", "undo", "c", "a"]


async def test_a_rebuild_that_ends_differently_is_a_lost_session() -> None:
    ok = {"outcome": "ok"}
    made, _ = await session(ok, ok, {"outcome": "crashed", "lost": True}, {"outcome": "timeout"})
    await made.run("a")
    await made.run("b")
    with pytest.raises(SessionLost, match="differently"):
        await made.run("kill")
    assert not made.alive


async def test_cells_whose_process_has_died_run_again_and_then_the_one_that_found_it_dead() -> None:
    ok, undone = {"outcome": "ok"}, {"outcome": "crashed", "undone": 1, "ran": False}
    made, wire = await session(ok, ok, {}, undone, ok, {}, ok | {"value": "3"})
    await made.run("a")
    await made.run("b")
    await made.put("f", b"")
    result = await made.run("c")
    assert (result.value, result.stderr) == ("3", "")
    assert [question.get("code", question["op"]) for question in wire.asked[1:]] == ["a", "b", "put", "c", "b", "put", "c"]


@pytest.mark.parametrize(
    "again",
    [
        [{"outcome": "crashed"}],  # it does not end well again
        [{"outcome": "ok"}, {"outcome": "crashed", "undone": 1, "ran": False}],  # it does, and dies again
    ],
)
async def test_a_last_cell_that_dies_again_is_undone_and_the_next_result_says_so(again: list[dict[str, Any]]) -> None:
    ok, undone = {"outcome": "ok"}, {"outcome": "crashed", "undone": 1, "ran": False}
    made, wire = await session(ok, ok, undone, *again, ok, ok)
    await made.run("a")
    await made.run("forge")
    assert (await made.run("c")).stderr == UNDONE
    assert (await made.run("d")).stderr == ""
    assert [question["code"] for question in wire.asked[3:5]] == ["c", "forge"]


async def test_where_all_is_lost_after_that_all_but_that_cell_runs_again() -> None:
    ok, undone, lost = {"outcome": "ok"}, {"outcome": "crashed", "undone": 1, "ran": False}, {"outcome": "crashed", "lost": True}
    made, wire = await session(ok, ok, undone, ok, lost | {"ran": False}, ok, ok)
    await made.run("a")
    await made.run("forge")
    assert (await made.run("c")).stderr == UNDONE
    assert [question["code"] for question in wire.asked[3:]] == ["c", "forge", "c", "a", "c"]


async def test_processes_that_never_live_are_a_lost_session() -> None:
    undone = {"outcome": "crashed", "undone": 1, "ran": False}
    made, _ = await session({"outcome": "ok"}, undone, {"outcome": "ok"}, undone, undone)
    await made.run("a")
    with pytest.raises(SessionLost, match="as soon as"):
        await made.run("b")


async def test_a_history_too_long_to_run_again_is_a_lost_session() -> None:
    ok = {"outcome": "ok"}
    made, _ = await session(*[ok] * (REPLAY_CELLS + 1), ok | {"lost": True})
    for _ in range(REPLAY_CELLS + 1):
        await made.run("a")
    with pytest.raises(SessionLost, match="too many"):
        await made.run("kill")


async def test_a_mute_runner_is_given_up_after_its_time_and_a_grace() -> None:
    made, wire = await session()
    with pytest.raises(SessionLost, match="did not answer"):
        await made.run("1", timeout_s=0.05)
    assert wire.closed


async def test_answers_find_their_questions_in_any_order() -> None:
    wire = Echo()
    wire.replies = []
    runner = Runner(wire)
    await runner.ready()
    one, two = (asyncio.ensure_future(runner.ask(5, op=op)) for op in ("first", "second"))
    await asyncio.sleep(0)
    wire.heard.put_nowait(encode({"id": 2, "for": "second"}) + encode({"id": 1, "for": "first"}))
    assert ((await one)["for"], (await two)["for"]) == ("first", "second")
    runner.close()
