"""The demo: three conditions over the same problems, shown live, compared, kept."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from toolreason import demo as demonstration
from toolreason import runs
from toolreason.demo import Stage, fresh
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.stats import Tally
from toolreason.types import CellResult, Judgement, Outcome, Problem, Reference, ReferenceKind, Source, Trajectory, Verdict

PROBLEMS = [Problem(f"p{i}", f"What is {i} + 1?", Reference(ReferenceKind.MATH, str(i + 1))) for i in range(3)]


class Sessions:
    """A sandbox that always prints 42."""

    async def run(self, key: str, call_id: str, code: str, **_: Any) -> CellResult:
        return CellResult(Outcome.OK, stdout="42\n")

    async def release(self, key: str) -> None:
        return None


def model(prompt: str, _: int) -> str:
    """Writes code once a hint has opened a fence; knows the answer only after an execution."""
    if "42" in prompt:
        return r"So it is \boxed{right}."
    return "print(40 + 2)\n```\n" if "```python" in prompt else r"I guess \boxed{wrong}."


async def verifier(problem: Problem, trajectory: Trajectory) -> Verdict:
    return Verdict(Judgement.CORRECT if "right" in trajectory.response else Judgement.WRONG)


async def shown(tmp_path: Path, replies: Any = model) -> tuple[str, dict[str, Any]]:
    out, reports = io.StringIO(), list[int]()

    @contextlib.contextmanager
    def bar(title: str) -> Iterator[Any]:
        def progress(tally: Tally) -> None:
            reports.append(tally.finished)

        yield progress

    console = Console(file=out, width=160)
    stage = Stage(ScriptedPolicy(replies), Sessions(), verifier, console, bar, "scripted", max_tokens=200)
    result = await demonstration.demo(stage, tmp_path, PROBLEMS)
    assert max(reports) == len(PROBLEMS)
    return out.getvalue(), result


async def test_the_three_conditions_are_compared_and_kept(tmp_path: Path) -> None:
    text, result = await shown(tmp_path)
    assert {name: one["correct"] for name, one in result["conditions"].items()} == {"plain": 0, "hint_infer": 3, "not_executed": 0}
    assert result["mcnemar"]["plain"] == {"only_hinted": 3, "only_other": 0, "p": 0.25}
    assert json.loads((tmp_path / "summary.json").read_text()) == result
    for name in result["conditions"]:
        assert len(list(runs.read(tmp_path / name))) == 3
    executed = list(runs.read(tmp_path / "hint_infer"))
    assert all(t.tokens(Source.TOOL) for t in executed)
    assert not any(t.cells for t in runs.read(tmp_path / "not_executed"))
    assert "3/3 = 100.0 %" in text
    assert "exact McNemar p = 0.250" in text
    assert f"toolreason show {tmp_path}" in text


async def test_the_first_rollout_streams_and_a_right_hinted_one_is_shown_whole(tmp_path: Path) -> None:
    text, _ = await shown(tmp_path)
    live, whole = text.split("one trajectory")
    assert "What is 0 + 1?" in live
    assert "I guess" in live
    assert "print(40 + 2)" in live
    assert "correct" in whole
    assert "print(40 + 2)" in whole
    assert "42" in whole


async def test_with_nothing_right_the_demo_says_so(tmp_path: Path) -> None:
    text, result = await shown(tmp_path, lambda prompt, i: r"\boxed{wrong}")
    assert "no hinted rollout was right this time" in text
    assert result["mcnemar"]["plain"]["p"] == 1.0


def test_each_run_has_a_directory_of_its_own(tmp_path: Path) -> None:
    assert len({fresh(tmp_path / "demo") for _ in range(4)}) == 4


def test_the_problems_that_come_with_the_package_can_all_be_judged() -> None:
    chosen = demonstration.problems()
    assert len(chosen) == 12
    assert all(p.reference.answer for p in chosen)
