"""One sandbox per kind and module of tests: containers are cheap, not free."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from toolreason.execution import Limits, Sandbox, open_sandbox
from toolreason.execution.conformance import LIMITS, Bench

KINDS: dict[str, dict[str, Any]] = {
    "container": {"name": "docker", "density": "container"},
    "shared": {"name": "docker", "density": "shared"},
    "local": {"name": "local"},
}


def kind(name: str) -> Any:
    """As a parameter of `bench` or `sandbox`."""
    return pytest.param(name, marks=[] if name == "local" else pytest.mark.docker)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Where checks run; the parameter is one of KINDS."""
    options = KINDS[request.param]

    def opener(limits: Limits) -> Any:
        return open_sandbox(limits=limits, **options)

    async with opener(LIMITS) as opened:
        yield Bench(opened, opener)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def docker_sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox("docker", LIMITS) as opened:
        yield opened
