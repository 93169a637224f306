"""Which of several servers answers a call: the one that holds the rollout's prefix, else the least busy; never one that is down."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

BLOCK = 64  # tokens of a prefix by which its home is remembered
SLACK = 4  # calls by which a prefix's home may be busier than the least busy server and still be chosen
HOMES = 65_536  # blocks remembered
LONGEST_REST_S = 30.0


@dataclass(eq=False)
class Server:
    """`busy` calls are in flight; after `faults` failures in a row it rests until `down_until` (seconds of the clock)."""

    url: str
    busy: int = 0
    faults: int = 0
    down_until: float = 0.0


class Servers:
    """Chooses; makes no connection itself. `rest_s` is how long a server rests after its first failure, doubled by each more."""

    def __init__(self, urls: Sequence[str], *, rest_s: float = 0.5, clock: Callable[[], float] = time.monotonic) -> None:
        self.all = [Server(url) for url in urls]
        self._rest_s = rest_s
        self._clock = clock
        self._homes: OrderedDict[int, Server] = OrderedDict()

    def pick(self, ids: Sequence[int]) -> Server:
        """The server for this prompt; where all are down, the one that comes back first."""
        now = self._clock()
        up = [server for server in self.all if server.down_until <= now]
        if not up:
            return min(self.all, key=lambda server: server.down_until)
        least = min(up, key=lambda server: server.busy)
        home = self._home(ids)
        return home if home in up and home.busy <= least.busy + SLACK else least

    def wait_s(self) -> float:
        """Seconds until one is up: 0 if one is."""
        return max(min(server.down_until for server in self.all) - self._clock(), 0.0)

    def failed(self, server: Server) -> None:
        """It did not answer: let it rest."""
        rest = min(self._rest_s * 2**server.faults, LONGEST_REST_S)
        server.faults += 1
        server.down_until = self._clock() + rest

    def worked(self, server: Server, ids: Sequence[int]) -> None:
        """It answered, and now holds this prefix."""
        server.faults, server.down_until = 0, 0.0
        for key in _blocks(ids):
            self._homes[key] = server
            self._homes.move_to_end(key)
        while len(self._homes) > HOMES:
            self._homes.popitem(last=False)

    def _home(self, ids: Sequence[int]) -> Server | None:
        """Who holds at least half of this prompt: less, as a system prompt that all rollouts share, is no reason."""
        keys = list(_blocks(ids))
        for count in range(len(keys), 0, -1):
            if 2 * count * BLOCK < len(ids):
                return None
            if (server := self._homes.get(keys[count - 1])) is not None:
                return server
        return None


def _blocks(ids: Sequence[int]) -> Iterator[int]:
    """A key for each prefix of whole blocks, each resting on the one before."""
    key = 0
    for start in range(0, len(ids) - BLOCK + 1, BLOCK):
        key = hash((key, tuple(ids[start : start + BLOCK])))
        yield key
