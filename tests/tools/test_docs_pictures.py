"""What docs/pictures.md says holds: its problem loads, its numbers are the code's, its table is whole, its Python runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tests import pictures
from toolreason import attachments, problems
from toolreason.execution import SessionBook, open_sandbox
from toolreason.policies import ChatPolicy
from toolreason.tools import core

PAGE = (Path(__file__).parent.parent.parent / "docs" / "pictures.md").read_text(encoding="utf-8")
SEES, RUN = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
(ROW,) = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_limits_are_the_code_s() -> None:
    assert f"| files | {attachments.MOST_FILES} |" in PAGE
    assert f"| bytes, all together | {attachments.MOST_BYTES:,}:" in PAGE
    assert f"{attachments.MOST_PIXELS / 1e6:.1f} million (4096 x 4096)" in PAGE
    assert attachments.MOST_PIXELS == 4096 * 4096


def test_the_table_names_the_functions_that_there_are() -> None:
    calls = re.findall(r"`(\w+\([^`]*\))`", "".join(line for line in PAGE.splitlines() if line.startswith("| `")))
    told = [call for call, _ in core.functions()]
    assert [call.partition("(")[0] for call in calls] == [call.partition("(")[0] for call in told]
    assert all(call in told for call in calls if "..." not in call and call != "read(name)")


async def test_the_example_of_a_model_that_sees_is_one() -> None:
    names: dict[str, Any] = {}
    exec(SEES, names)
    open_policy = names["open_policy"]
    names["open_policy"] = lambda spec, **options: open_policy(spec, api_key="none", **options)
    policy = await names["sees"]()
    assert isinstance(policy, ChatPolicy)
    assert policy.vision


async def test_the_problem_is_answered_by_code_with_the_files_in_the_session(tmp_path: Path) -> None:
    pictures.save(tmp_path / "pictures" / "map.png")
    file = tmp_path / "problems.jsonl"
    file.write_text(ROW)
    (problem,) = problems.load(str(file)).problems
    names: dict[str, Any] = {}
    exec(RUN, names)
    async with open_sandbox("local") as sandbox, SessionBook(sandbox) as sessions:
        code = "from pictures import regions\nsum(one.pixels > 50 for one in regions('map.png', 'red'))"
        result = await names["run"](sessions, "k", problem, code)
        assert result.value == problem.reference.answer
        again = await names["run"](sessions, "k", problem, "read = regions\nlen(read('map.png', 'blue'))", [("k:0", code)])
        assert again.value == "1"
