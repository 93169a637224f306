"""Which tools may serve a need: BM25 over what is said of them, and the fusion of two rankings.

BM25 is SQLite's own full-text index (FTS5) in memory: it comes with Python, stems, weighs columns, and takes a changed tool in a
fraction of a millisecond, where libraries that score from matrices build them anew.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Sequence

from toolreason.errors import SetupError
from toolreason.tools.package import ToolPackage

WEIGHTS = (4.0, 2.0, 1.0, 1.0)  # of name, description, category, signature
TERMS = 24  # the rarest words of a query that are looked up: a query may be a whole problem
COMMON = 0.25  # a word in a larger share of all tools tells little, and costs most,
FEW = 200  # unless there are few tools
RARE = 3  # so many words are looked up however common they are
FUSION = 60  # the usual constant of reciprocal rank fusion

_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=[0-9])|_")
_WORD = re.compile(r"[^\W_]+")
_FILLERS = """
    a an and are as at be by can do does each find for from given has have how i if in is it its let me my of on or our that the
    their them then there these they this to us was we were what when where which who will with you your
"""
_STOP = frozenset(_FILLERS.split())


def split_identifiers(text: str) -> str:
    """`count_primes` and `countPrimes` become `count primes`, `is_prime64` `is prime 64`; other text stays as it is."""
    return _BOUNDARY.sub(" ", text)


def words(text: str) -> list[str]:
    """The distinct words of a query in order, identifiers split, in lower case, without those that say nothing of a tool."""
    found = (word.lower() for word in _WORD.findall(split_identifiers(text)))
    return list(dict.fromkeys(word for word in found if word not in _STOP))


def signature_text(package: ToolPackage) -> str:
    """The identifiers of the tool's signature: from its code's `def`, and from its schema with the descriptions there."""
    head = re.search(rf"\bdef\s+{package.name}\s*\(", package.code)
    written = re.split(r"\)\s*(?:->|:)", package.code[head.end() : head.end() + 2000], maxsplit=1)[0] if head else ""
    properties = package.parameters.get("properties")
    described = []
    for name, schema in properties.items() if isinstance(properties, dict) else ():
        described += [str(name), str(schema.get("description", "")) if isinstance(schema, dict) else ""]
    return " ".join([written, *described])


def document(package: ToolPackage) -> str:
    """What a vector index embeds of a tool."""
    return f"{split_identifiers(package.name)}: {package.description} ({split_identifiers(package.category)})"


class WordIndex:
    """BM25 over tools by name. One thread at a time."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._last = 0
        self._base = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        stems = "tokenize='porter unicode61 remove_diacritics 2'"
        try:
            self._base.execute(f"CREATE VIRTUAL TABLE tools USING fts5(name, description, category, signature, {stems})")
        except sqlite3.OperationalError as error:
            self._base.close()
            raise SetupError(
                f"this Python's SQLite has no full-text search (FTS5): use a python.org or Debian build ({error})"
            ) from error
        self._base.execute("CREATE VIRTUAL TABLE counts USING fts5vocab(tools, row)")
        self._base.execute(f"CREATE VIRTUAL TABLE asked USING fts5(word, content='', {stems})")
        self._base.execute("CREATE VIRTUAL TABLE stems USING fts5vocab(asked, instance)")

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, packages: Iterable[ToolPackage]) -> None:
        """Take tools in, in place of what was there under their names."""
        self._base.execute("BEGIN")
        for package in packages:
            if (row := self._rows.get(package.name)) is None:
                row = self._last = self._last + 1
                self._rows[package.name], self._names[row] = row, package.name
            else:
                self._base.execute("DELETE FROM tools WHERE rowid = ?", (row,))
            texts = (package.name, package.description, package.category, signature_text(package))
            clean = [split_identifiers(text).encode("utf-8", "replace").decode().replace("\0", " ") for text in texts]
            self._base.execute(
                "INSERT INTO tools(rowid, name, description, category, signature) VALUES (?, ?, ?, ?, ?)", (row, *clean)
            )
        self._base.execute("COMMIT")

    def search(self, query: str, k: int, accept: Callable[[str], bool] = lambda name: True) -> list[tuple[str, float]]:
        """The `k` best tools among those accepted, with their scores, best first; equal scores by name. Words that no tool has
        count for nothing, and a tool without any of the words is not found.
        """
        terms = self._terms(query)
        if not terms or k < 1:
            return []
        match = " OR ".join(f'"{term}"' for term in terms)
        ranked = "SELECT rowid, -bm25(tools, ?, ?, ?, ?) AS score FROM tools WHERE tools MATCH ? ORDER BY score DESC"
        found: list[tuple[str, float]] = []
        for row, score in self._base.execute(ranked, (*WEIGHTS, match)):
            if len(found) >= k and score < found[k - 1][1]:
                break
            if accept(name := self._names[row]):
                found.append((name, score))
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))[:k]

    def _terms(self, query: str) -> list[str]:
        """The words to look up, rarest first."""
        asked = [word.encode("utf-8", "replace").decode() for word in words(query)]
        self._base.execute("BEGIN")
        self._base.executemany("INSERT INTO asked(rowid, word) VALUES (?, ?)", enumerate(asked))
        counted = "SELECT stems.doc, counts.doc FROM stems CROSS JOIN counts ON counts.term = stems.term"
        tools_with = sorted((count, number) for number, count in self._base.execute(counted))
        self._base.execute("ROLLBACK")
        most = max(FEW, COMMON * len(self._rows))
        return [asked[number] for at, (count, number) in enumerate(tools_with) if count <= most or at < RARE][:TERMS]

    def close(self) -> None:
        self._base.close()


def fuse(*rankings: Sequence[str]) -> list[tuple[str, float]]:
    """Reciprocal rank fusion: a name scores the sum of 1 / (60 + its rank) over the rankings that have it. Best first."""
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, name in enumerate(ranking, 1):
            scores[name] = scores.get(name, 0.0) + 1 / (FUSION + rank)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
