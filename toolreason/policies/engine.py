"""The decode loop of the transformers policy: one thread, one batch that rows join and leave between steps.

Imports torch: load it late. `transformers` has continuous batching of its own, without stop strings, seeds or log-probabilities
by request; hence this one. A turn of the loop: let finished and cancelled rows go, prefill what waits (a bounded number of
tokens while others are running), draw one token for every row.
"""

from __future__ import annotations

import atexit
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toolreason.errors import PolicyError
from toolreason.policies.base import Completion
from toolreason.policies.draw import Drawer
from toolreason.policies.kv import Columns, PrefixCache, common, mask_of, merge, new_cache, row_of
from toolreason.policies.text import TextStream

CHUNK = 256  # prompt tokens computed between two steps of the running rows
LEAST_PREFIX = 8  # a shorter common prefix is not worth the copy


@dataclass(eq=False)
class Request:
    """One call. The callbacks are called in the engine's thread: `emit` for a piece of text, then `done` or `fail` once."""

    ids: list[int]
    stream: TextStream
    drawer: Drawer
    emit: Callable[[str], None]
    done: Callable[[Completion], None]
    fail: Callable[[Exception], None]
    cancelled: bool = False


@dataclass(slots=True)
class Stats:
    """Counters since the start. `reused` are prompt tokens taken from an earlier row, `computed` those that were not."""

    requests: int = 0
    steps: int = 0
    drawn: int = 0
    prefix_hits: int = 0
    tokens_reused: int = 0
    tokens_computed: int = 0
    running: int = 0
    waiting: int = 0


@dataclass(eq=False)
class Row:
    """A request in the batch. `length` tokens have keys and values: all but the last drawn one."""

    request: Request
    length: int

    @property
    def ids(self) -> list[int]:
        return self.request.ids + self.request.stream.ids

    @property
    def over(self) -> bool:
        return self.request.cancelled or self.request.stream.finish is not None


@dataclass(eq=False)
class Filling:
    """A request whose prompt is being computed: `done` tokens of it are in `cache`."""

    request: Request
    cache: Columns
    done: int


@dataclass(eq=False)
class Batch:
    rows: list[Row] = field(default_factory=list)
    cache: Columns | None = None


