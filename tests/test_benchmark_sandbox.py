"""The parts of the sandbox's benchmarks that measure nothing: what they make of given figures."""

from __future__ import annotations

import sys
import xml.etree.ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FOUND = {"rate_share_of_bare_fork_64": 0.7, "lease_ms_p50": 0.1, "shared_mb_per_session": 2.0}
KEYS = {"warm_call_over_bare_fork", "speedup_over_llm_sandbox", *FOUND}


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    import sandbox_soak

    import sandbox

    yield sandbox, sandbox_soak
    for name in ("sandbox", "sandbox_peers", "sandbox_soak"):
        sys.modules.pop(name, None)


def test_a_percentile_is_a_value_that_so_many_do_not_exceed(modules: Any) -> None:
    percentile = modules[0].percentile
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([float(n) for n in range(1, 101)], 99) == 99.0
    assert percentile([7.0], 99) == 7.0


def test_the_report_has_the_promised_keys_and_ratios_of_medians(modules: Any) -> None:
    report = modules[0].Report(found=dict(FOUND))
    for name, ms in {"bare_fork": 2.0, "container": 4.0, "llm_sandbox": 200.0}.items():
        report.add(name, [ms / 1e3, ms / 1e3, 1.0])
    summary = report.summary()
    assert not KEYS - summary.keys()
    assert (summary["warm_call_over_bare_fork"], summary["speedup_over_llm_sandbox"]) == (2.0, 50.0)
    assert summary["calls"]["bare_fork"] == {"n": 3, "median_ms": 2.0, "p99_ms": 1000.0}


def test_a_peer_that_could_not_be_measured_has_no_ratio(modules: Any) -> None:
    report = modules[0].Report()
    report.add("container", [0.004])
    assert report.summary()["speedup_over_llm_sandbox"] is None


def test_the_chart_is_a_picture_with_a_bar_for_each(modules: Any) -> None:
    medians = {"bare_fork": 2.0, "container": 4.0, "docker_run": 300.0}
    calls = {name: {"n": 1, "median_ms": ms, "p99_ms": ms} for name, ms in medians.items()}
    picture = xml.etree.ElementTree.fromstring(modules[0].chart({"calls": calls, "machine": {"cores": 2, "date": "2026-11-26"}}))
    bars = [float(bar.attrib["width"]) for bar in picture.iter("{http://www.w3.org/2000/svg}rect") if bar.attrib["width"] != "100%"]
    assert len(bars) == 3
    assert bars == sorted(bars)


def test_a_soak_tells_what_was_lost_and_whether_it_was_flat(modules: Any) -> None:
    tally = modules[1].Tally(calls=10, lost=["gone"], times=[0.1, 0.2])
    names = ("host_rss_mb", "host_descriptors", "containers_mb", "processes")
    tally.samples = [dict.fromkeys(names, 10.0) | {"at": 0.1}, dict.fromkeys(names, 20.0) | {"at": 0.95}]
    found = modules[1].report(tally, 2.0, left=0)
    assert (found["lost"], found["wrong"], found["calls_per_s"], found["trouble"]) == (1, 0, 5.0, ["gone"])
    assert found["flat"]["processes"] == {"first": 10.0, "last": 20.0, "ratio": 2.0}
