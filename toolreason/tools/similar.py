"""Tools that are nearly the same, by their code and by what is said of them.

Sets of features are compared by Jaccard's index. Which pairs are worth comparing, MinHash with banding tells (Broder 1997; Leskovec
et al., Mining of Massive Datasets, chapter 3): 10,000 tools take seconds, and pairs at the thresholds are found with 99 %.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from toolreason.tools.duplicates import normal_form
from toolreason.tools.package import ToolPackage
from toolreason.tools.retrieval import words

SHINGLE = 4  # tokens of the normalised tree
HASHES = 64  # in bands of r, two sets of index j share one with 1 - (1 - j^r)^(64 / r): r = 4: 0.988 at 0.7, 0.03 at 0.2;
LONG = 0.7  # r = 3: 0.994 at 0.6, 0.15 at 0.2. From this index on it is 4
CROWD = 20  # in a band that many tools share each is compared with so many others only

_TOKEN = re.compile(r"\w+|'(?:[^'\\]|\\.)*'|[@$]\d+")
_SILENT = frozenset(("Load", "Store"))

Pairs = dict[tuple[str, str], float]


class Vocabulary:
    """Features as numbers, each with its hashes: sets of numbers are small, and quick to compare."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._hashes: list[array[int]] = []

    def numbers(self, features: Iterable[Hashable]) -> frozenset[int]:
        found = set()
        for feature in features:
            if (number := self._numbers.get(feature)) is None:
                number = self._numbers[feature] = len(self._hashes)
                text = repr(feature).encode("utf-8", "backslashreplace")
                self._hashes.append(array("H", blake2b(text).digest() + blake2b(text, person=b"second").digest()))
            found.add(number)
        return frozenset(found)

    def signature(self, numbers: frozenset[int]) -> tuple[int, ...]:
        """MinHash: the least of each of the `HASHES` hashes over a set that is not empty."""
        return tuple(map(min, zip(*map(self._hashes.__getitem__, numbers), strict=True)))


def code_features(form: str) -> Iterator[Hashable]:
    """Runs of tokens of a tool's normal form."""
    tokens = [token for token in _TOKEN.findall(form) if token not in _SILENT]
    return zip(*(tokens[start:] for start in range(min(SHINGLE, len(tokens)))), strict=False)


def word_features(package: ToolPackage) -> list[str]:
    return words(f"{package.name} {package.description}")


def jaccard(one: frozenset[int], other: frozenset[int]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared) if shared else 0.0


def pairs(sets: Mapping[str, frozenset[int]], vocabulary: Vocabulary, least: float) -> Pairs:
    """The pairs of names, each in order, whose index is `least` or more, with it. Empty sets are like nothing."""
    found: Pairs = {}
    rows = 4 if least >= LONG else 3
    bands: dict[int, list[str]] = {}
    for name in sorted(sets):
        if not sets[name]:
            continue
        signature = vocabulary.signature(sets[name])
        others: set[str] = set()
        for start in range(0, HASHES - rows + 1, rows):
            band = bands.setdefault(hash((start, signature[start : start + rows])), [])
            others.update(band[-CROWD:])
            band.append(name)
        for other in others:
            if (index := jaccard(sets[other], sets[name])) >= least:
                found[other, name] = index
    return found


@dataclass(frozen=True)
class Scan:
    """Tools as they are compared: `same` is a digest of the normal form, `code` and `said` sets of features by name."""

    same: dict[str, str]
    code: dict[str, frozenset[int]]
    said: dict[str, frozenset[int]]
    vocabulary: Vocabulary


def scan(packages: Iterable[ToolPackage]) -> Scan:
    made = Scan({}, {}, {}, Vocabulary())
    for one in packages:
        form = normal_form(one)
        made.same[one.name] = blake2b(form.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()
        made.code[one.name] = made.vocabulary.numbers(code_features(form))
        made.said[one.name] = made.vocabulary.numbers(word_features(one))
    return made


def near_pairs(packages: Sequence[ToolPackage], scan: Scan, *, code: float, described: float) -> Pairs:
    """Pairs of the packages alike in code (`code` or more), or in words (`described` or more) and in what they have to be given."""
    by_name = {one.name: one for one in packages}
    found = pairs({name: scan.code[name] for name in by_name}, scan.vocabulary, code)
    for pair, index in pairs({name: scan.said[name] for name in by_name}, scan.vocabulary, described).items():
        if called_alike(by_name[pair[0]], by_name[pair[1]]):
            found[pair] = max(index, found.get(pair, 0.0))
    return found


def called_alike(one: ToolPackage, other: ToolPackage) -> bool:
    """Whether the required arguments have the same types, in order, whatever their names."""
    return _types(one) == _types(other)


def _types(package: ToolPackage) -> list[str]:
    properties = package.parameters.get("properties")
    schemas = properties if isinstance(properties, dict) else {}
    required = package.parameters.get("required") or ()
    return [repr(schemas.get(name, {}).get("type")) for name in required]


def stars(names: Sequence[str], pairs: Iterable[tuple[str, str]], better: Callable[[str], Any]) -> list[list[str]]:
    """Groups of two or more: a tool and those near to it that no better one has taken, best first. Nothing is near by way of a
    third tool.
    """
    beside: dict[str, set[str]] = {}
    for one, other in pairs:
        beside.setdefault(one, set()).add(other)
        beside.setdefault(other, set()).add(one)
    taken: set[str] = set()
    groups = []
    for name in sorted(names, key=better):
        near = beside.get(name, set()) - taken
        if name in taken or not near:
            continue
        group = [name, *sorted(near, key=better)]
        taken |= set(group)
        groups.append(group)
    return groups
