"""The pages on adapters and on the service: what they show runs."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from tests.serve.service import TOKEN, running

DOCS = Path(__file__).parent.parent.parent / "docs"
pytestmark = pytest.mark.docker


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", blocks("adapters.md"))
def test_what_the_page_on_adapters_shows_prints_42(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(block, {})
    assert capsys.readouterr().out.strip() == "42"


async def test_what_the_page_on_the_service_shows_prints_42(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = blocks("sandbox-service.md")
    monkeypatch.setenv("TOOLREASON_SANDBOX_TOKEN", TOKEN)
    with running(density="shared", pool=1) as service:
        await asyncio.to_thread(exec, block.replace("http://127.0.0.1:8700", service.url), {})
    assert capsys.readouterr().out.strip() == "42"
