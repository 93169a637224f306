"""The gauge: how long a policy has nothing to do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from toolreason.policies.gauge import Gauge
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.types import Sampling


async def test_the_gauge_measures_time_without_a_request_and_passes_everything_through() -> None:
    now = 0.0
    gate = asyncio.Event()

    class Slow(ScriptedPolicy):
        async def sample(self, *args: Any, **more: Any) -> Any:
            await gate.wait()
            return await super().sample(*args, **more)

    gauge = Gauge(Slow(["a", "b"]), clock=lambda: now)
    prompt = gauge.prompt([{"role": "user", "content": "hi"}])
    assert gauge.decode(gauge.encode("x")) == "x"
    assert gauge.tokenizer.end_id == gauge.inner.tokenizer.end_id  # type: ignore[attr-defined]
    now = 3.0  # 3 s idle
    calls = [asyncio.ensure_future(gauge.sample([prompt], Sampling(), max_tokens=4)) for _ in range(2)]
    await asyncio.sleep(0)
    now = 9.0  # 6 s with requests
    gate.set()
    assert {(await call).text[0] for call in calls} == {"a", "b"}
    now = 10.0  # 1 s idle
    assert gauge.idle_share == pytest.approx(0.4)
    assert gauge.requests == 2


async def test_a_cancelled_request_leaves_the_gauge_idle() -> None:
    now = 0.0

    class Stuck(ScriptedPolicy):
        async def sample(self, *args: Any, **more: Any) -> Any:
            await asyncio.Event().wait()

    gauge = Gauge(Stuck([]), clock=lambda: now)
    call = asyncio.ensure_future(gauge.sample([], Sampling(), max_tokens=4))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call])
    now = 1.0
    assert gauge.idle_share == 1.0
