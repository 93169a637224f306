"""The fake behaves as the real ones do, and answers what it is told."""

from __future__ import annotations

import pytest

from toolreason.errors import SandboxError, SessionLost, SettingsError
from toolreason.execution import ScriptedSandbox, open_sandbox
from toolreason.types import CellResult, Outcome


async def test_answers_come_from_a_mapping_or_a_function() -> None:
    timeout = CellResult(Outcome.TIMEOUT)
    session = await ScriptedSandbox({"print(1)": "1\n", "loop": timeout}).session()
    assert (await session.run("print(1)\n")).stdout == "1\n"
    assert await session.run("loop") is timeout
    assert (await session.run("else")).outcome is Outcome.ERROR
    assert (await (await ScriptedSandbox(str.upper).session()).run("ab")).stdout == "AB"


async def test_closed_is_closed() -> None:
    async with ScriptedSandbox() as sandbox:
        session = await sandbox.session()
        await session.close()
        await session.close()
        assert sandbox.open == 0
        with pytest.raises(SessionLost):
            await session.run("1")
    with pytest.raises(SandboxError):
        await sandbox.session()


async def test_an_exception_is_raised_and_ends_the_session() -> None:
    sandbox = ScriptedSandbox({"x": SessionLost("gone")})
    session = await sandbox.session()
    for _ in range(2):
        with pytest.raises(SessionLost):
            await session.run("x")
    assert len(sandbox.calls) == 1


@pytest.mark.parametrize(("name", "options"), [("podman", {}), ("docker", {"pools": 3}), ("local", {"image": "x"})])
def test_an_unknown_sandbox_or_option_is_named(name: str, options: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=name):
        open_sandbox(name, **options)
