"""Hostile cells in containers: each is contained, the next cell finds the state from before, and a neighbour notices nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.execution.conftest import kind
from toolreason.execution import Session
from toolreason.execution.attacks import Attack, attacks, run
from toolreason.execution.conformance import Bench, Failed
from toolreason.execution.scripted import ScriptedSandbox
from toolreason.types import CellResult, Outcome

DENSITIES = [kind(name) for name in ("container", "shared")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sessions(bench: Bench) -> AsyncIterator[list[Session]]:
    """The attacked one and its neighbour; one that was spoilt is replaced by the test that spoilt it."""
    pair = [await bench.sandbox.session(), await bench.sandbox.session()]
    yield pair
    for session in pair:
        await session.close()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("attack", [pytest.param(attack, id=f"{attack.group}-{attack.name}") for attack in attacks()])
@pytest.mark.parametrize("bench", DENSITIES, indirect=True, scope="module")
async def test_it_is_contained(bench: Bench, sessions: list[Session], attack: Attack) -> None:
    try:
        await run(attack, *sessions)
    except BaseException:
        for place, session in enumerate(sessions):
            await session.close()
            sessions[place] = await bench.sandbox.session()
        raise


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("bench", DENSITIES, indirect=True, scope="module")
async def test_neighbours_share_nothing(bench: Bench) -> None:
    """Files, processes, abstract sockets, shared memory."""
    one, two = await bench.sandbox.session(), await bench.sandbox.session()
    await one.run("secret = 'hidden'\nopen('secret', 'w').write(secret)\nimport os\nos.chmod('secret', 0o666)")
    await one.run("os.chmod('.', 0o777)")
    where = eval((await one.run("os.getcwd(), os.getpid(), os.getuid()")).value or "")
    serve = "import socket\ns = socket.socket(socket.AF_UNIX)\ns.bind('\\0toolreason')\ns.listen()"
    assert (await one.run(serve)).outcome in (Outcome.OK, Outcome.ERROR)  # in density shared there are no sockets
    meet = await two.run("import socket\nsocket.socket(socket.AF_UNIX).connect('\\0toolreason')")
    assert meet.outcome is Outcome.ERROR
    look = f"import os\nopen(os.path.join({where[0]!r}, 'secret')).read()"
    assert (await two.run(look)).outcome is Outcome.ERROR
    assert (await two.run(f"open('/proc/{where[1]}/environ').read()")).outcome is Outcome.ERROR or where[0] == "/work"
    assert (await two.run(f"import os\nos.getuid() != {where[2]}")).value == "True"
    await one.run("import ctypes\nshm = ctypes.CDLL(None).shmget(4711, 4096, 0o1666)")
    assert (await two.run("import ctypes\nctypes.CDLL(None).shmget(4711, 4096, 0o666)")).value == "-1"
    assert (await one.run("secret")).value == "'hidden'"
    for session in (one, two):
        await session.close()


def test_attacks_have_names_of_their_own_and_cover_every_group() -> None:
    names = [attack.name for attack in attacks()]
    assert len(names) == len(set(names)) > 100
    assert len({attack.group for attack in attacks()}) == 9


async def test_an_attack_that_gets_through_is_found_out() -> None:
    attack = Attack("g", "n", "break in", (Outcome.ERROR,), says="PermissionError")

    def answer(code: str) -> CellResult:
        if code == "break in":
            return CellResult(Outcome.OK)
        return CellResult(Outcome.OK, value="([1, 2, 3], 6, 'as it was')")

    async with ScriptedSandbox(answer) as sandbox:
        with pytest.raises(Failed, match="due was error"):
            await run(attack, await sandbox.session(), await sandbox.session())
        spoilt = Attack("g", "n", "break in", (Outcome.OK,))
        assert (await run(spoilt, await sandbox.session(), await sandbox.session())).ok
    async with ScriptedSandbox(lambda code: CellResult(Outcome.OK, value="spoilt")) as sandbox:
        with pytest.raises(Failed, match="as it was"):
            await run(spoilt, await sandbox.session(), await sandbox.session())
