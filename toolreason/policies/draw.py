"""Drawing the next token of one row. Imports torch: load it late."""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

from toolreason.types import Sampling

HEAD = 1024  # tokens looked at before the whole vocabulary is sorted for top-p


class Drawer:
    """Draws by `sampling` with a generator of its own, so that a row's tokens do not depend on what else is in the batch."""

    def __init__(self, sampling: Sampling, seed: int) -> None:
        self._sampling = sampling
        self._random = random.Random(seed)

    def draw(self, logprobs: Tensor) -> int:
        """One id from `logprobs` (vocabulary,), natural logs of the model's own distribution."""
        if self._sampling.temperature == 0:
            return int(logprobs.argmax())
        probs = torch.softmax(logprobs.double() / self._sampling.temperature, dim=-1)
        if self._sampling.top_k == 0 and self._sampling.top_p == 1:
            return self._pick(probs)
        top, ids = self._head(probs)
        return int(ids[self._pick(top)])

    def certainty(self, logprobs: Tensor) -> float | None:
        """The distribution's self-certainty (`policies.certainty`), exact, where `sampling` asks for it."""
        if not self._sampling.top_logprobs:
            return None
        return max(float(-logprobs.double().mean()) - math.log(len(logprobs)), 0.0)

    def _head(self, probs: Tensor) -> tuple[Tensor, Tensor]:
        """The most probable tokens that top-k and then top-p leave, in descending order, with their ids."""
        size = min(self._sampling.top_k or HEAD, len(probs))
        top, ids = probs.topk(size)
        total = float(top.sum()) if self._sampling.top_k else 1.0
        if not self._sampling.top_k and float(top.sum()) < self._sampling.top_p:
            top, ids = probs.sort(descending=True)
        before = top.cumsum(0) - top
        keep = max(int((before < self._sampling.top_p * total).sum()), 1)
        return top[:keep], ids[:keep]

    def _pick(self, weights: Tensor) -> int:
        """An index, by inverting the cumulative weights at one uniform number."""
        cumulative = weights.cumsum(0)
        point = self._random.random() * float(cumulative[-1])
        index = int(torch.searchsorted(cumulative, point, right=True))
        return index if index < len(weights) else int(weights.nonzero()[-1])  # rounding put the point on the whole sum
