"""The host's end of the wire survives any bytes, and takes a reply for what it is: data."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolreason.errors import SandboxError, SessionLost
from toolreason.execution import Limits
from toolreason.execution.wire import MAX_FRAME, Frames, WireSession, cell_result, encode
from toolreason.types import CellResult, Outcome, to_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["outcome", "stdout", "stderr", "value", "error", "traceback", "dropped", "duration_s", "id", "lost"])


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


class Mute(Tape):
    async def receive(self) -> bytes:
        await asyncio.Event().wait()
        return b""


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


async def session(*replies: dict[str, Any]) -> tuple[WireSession, Tape]:
    tape = Tape(*(encode(reply) for reply in ({"hello": 1}, *replies)))
    made = WireSession(tape, Limits())
    await made.ready()
    return made, tape


async def test_a_stranger_on_the_wire_ends_the_session() -> None:
    tape = Tape(encode({"hello": 2}))
    with pytest.raises(SandboxError, match="rebuild"):
        await WireSession(tape, Limits()).ready()
    assert tape.closed


@pytest.mark.parametrize(
    "reply",
    [
        {"id": 2, "outcome": "ok"},
        {"id": 1, "outcome": "fine"},
        {"id": 1},
        {"id": 1, "outcome": []},
        {"id": 1, "outcome": "ok", "duration_s": 10**400},
        {"id": 1, "outcome": "ok", "dropped": 10**400},
    ],
)
async def test_a_reply_that_makes_no_sense_ends_the_session(reply: dict[str, Any]) -> None:
    made, tape = await session(reply)
    with pytest.raises(SandboxError):
        await made.run("1")
    assert tape.closed
    with pytest.raises(SessionLost):
        await made.run("1")


async def test_a_lost_state_is_rebuilt_from_the_committed_cells_in_order() -> None:
    ok, error, crashed = ({"outcome": name} for name in ("ok", "error", "crashed"))
    replies = [ok, error, ok, crashed | {"lost": True}, ok, error]
    made, tape = await session(*({"id": i + 1, **reply} for i, reply in enumerate(replies)))
    await made.run("a")
    await made.run("b")
    await made.run("not kept", keep=False)
    assert (await made.run("kill")).outcome is Outcome.CRASHED
    frames = Frames(Tape(tape.sent))
    assert [(await frames.receive())["code"] for _ in replies] == ["a", "b", "not kept", "kill", "a", "b"]


async def test_a_rebuild_that_ends_differently_is_a_lost_session() -> None:
    made, _ = await session(
        {"id": 1, "outcome": "ok"}, {"id": 2, "outcome": "crashed", "lost": True}, {"id": 3, "outcome": "timeout"}
    )
    await made.run("a")
    with pytest.raises(SessionLost, match="differently"):
        await made.run("kill")
    assert not made.alive


async def test_a_mute_runner_is_given_up_after_its_time_and_a_grace() -> None:
    mute = Mute()
    made = WireSession(mute, Limits(), grace_s=0.05)
    with pytest.raises(SessionLost, match="did not answer"):
        await made.run("1", timeout_s=0.05)
    assert mute.closed
