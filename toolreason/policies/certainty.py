"""Self-Certainty: how far a token's distribution is from uniform (Kang et al., arXiv 2502.18581).

    KL(U || p) = -log V - 1/V sum_j log p_j        V tokens in the vocabulary, natural logs

Exact where all log-probabilities are at hand. A server gives the k largest only: then the mass that they leave is taken as spread
evenly over the other V - k tokens. By convexity no other spread has a smaller divergence, so the value is a lower bound; and since
nearly all of V is in that tail, the bound hangs on the mass that is left. Log-probabilities come as 32-bit numbers, so a tail mass
below `FLOOR` is rounding: very peaked tokens all count alike. Compare such values with each other, not with exact ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

FLOOR = 1e-7


def self_certainty(top: Sequence[float], vocabulary: int) -> float:
    """The divergence, in nats and at least 0, from the `top` log-probabilities of a distribution over `vocabulary` tokens."""
    known = min(len(top), vocabulary)
    tail = vocabulary - known
    if known == 0:
        return 0.0
    total = math.fsum(top)
    if tail:
        left = max(1.0 - math.fsum(math.exp(value) for value in top), FLOOR)
        even = min(math.log(left / tail), min(top))  # nothing in the tail is more probable than what was given
        total += tail * even
    return max(-math.log(vocabulary) - total / vocabulary, 0.0)


def mean(values: Iterable[float]) -> float | None:
    """The mean over tokens; None where there are none."""
    numbers = list(values)
    return math.fsum(numbers) / len(numbers) if numbers else None
