"""One docker sandbox per module of tests, and one local one: containers are cheap, not free."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from toolreason.execution import Limits, Sandbox, open_sandbox

LIMITS = Limits(cell_timeout_s=20, memory_mb=256, processes=40, disk_mb=16, output_chars=1000, output_hard_mb=2)
KINDS = [pytest.param("docker", marks=pytest.mark.docker), "local"]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=KINDS)
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    """Each kind that is real, in turn."""
    async with open_sandbox(request.param, LIMITS) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def docker_sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox("docker", LIMITS) as opened:
        yield opened