class Engine:
    """Runs `model` in a daemon thread. `submit` and `close` may be called from any thread."""

    def __init__(self, model: Any, *, max_rows: int, cache_tokens: int, threads: int | None = None) -> None:
        self._model = model
        config = model.config.get_text_config()
        self._layers: int = config.num_hidden_layers
        self.vocabulary: int = config.vocab_size
        self._max_rows = max_rows
        self._threads = threads
        self._prefixes = PrefixCache(cache_tokens)
        self._queue: deque[Request] = deque()
        self._wake = threading.Condition()
        self._filling: Filling | None = None
        self._batch = Batch()
        self._joining: list[tuple[Row, Columns]] = []
        self._closed: Exception | None = None
        self.stats = Stats()
        self._thread = threading.Thread(target=self._run, name="toolreason-engine", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # a thread inside torch while the interpreter is taken down would abort the process

    def submit(self, request: Request) -> None:
        """Queue a request. Raises PolicyError where the engine is closed or dead."""
        with self._wake:
            if self._closed is not None:
                raise PolicyError(f"the engine has stopped: {self._closed}") from self._closed
            self._queue.append(request)
            self.stats.requests += 1
            self._wake.notify()

    def wake(self) -> None:
        """Look at `cancelled` flags now."""
        with self._wake:
            self._wake.notify()

    def close(self) -> None:
        """Stop after the current step, fail what is in flight, and wait for the thread (blocking)."""
        with self._wake:
            self._closed = self._closed or PolicyError("it was closed")
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        atexit.unregister(self.close)

    def _run(self) -> None:
        try:
            if self._threads:
                torch.set_num_threads(self._threads)  # by thread: OpenMP keeps it so
            with torch.inference_mode():
                while self._wait():
                    self._turn()
        except Exception as error:
            with self._wake:
                self._closed = error
        self._fail_all(PolicyError(f"the engine has stopped: {self._closed}"))

    def _wait(self) -> bool:
        """Until there is work. False when closed."""
        with self._wake:
            while not (self._closed or self._queue or self._filling or self._batch.rows):
                self._wake.wait()
            return self._closed is None

    def _fail_all(self, error: PolicyError) -> None:
        with self._wake:
            waiting = list(self._queue)
            self._queue.clear()
        filling = [self._filling.request] if self._filling else []
        rows = [*self._batch.rows, *(row for row, _ in self._joining)]
        for request in [*waiting, *filling, *(row.request for row in rows if not row.over)]:
            request.fail(error)
        self._filling, self._batch, self._joining = None, Batch(), []
        self._prefixes.clear()
        self._count()

    def _turn(self) -> None:
        self._prefill()
        self._reshape()
        if self._batch.rows:
            self._step()
            self._reshape()
        self._count()

    def _count(self) -> None:
        with self._wake:
            self.stats.waiting = len(self._queue) + (self._filling is not None)
        self.stats.running = len(self._batch.rows)

    def _prefill(self) -> None:
        """Compute prompts: all that wait when nothing runs, at most `CHUNK` tokens otherwise."""
        budget = CHUNK
        while budget > 0 and (filling := self._next()):
            count = min(CHUNK, len(filling.request.ids) - filling.done)
            logits = self._chunk(filling, count)
            budget -= count if self._batch.rows or self._joining else 0
            if filling.done == len(filling.request.ids):
                self._filling = None
                self._start(filling, logits)

    def _next(self) -> Filling | None:
        """The prompt in work, or the next of the queue if there is room."""
        if self._filling is not None and self._filling.request.cancelled:
            self._filling = None
        while self._filling is None:
            with self._wake:
                if self._closed or not self._queue or len(self._batch.rows) + len(self._joining) >= self._max_rows:
                    return None
                request = self._queue.popleft()
            if not request.cancelled:
                self._filling = self._begin(request)
        return self._filling

    def _begin(self, request: Request) -> Filling:
        """Start a prompt from the longest prefix that was computed before, in a finished row or a running one."""
        ids = np.array(request.ids[:-1])  # the last token is always computed: its logits are wanted
        length, rows = self._prefixes.find(ids)
        running = self._batch.rows
        shared = [common(np.array(row.ids[: row.length]), ids) for row in running]
        if shared and max(shared) > length and self._batch.cache is not None:
            length, best = max(shared), int(np.argmax(shared))
            rows = row_of(self._batch.cache, best, running[best].length, length)
        if length < LEAST_PREFIX:
            length, rows = 0, []
        self.stats.prefix_hits += length > 0
        self.stats.tokens_reused += length
        return Filling(request, new_cache(self._layers, rows, room=len(request.ids) - length + 1), length)

    def _chunk(self, filling: Filling, count: int) -> Tensor:
        """Compute the next `count` tokens of a prompt; the logits (vocabulary,) after the last of them."""
        device = self._model.device
        span = slice(filling.done, filling.done + count)
        output = self._model(
            input_ids=torch.tensor([filling.request.ids[span]], device=device),
            position_ids=torch.arange(span.start, span.stop, device=device)[None],
            attention_mask=torch.ones((1, span.stop), dtype=torch.long, device=device),
            past_key_values=filling.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        filling.done += count
        self.stats.tokens_computed += count
        logits: Tensor = output.logits[0, -1]
        return logits

    def _start(self, filling: Filling, logits: Tensor) -> None:
        """The prompt is computed: draw the first token and let the row join."""
        row = Row(filling.request, len(filling.request.ids))
        self._joining.append((row, filling.cache))
        self._take([row], logits[None])

    def _step(self) -> None:
        """One token for every row."""
        rows, cache = self._batch.rows, self._batch.cache
        device = self._model.device
        lengths = [row.length + 1 for row in rows]
        width = max(lengths)
        output = self._model(
            input_ids=torch.tensor([[row.request.stream.ids[-1]] for row in rows], device=device),
            position_ids=torch.tensor([[row.length] for row in rows], device=device),
            attention_mask=mask_of(lengths, width, device),
            past_key_values=cache,
            use_cache=True,
        )
        for row in rows:
            row.length += 1
        self.stats.steps += 1
        self._take(rows, output.logits[:, -1])

    def _take(self, rows: list[Row], logits: Tensor) -> None:
        """Draw a token for each row from its logits, (rows, vocabulary), and hand it on."""
        logprobs = torch.log_softmax(logits.float(), dim=-1)
        for row, values in zip(rows, logprobs, strict=True):
            request = row.request
            if request.cancelled:
                continue
            token = request.drawer.draw(values)
            logprob = float(values[token])
            if not np.isfinite(logprob):
                request.cancelled = True
                request.fail(PolicyError("the model gives no finite probabilities: try another dtype (float32)"))
                continue
            self.stats.drawn += 1
            if piece := request.stream.push(token, logprob, request.drawer.certainty(values)):
                request.emit(piece)
            if request.stream.finish is not None:
                request.done(request.stream.completion())

    def _reshape(self) -> None:
        """Let rows that are over go (their keys and values are kept for a continuation), and new ones join."""
        batch = self._batch
        parts = [(row, batch.cache, index) for index, row in enumerate(batch.rows)]
        parts += [(row, cache, 0) for row, cache in self._joining]
        for row, cache, index in parts:
            if row.over and not row.request.cancelled and cache is not None:
                self._prefixes.add(np.array(row.ids[: row.length]), row_of(cache, index, row.length))
        kept = [(row, cache, index) for row, cache, index in parts if not row.over and cache is not None]
        if len(kept) < len(batch.rows) or self._joining:
            self._joining = []
            cache = merge([(cache, index, row.length) for row, cache, index in kept]) if kept else None
            self._batch = Batch([row for row, _, _ in kept], cache)
