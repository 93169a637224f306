"""What /metrics says of the endpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from toolreason.types import Source, Trajectory

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300, 600)


@dataclass
class Measures:
    """Counters and histograms of one service; names and units are Prometheus's."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        given: Any = {"registry": self.registry}
        self.requests = Counter("toolreason_requests", "Requests by how they ended", ["model", "end"], **given)
        self.running = Gauge("toolreason_running", "Rollouts under way", **given)
        self.waiting = Gauge("toolreason_waiting", "Requests that wait for a place", **given)
        self.tokens = Counter("toolreason_tokens", "Tokens by who wrote them", ["source"], **given)
        self.cells = Counter("toolreason_cells", "Cells by how they ended", ["outcome"], **given)
        self.seconds = Histogram("toolreason_request_seconds", "Seconds of a request", ["model"], buckets=SECONDS, **given)
        self.queued = Histogram("toolreason_queue_seconds", "Seconds that a request waited", buckets=SECONDS, **given)
        self.first = Histogram("toolreason_first_token_seconds", "Seconds to the first text", buckets=SECONDS, **given)

    def count(self, done: Trajectory) -> None:
        for source in Source:
            if tokens := done.tokens(source):
                self.tokens.labels(source.value).inc(tokens)
        for cell in done.cells:
            self.cells.labels(cell.result.outcome.value).inc()
