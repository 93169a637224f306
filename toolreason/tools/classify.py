"""Which category a tool belongs to that has none of its own: naive Bayes over the words of name and description.

It learns from the tools that people or models have put into a category; a library that has few of them is helped by words of ours.
"""

from __future__ import annotations

import math
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from toolreason.tools.package import ToolPackage
from toolreason.tools.retrieval import words

UNSORTED = "general"  # the category of what was given none
SURE = 0.85  # the least probability
SMOOTHING = 0.1


@cache
def texts() -> dict[str, Any]:
    """consolidation.toml."""
    return tomllib.loads((files("toolreason.tools") / "consolidation.toml").read_text(encoding="utf-8"))


def described(package: ToolPackage) -> list[str]:
    """Single letters, which are parameters, left out."""
    return [word for word in words(f"{package.name} {package.description}") if len(word) > 1]


class Classifier:
    """Learns from those of `packages` that have a category."""

    def __init__(self, packages: Iterable[ToolPackage]) -> None:
        self._counts: dict[str, Counter[str]] = {name: Counter(said.split()) for name, said in texts()["categories"].items()}
        for package in packages:
            if package.category != UNSORTED:
                self._counts.setdefault(package.category, Counter()).update(described(package))
        self._words = {word for counts in self._counts.values() for word in counts}
        self._totals = {name: counts.total() + SMOOTHING * len(self._words) for name, counts in self._counts.items()}

    def category(self, package: ToolPackage) -> tuple[str, float] | None:
        """The likeliest category, with its probability, where it is sure: all categories are as likely before a word is read."""
        known = [word for word in described(package) if word in self._words]
        if not known:
            return None
        logs = {name: self._log(name, known) for name in self._counts}
        best = max(logs, key=lambda name: (logs[name], name))
        sure = 1 / sum(math.exp(max(-700.0, log - logs[best])) for log in logs.values())
        return (best, sure) if sure >= SURE else None

    def _log(self, category: str, known: Sequence[str]) -> float:
        counts, total = self._counts[category], self._totals[category]
        return sum(math.log((counts[word] + SMOOTHING) / total) for word in known)
