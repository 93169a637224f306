"""Finding tools by words and by meaning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.tools.conftest import database
from tests.tools.packages import admitted, tool
from toolreason.errors import InputError, SetupError
from toolreason.tools import stores
from toolreason.tools.library import open_library
from toolreason.tools.package import Status, ToolPackage
from toolreason.tools.retrieval import WordIndex, fuse, signature_text, split_identifiers, words

TOOLS = [
    admitted("count_primes", "Count the prime numbers below a limit.", category="number_theory"),
    admitted("gcd_of_list", "Greatest common divisor of several integers.", category="number_theory"),
    admitted("rotate_grid", "Turn a grid of numbers by quarter turns.", category="grids"),
    admitted("parse_roman", "Read a Roman numeral.", category="text"),
    admitted("sort_words", "Sort words by length, then by letter.", category="text"),
    tool("count_vowels", "Count the vowels of a text.", category="text"),
]


@pytest.fixture
def index() -> Iterator[WordIndex]:
    made = WordIndex()
    made.put(TOOLS)
    yield made
    made.close()


def test_identifiers_are_split_into_their_words() -> None:
    assert split_identifiers("count_primes") == "count primes"
    assert split_identifiers("countPrimes HTTPServer") == "count Primes HTTP Server"
    assert words("How do I call is_prime64() for n = 2^5?") == ["call", "prime", "64", "n", "2", "5"]


def test_the_signature_gives_its_identifiers_and_what_the_schema_says() -> None:
    code = "import math\n\ndef area(side_length: float,\n         unit='cm') -> float:\n    hidden = 1\n    return side_length\n"
    parameters = {"properties": {"side_length": {"type": "number", "description": "of the square"}, "odd": True}}
    text = signature_text(ToolPackage("area", "", code, "", parameters))
    assert "side_length: float" in text
    assert "of the square" in text
    assert "hidden" not in text
    assert signature_text(ToolPackage("area", "", "no code at all (", "", {"properties": []})) == ""


@pytest.mark.parametrize(
    ("query", "best"),
    [
        ("How many primes are there below 1000?", "count_primes"),
        ("divisors common to these integers", "gcd_of_list"),
        ("rotating a grid", "rotate_grid"),
        ("romanNumeral", "parse_roman"),
        ("number theory gcd", "gcd_of_list"),
    ],
)
def test_the_tool_that_is_meant_comes_first(index: WordIndex, query: str, best: str) -> None:
    found = index.search(query, 3)
    assert found[0][0] == best
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def test_a_changed_tool_is_found_by_its_new_words_only(index: WordIndex) -> None:
    index.put([tool("parse_roman", "Translate from Latin.")])
    assert index.search("latin", 5)[0][0] == "parse_roman"
    assert index.search("numeral", 5) == []
    assert len(index) == len(TOOLS)


@pytest.mark.parametrize(
    "query", ["", "the of and", "zyzzyva", '"', "prime* AND (", "NEAR(prime, 2)", "name: -prime", "\0", "\ud800", "日本語"]
)
def test_a_query_is_words_and_never_syntax(index: WordIndex, query: str) -> None:
    found = [name for name, _ in index.search(query, 5)]
    assert found == (["count_primes"] if "prime" in query else [])


def test_equal_tools_come_in_the_order_of_their_names_and_those_not_accepted_not_at_all(index: WordIndex) -> None:
    index.put([tool(f"same_{number}", "Tessellate.") for number in (3, 1, 2)])
    assert [name for name, _ in index.search("tessellate", 2)] == ["same_1", "same_2"]
    assert [name for name, _ in index.search("tessellate", 2, lambda name: name != "same_1")] == ["same_2", "same_3"]
    assert index.search("tessellate", 0) == []


def test_a_whole_problem_may_be_the_query(index: WordIndex) -> None:
    story = " ".join(f"word{number} and the" for number in range(5000))
    assert index.search(f"{story} roman numerals {story}", 1)[0][0] == "parse_roman"


def test_what_stands_in_every_tool_of_many_still_finds_when_nothing_else_is_asked() -> None:
    index = WordIndex()
    index.put([tool(f"t{number}", "Compute something." if number else "Compute a sunset.") for number in range(500)])
    assert len(index.search("compute", 5)) == 5
    assert index.search("compute a sunset", 1)[0][0] == "t0"
    index.close()


def test_fusion_prefers_what_both_rankings_have() -> None:
    assert [name for name, _ in fuse(["a", "b", "c"], ["d", "b"])] == ["b", "a", "d", "c"]
    assert fuse([], []) == []


async def test_only_heads_of_the_wanted_status_and_category_are_offered(spec: str) -> None:
    async with open_library(spec) as library:
        await library.add_all(TOOLS)
        assert [hit.package.name for hit in await library.search("count")] == ["count_primes"]
        both = await library.search("count", statuses=(Status.ADMITTED, Status.CANDIDATE))
        assert {hit.package.name for hit in both} == {"count_primes", "count_vowels"}
        assert [hit.package.name for hit in await library.search("letter numeral", category="text", k=1)] == ["parse_roman"]
        await library.set_status("count_primes", Status.DEPRECATED, "never used")
        assert await library.search("count") == []
        await library.add(admitted("rotate_grid", "Fold paper."))
        assert await library.search("turn quarter") == []
        await library.rollback("rotate_grid", 1)
        assert [hit.package.version for hit in await library.search("turn quarter")] == [1]


MEANINGS = (
    {"car", "automobile", "vehicle"},
    {"fast", "speed", "quick"},
    {"prime", "primes", "indivisible"},
    {"count", "how", "number"},
)


def embed(texts: list[str]) -> list[list[float]]:
    """Vectors by meaning: texts that share no word may be near."""
    rows = []
    for text in texts:
        found = set(split_identifiers(text).lower().replace(".", " ").replace(":", " ").split())
        rows.append([0.1 + len(found & meaning) for meaning in MEANINGS])
    return rows


async def test_with_an_embedding_function_tools_are_found_by_meaning(vector_spec: str) -> None:
    async with open_library(vector_spec, embed=embed) as library:
        await library.add_all([admitted("vehicle_speed", "How quick a car is."), admitted("list_primes", "Primes below a limit.")])
        await library.add(tool("automobile_tax", "What an automobile costs."))
        found = await library.search("automobile", k=1)
        assert found[0].package.name == "vehicle_speed", "the candidate has the word, and is not offered"
        assert (await library.search("indivisible", k=1))[0].package.name == "list_primes"
        await library.add(admitted("list_primes", "Vehicle registry."))  # its old version, nearer to the query, is no head
        assert [hit.package.version for hit in await library.search("indivisible") if hit.package.name == "list_primes"] == [2]
        await library.set_status("vehicle_speed", Status.BROKEN, "")
        assert [hit.package.name for hit in await library.search("vehicle")] == ["list_primes"]


async def test_words_and_meaning_count_together(vector_spec: str) -> None:
    async with open_library(vector_spec, embed=embed) as library:
        await library.add_all([admitted("a", "A car."), admitted("b", "A vehicle, in Esperanto."), admitted("c", "Esperanto.")])
        assert (await library.search("vehicle esperanto"))[0].package.name == "b"


async def test_a_library_without_vectors_gets_them_later(kept_vector_spec: str) -> None:
    spec = kept_vector_spec
    async with open_library(spec) as library:
        await library.add_all([admitted("vehicle_speed", "How quick a car is."), admitted("list_primes", "Primes below a limit.")])
        with pytest.raises(InputError, match="embed="):
            await library.embed_all()
    async with open_library(spec, embed=embed) as library:
        assert await library.search("automobile") == [], "words still work, and there are no vectors"
        assert await library.embed_all() == 2
        assert (await library.search("automobile"))[0].package.name == "vehicle_speed"
        assert [package.version for package in await library.history("vehicle_speed")] == [1]
    async with open_library(spec) as library:
        assert [package.identity for package in await library.list()] == ["list_primes@1", "vehicle_speed@1"]


async def test_a_place_without_vectors_says_what_it_needs(
    postgres_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "sqlite3", SimpleNamespace(Connection=object))  # a Python that loads no extensions
    with pytest.raises(SetupError, match="sqlite3 loads extensions"):
        async with open_library(str(tmp_path / "tools.sqlite"), embed=embed):
            pass
    import psycopg

    with database(postgres_server) as address:
        with psycopg.connect(address) as connection:
            row = connection.execute("SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'").fetchone()
        if row == (0,):
            with pytest.raises(SetupError, match="pgvector"):
                async with open_library(address, embed=embed):
                    pass
