"""The keys and values of a running batch, and of what was computed before. Imports torch: load it late.

Rows are right-aligned: row `i` of length `n` stands in the last `n` columns, what is left of it is masked. So one step appends
one column for all rows, whatever their lengths, and rows leave or join by a copy between steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

GROWTH = 256  # columns by which a full buffer grows

Rows = list[tuple[Tensor, Tensor]]
"""By layer, the keys and the values of one row: (heads, length, head size) each."""


class GrowingLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values in buffers with room at the end, so that a step writes one column instead of copying them all."""

    keys: Any  # Tensor once there is one
    values: Any

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.length = 0

    def put(self, keys: Tensor, values: Tensor, room: int = GROWTH) -> None:
        """Hold these keys and values, (rows, heads, length, head size), and `room` more columns."""
        self.length = keys.shape[-2]
        self.keys, self.values = _with_room(keys, room), _with_room(values, room)
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        start, end = self.length, self.length + key_states.shape[-2]
        if self.keys is None or self.values is None:
            self.put(key_states, value_states)
            return key_states, value_states
        if end > self.keys.shape[-2]:
            self.put(self.keys[:, :, :start], self.values[:, :, :start], room=end - start + GROWTH)
        self.keys[:, :, start:end] = key_states
        self.values[:, :, start:end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_seq_length(self) -> int:
        return self.length


def _with_room(states: Tensor, room: int) -> Tensor:
    rows, heads, length, size = states.shape
    buffer = states.new_zeros((rows, heads, length + room, size))  # zeros: a masked NaN would still be a NaN
    buffer[:, :, :length] = states
    return buffer


class Columns(Cache):
    """The cache of a batch: all layers are of the same length."""

    def __init__(self, layers: list[GrowingLayer]) -> None:
        super().__init__(layers=list(layers))
        self.growing = layers


def new_cache(layers: int, start: Rows | None = None, room: int = 0) -> Columns:
    """The cache of one row, beginning with `start` (copied) and with room for `room` more columns."""
    made = [GrowingLayer() for _ in range(layers)]
    for layer, (keys, values) in zip(made, start or (), strict=False):
        layer.put(keys[None], values[None], room=room)
    return Columns(made)


def row_of(cache: Columns, row: int, length: int, end: int | None = None) -> Rows:
    """A view of the first `end` columns (all, if None) of a row of `length`."""
    width = cache.growing[0].length
    columns = slice(width - length, width if end is None else width - length + end)
    return [(layer.keys[row, :, columns], layer.values[row, :, columns]) for layer in cache.growing]


def merge(parts: Sequence[tuple[Columns, int, int]]) -> Columns:
    """A new batch of (cache, row, length) each, right-aligned at the width of the longest."""
    width = max(length for _, _, length in parts)
    runs = _runs(parts)
    made = []
    for index in range(len(parts[0][0].growing)):
        sources = [(cache.growing[index], rows) for cache, rows in runs]
        layer = GrowingLayer()
        layer.put(_stack(sources, "keys", len(parts), width), _stack(sources, "values", len(parts), width))
        made.append(layer)
    return Columns(made)


def _runs(parts: Sequence[tuple[Columns, int, int]]) -> list[tuple[Columns, slice]]:
    """Rows that follow each other in one cache, together: a copy of each run instead of one of each row."""
    runs: list[tuple[Columns, slice]] = []
    for cache, row, _ in parts:
        if runs and runs[-1][0] is cache and runs[-1][1].stop == row:
            runs[-1] = (cache, slice(runs[-1][1].start, row + 1))
        else:
            runs.append((cache, slice(row, row + 1)))
    return runs


def _stack(sources: Sequence[tuple[GrowingLayer, slice]], name: str, count: int, width: int) -> Tensor:
    """`count` rows, each from the last columns of its layer. What stands there before a row's own columns is masked."""
    first: Tensor = getattr(sources[0][0], name)
    stacked = first.new_zeros((count, first.shape[1], width, first.shape[3]))
    at = 0
    for layer, rows in sources:
        columns, end = min(width, layer.length), at + rows.stop - rows.start
        stacked[at:end, :, width - columns :] = getattr(layer, name)[rows, :, layer.length - columns : layer.length]
        at = end
    return stacked


@dataclass(eq=False)
class Entry:
    ids: np.ndarray
    rows: Rows


class PrefixCache:
    """Keys and values of finished rows, the least recently used thrown out beyond `limit` tokens."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: list[Entry] = []  # the last is the most recently used

    @property
    def tokens(self) -> int:
        return sum(len(entry.ids) for entry in self._entries)

    def find(self, ids: np.ndarray) -> tuple[int, Rows]:
        """The longest prefix of `ids` that is held: its length and keys and values (views). Length 0 where there is none."""
        best = max(self._entries, key=lambda entry: common(entry.ids, ids), default=None)
        length = 0 if best is None else common(best.ids, ids)
        if best is None or not length:
            return 0, []
        self._entries.remove(best)
        self._entries.append(best)
        return length, [(keys[:, :length], values[:, :length]) for keys, values in best.rows]

    def add(self, ids: np.ndarray, rows: Rows) -> None:
        """Keep a copy of `rows`; entries that `ids` continues go."""
        if not 0 < len(ids) <= self._limit:
            return
        self._entries = [entry for entry in self._entries if common(entry.ids, ids) < len(entry.ids)]
        self._entries.append(Entry(ids, [(keys.clone(), values.clone()) for keys, values in rows]))
        while self.tokens > self._limit:
            del self._entries[0]

    def clear(self) -> None:
        self._entries.clear()


def common(one: np.ndarray, other: np.ndarray) -> int:
    """How many ids at the start are the same."""
    length = min(len(one), len(other))
    differ = np.flatnonzero(one[:length] != other[:length])
    return int(differ[0]) if len(differ) else length


def mask_of(lengths: Sequence[int], width: int, device: torch.device) -> Tensor:
    """(rows, width): 1 where a column belongs to the row."""
    start = width - torch.tensor(lengths, device=device)[:, None]
    return (torch.arange(width, device=device)[None, :] >= start).long()
