"""Tools that are nearly the same, by their code and by what is said of them.

Sets of features are compared by Jaccard's index. Which pairs are worth comparing, MinHash with banding tells (Broder 1997; Leskovec
et al., Mining of Massive Datasets, chapter 3): 10,000 tools take seconds, and pairs at the thresholds are found with 99 %.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from toolreason.tools.package import ToolPackage
from toolreason.tools.retrieval import words

SHINGLE = 4  # tokens of the normalised tree
HASHES = 64  # in bands of r, two sets of index j share one with 1 - (1 - j^r)^(64 / r): r = 4: 0.988 at 0.7, 0.03 at 0.2;
LONG = 0.7  # r = 3: 0.994 at 0.6, 0.15 at 0.2. From this index on it is 4
CROWD = 20  # in a band that many tools share each is compared with so many others only

_TOKEN = re.compile(r"\w+|'(?:[^'\\]|\\.)*'|[@$]\d+")
_SILENT = frozenset(("Load", "Store"))
_HASHES = struct.Struct("<32H")

Pairs = dict[tuple[str, str], float]


def code_features(form: str) -> frozenset[Hashable]:
    """Runs of tokens of a tool's normal form."""
    tokens = [token for token in _TOKEN.findall(form) if token not in _SILENT]
    return frozenset(zip(*(tokens[start:] for start in range(min(SHINGLE, len(tokens)))), strict=False))


def word_features(package: ToolPackage) -> frozenset[Hashable]:
    return frozenset(words(f"{package.name} {package.description}"))


def jaccard(one: frozenset[Hashable], other: frozenset[Hashable]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared) if shared else 0.0


def pairs(sets: Mapping[str, frozenset[Hashable]], least: float) -> Pairs:
    """The pairs of names, each in order, whose index is `least` or more, with it. Empty sets are like nothing."""
    found: Pairs = {}
    seen: set[tuple[str, str]] = set()
    for band in _bands(sets, 4 if least >= LONG else 3).values():
        for place, name in enumerate(band):
            for other in band[max(0, place - CROWD) : place]:
                pair = (other, name)  # in order: bands are filled by name
                if pair in seen:
                    continue
                seen.add(pair)
                if (index := jaccard(sets[name], sets[other])) >= least:
                    found[pair] = index
    return found


def _bands(sets: Mapping[str, frozenset[Hashable]], rows: int) -> dict[Any, list[str]]:
    """Names, sorted, by band of so many hashes of their MinHash signature."""
    hashes: dict[Hashable, tuple[int, ...]] = {}
    bands: dict[Any, list[str]] = {}
    for name in sorted(sets):
        hashed = []
        for feature in sets[name]:
            if (row := hashes.get(feature)) is None:
                row = hashes[feature] = _hash(feature)
            hashed.append(row)
        if not hashed:
            continue
        signature = tuple(map(min, zip(*hashed, strict=True)))
        for start in range(0, HASHES - rows + 1, rows):
            bands.setdefault((start, signature[start : start + rows]), []).append(name)
    return bands


def _hash(feature: Hashable) -> tuple[int, ...]:
    """64 hashes of 16 bits."""
    text = repr(feature).encode("utf-8", "backslashreplace")
    return _HASHES.unpack(blake2b(text).digest()) + _HASHES.unpack(blake2b(text, person=b"second").digest())


def near_pairs(packages: Sequence[ToolPackage], forms: Mapping[str, str], *, code: float, described: float) -> Pairs:
    """Pairs alike in code (`code` or more), or in words (`described` or more) and in what they have to be given. `forms`: the
    normal form by name.
    """
    found = pairs({one.name: code_features(forms[one.name]) for one in packages}, code)
    by_name = {one.name: one for one in packages}
    for pair, index in pairs({one.name: word_features(one) for one in packages}, described).items():
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
