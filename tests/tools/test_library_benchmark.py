"""The benchmark of the library, at a size that takes a second: its figures have the promised names and are of what they say."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

FILE = Path(__file__).parent.parent.parent / "benchmarks" / "tools.py"


@pytest.fixture
def tools_benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("benchmark_tools", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "benchmark_tools", module)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


async def test_a_small_run_has_the_promised_figures(tools_benchmark: Any) -> None:
    plan = tools_benchmark.Plan(tools=60, sizes=(20, 60), queries=20, peer_queries=2, admissions=3, uses=3, trials=2)
    summary = (await tools_benchmark.run(plan, None, Console(quiet=True))).summary()
    assert {"retrieval_ms_p50_10k", "admission_ms_p50", "open_s", "first_search_s", "memory_mb", "machine"} <= summary.keys()
    assert summary["retrieval_ms_p50_10k"] == summary["times"]["retrieval_60"]["p50_ms"]
    assert summary["hit_share_60"] > 0.9, "the tool a query was made from is found"
    assert summary["times"]["search_after_other_wrote"]["n"] == 3
    assert {"store_filter_60", "scan_60"} <= summary["times"].keys()
    assert {"gate_ms_p50", "admit_ms_p50", "rerun_ms_p50", "merge_ms_p50", "consolidation_s", "consolidation_mb"} <= summary.keys()
    assert summary["redundancy"] > 0, "the copies that were admitted are seen as such"


def test_tools_are_the_same_each_time_and_differ(tools_benchmark: Any) -> None:
    assert tools_benchmark.make_tool(3) == tools_benchmark.make_tool(3)
    assert len({tools_benchmark.make_tool(number).hash for number in range(200)}) == 200
    assert str(3) not in tools_benchmark.make_query(3), "a query does not name its tool"
