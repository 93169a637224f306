"""The soak of the endpoint: how it judges what it gets, and a short one against the real service and sandbox."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "serve_soak.py"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import serve_soak
    import serve_soak_clients

    yield serve_soak, serve_soak_clients
    for name in ("serve_soak", "serve_soak_clients"):
        sys.modules.pop(name, None)


def chat(text: str) -> str:
    return json.dumps({"choices": [{"message": {"content": text}}]})


def test_the_text_is_the_same_streamed_or_not_by_either_api(module: Any) -> None:
    chunks = [{"choices": [{"delta": {"content": text}}]} for text in ("So \\boxed{4", "2}.", None)]
    deltas = [{"type": "response.output_text.delta", "delta": text} for text in ("So \\boxed{", "42}.")]
    streams = ["".join(f"event: x\ndata: {json.dumps(one)}\n\n" for one in several) for several in (chunks, deltas)]
    response = json.dumps({"output": [{"type": "reasoning"}, {"content": [{"text": "So \\boxed{42}."}]}]})
    for answer in (*streams, response, chat("So \\boxed{42}.")):
        assert module[1].BOXED.findall(module[1].told(answer)) == ["42"]


def test_anothers_number_is_wrong_even_after_a_kill_and_none_only_without_one(module: Any) -> None:
    soak = module[1].Soak("http://127.0.0.1:1")
    began = time.monotonic()
    soak.judge("honest", 200, chat("So \\boxed{42}."), 42, began)
    soak.judge("honest", 200, chat("So \\boxed{nothing}."), 42, began)
    soak.judge("honest", 502, "{}", 42, began)
    assert (soak.ends["right"], soak.hit, soak.wrong, soak.ends["fault"]) == (1, 0, 0, 2)
    soak.last_kill = began + 1
    soak.judge("honest", 200, chat("So \\boxed{nothing}."), 42, began)
    soak.judge("honest", 502, "{}", 42, began)
    assert (soak.hit, soak.wrong, soak.ends["fault"]) == (2, 0, 2)
    soak.judge("honest", 200, chat("So \\boxed{43}."), 42, began)
    soak.judge("honest", 500, "", 42, began)
    assert (soak.ends["right"], soak.hit, soak.wrong, soak.ends["fault"]) == (1, 2, 1, 4)


def test_growth_is_seen_without_the_warm_up_and_without_the_end(module: Any) -> None:
    watch = module[0].Watch(0)
    watch.rows = [{"s": 10.0 * n, "rss_mb": 100.0 + (50 if n < 15 else 0) + n} for n in range(180)] + [{"s": 1800.0, "rss_mb": 1.0}]
    assert watch.slope("rss_mb") == pytest.approx(360)
    assert 100 < watch.growth("rss_mb") < 162


@pytest.mark.docker
def test_a_short_soak_leaves_nothing_and_no_answer_is_wrong() -> None:
    command = [sys.executable, str(SCRIPT), "--minutes", "0.25", "--clients", "4", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["right"] > 0
    assert found["kills"]["container"] > 0
    assert (found["wrong"], found["other_5xx"], found["leaked"], found["containers_left"]) == (0, 0, {}, 0), done.stderr[-3000:]
    assert found["ends"].get("last 200") == 4, done.stderr[-3000:]
    assert found["exit_code"] == 0, done.stderr[-3000:]
