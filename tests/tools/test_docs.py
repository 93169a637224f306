"""What docs/tools.md shows is a tool, and its Python does what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from toolreason.adapters import tools as adapters
from toolreason.execution import open_sandbox

PAGE = (Path(__file__).parent.parent.parent / "docs" / "tools.md").read_text(encoding="utf-8")
CODE, TESTS, ADMIT, LANGCHAIN = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def local(*_: Any) -> Any:
    return open_sandbox("local")


async def test_the_tool_of_the_page_is_admitted_and_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(ADMIT, names)
    names["open_sandbox"] = local
    await names["add"](CODE, "from toolbox import digit_counts\n\n\n" + TESTS)
    assert capsys.readouterr().out == "digit_counts@1 True ()\n"
    exec(LANGCHAIN, names)
    names["LibraryToolkit"] = lambda **given: adapters.LibraryToolkit(**given, sandbox=local())
    names["main"]()
    assert capsys.readouterr().out == '{"3": 1, "2": 2, "1": 1}\n'
