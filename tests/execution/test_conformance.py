"""Every real sandbox does what the conformance suite says, and the suite finds out one that does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.execution.conftest import kind
from toolreason.execution import Session
from toolreason.execution.conformance import Bench, Check, Failed, checks, refused, value
from toolreason.execution.scripted import ScriptedSandbox


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(bench: Bench) -> AsyncIterator[Session]:
    """The one that checks share."""
    leased = await bench.sandbox.session()
    yield leased
    await leased.close()


def named(found: list[Check]) -> list[Any]:
    return [pytest.param(check, id=check.name) for check in found]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("check", named(checks()))
@pytest.mark.parametrize("bench", [kind("container"), kind("shared")], indirect=True, scope="module")
async def test_it_holds(bench: Bench, session: Session, check: Check) -> None:
    await check.run(bench, session)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("check", named(checks(walls=False)))
@pytest.mark.parametrize("bench", [kind("local")], indirect=True, scope="module")
async def test_it_holds_without_walls(bench: Bench, session: Session, check: Check) -> None:
    await check.run(bench, session)


def test_each_check_has_a_name_of_its_own() -> None:
    names = [check.name for check in checks()]
    assert len(names) == len(set(names)) > 50


async def test_a_sandbox_that_lies_fails_the_checks() -> None:
    def opener(limits: Any) -> Any:
        return ScriptedSandbox({})

    async with ScriptedSandbox(lambda code: "nothing") as sandbox:
        session = await sandbox.session()
        found_out = 0
        for check in [check for check in checks() if check.shares][:12]:
            try:
                await check.run(Bench(sandbox, opener), session)
            except Failed:
                found_out += 1
        assert found_out > 8
        with pytest.raises(Failed, match="due was '42'"):
            await value(session, "6 * 7", 42)
        with pytest.raises(Failed, match="not refused"):
            await refused(session.put("fine", b""))
