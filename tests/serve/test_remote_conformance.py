"""The suite that every real sandbox passes, by a service in a process of its own, in density `shared`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.execution.test_conformance import *  # noqa: F403
from tests.serve.service import TOKEN, process
from toolreason.errors import SandboxError
from toolreason.execution.remote import RemoteSandbox

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.docker]
LIMITS = "limits=Limits(cell_timeout_s=20, memory_mb=256, processes=40, disk_mb=16, output_chars=1000, output_hard_mb=2)"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[RemoteSandbox]:
    with process(f"density='shared', pool=1, {LIMITS}", TOOLREASON_SANDBOX_TOKEN=TOKEN) as (_, url):
        async with RemoteSandbox(url, token=TOKEN) as opened:
            yield opened


async def test_a_closed_sandbox_leases_nothing(sandbox: RemoteSandbox) -> None:
    other = RemoteSandbox("http://127.0.0.1:1", token=TOKEN)
    await other.aclose()
    await other.aclose()
    with pytest.raises(SandboxError):
        await other.session()
