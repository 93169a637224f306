"""Which tools are the same, which are nearly the same, and which only look like it."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest

from tests.tools import samples
from toolreason.tools import similar
from toolreason.tools.duplicates import exact_groups, normal_form
from toolreason.tools.package import ToolPackage

COPY = '''
from typing import Dict
from collections import Counter


def count_digits(number, base=10) -> Dict[str, int]:
    # another's words for it
    """Counts digits."""
    if not 2 <= base <= 10: raise ValueError("base is outside 2 to 10")
    found: list[str] = []
    while number:
        (number, one) = divmod(number, base)
        found.append(str(one))
    return dict(Counter(found))
'''


def package(code: str, name: str = "square") -> ToolPackage:
    return ToolPackage(name=name, description="", code=code, tests="")


def same(one: str, other: str) -> bool:
    return normal_form(package(one)) == normal_form(package(other))


def test_layout_names_docstrings_and_annotations_count_for_nothing() -> None:
    assert same(samples.CODE, COPY)


def test_helpers_may_have_any_name_and_stand_in_any_line() -> None:
    one = "def f(n):\n    return _half(n) + _K\n\n_K = 3\ndef _half(n):\n    return n // 2\n"
    assert same(one, one.replace("_half", "_h").replace("_K", "_CONSTANT"))
    assert not same(one, one.replace("_half(n) + _K", "_half(_K) + n"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("base: int = 10", "base: int = 9"),
        ("number: int, base", "value: int, base"),  # a tool is called by its parameters' names
        ("str(digit)", "repr(digit)"),
        ("2 <= base", "2 < base"),
        ("outside 2 to 10", "no base"),
        ("divmod(number, base)", "divmod(base, number)"),
        ("from collections import Counter", "from toolbox import Counter"),
        ("append", "extend"),
    ],
)
def test_what_changes_the_result_is_another_tool(old: str, new: str) -> None:
    assert old in samples.CODE
    assert not same(samples.CODE, samples.CODE.replace(old, new))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(n):\n    a = n\n    b = 2\n    return a - b\n", "def f(n):\n    a = n\n    b = 2\n    return b - a\n"),
        (
            "def f(n):\n    return _g(a=n)\ndef _g(a, b=1):\n    return a\n",
            "def f(n):\n    return _g(a=n)\ndef _g(b, a=1):\n    return b\n",
        ),
        ("def f(n):\n    x = 1\n    return [x for y in n]\n", "def f(n):\n    x = 1\n    return [y for y in n]\n"),
        ("K = 1\ndef f(n):\n    global K\n    K = n\n    return K\n", "K = 1\ndef f(n):\n    K = n\n    return K\n"),
    ],
)
def test_renaming_does_not_make_different_code_equal(one: str, other: str) -> None:
    assert not same(one, other)


@pytest.mark.parametrize(
    "code",
    [
        "def f(n):\n    match n:\n        case [first, *rest]:\n            return first\n"
        "        case {'a': x, **more}:\n            return more\n        case _ as all:\n            return all\n",
        "async def f(n):\n    try:\n        pass\n    except ValueError as error:\n        return error\n    return await n\n",
        "from dataclasses import dataclass\n@dataclass\nclass _P:\n    x: int\n    y: int = 2\n"
        "    def m(self):\n        return self.x\ndef f(n: int) -> int:\n    return _P(n).m()\n",
        "def f(n):\n    def inner(x):\n        nonlocal n\n        n += x\n        return n\n    return inner(1)\n",
    ],
)
def test_every_kind_of_statement_has_a_form_that_stays(code: str) -> None:
    assert same(code, "# a comment\n" + code)
    assert not same(code, code.replace("return", "return 1 +", 1))


def test_what_is_no_python_is_like_itself_only() -> None:
    assert same("def (", "def (")
    assert not same("def (", "def [")


def test_a_field_of_a_class_is_no_annotation() -> None:
    fields = "class _P:\n    x: int\n    y: int\ndef f(n):\n    return _P()\n"
    assert not same(fields, fields.replace("    y: int\n", ""))


def test_exact_groups_keep_the_order_given() -> None:
    forms = {"b": "x", "a": "x", "c": "y", "d": "z", "e": "z"}
    assert exact_groups(forms) == [["b", "a"], ["d", "e"]]


def near(packages: list[ToolPackage], **least: float) -> similar.Pairs:
    return similar.near_pairs(packages, similar.scan(packages), **({"code": 0.7, "described": 0.6} | least))


def test_alike_in_code_whatever_is_said_of_it() -> None:
    one = samples.digits()
    code = COPY.replace("found.append(str(one))", "found.append(str(one).strip())")
    other = samples.digits(code.replace("number, base=10)", "number: int, base: int = 10)").replace("digit", "cipher"))
    assert list(near([one, other])) == [("count_ciphers", "digit_counts")]
    assert near([one, samples.square()]) == {}


def test_alike_in_words_only_where_called_alike() -> None:
    one = replace(samples.square(), description="The square of a whole number n")
    other = replace(one, name="square_number", code=samples.CODE, description="The square of the whole number")
    assert list(near([one, other])) == [("square", "square_number")]
    longer = replace(other, parameters={"type": "object", "properties": {}, "required": ["a", "b"]})
    assert near([one, longer]) == {}


def test_minhash_finds_what_comparing_all_finds() -> None:
    """Of random sets whose likeness is spread over the threshold, 97 % of the pairs and nothing else."""
    draw = random.Random(3)
    vocabulary = similar.Vocabulary()
    sets: dict[str, frozenset[int]] = {}
    for family in range(60):
        base = draw.sample(range(10_000), 40)
        for member in range(5):
            changed = draw.sample(range(10_000), draw.randrange(12))
            sets[f"t{family}_{member}"] = vocabulary.numbers([*base[len(changed) :], *changed])
    names = sorted(sets)
    for least in (0.6, 0.7):
        every = {(a, b) for a in names for b in names if a < b and similar.jaccard(sets[a], sets[b]) >= least}
        found = similar.pairs(sets, vocabulary, least).keys()
        assert len(every) > 200
        assert found <= every
        assert len(found) > 0.97 * len(every)


def test_a_crowd_of_equals_is_one_group_and_costs_no_square() -> None:
    vocabulary = similar.Vocabulary()
    sets = {f"t{number:05}": vocabulary.numbers("abc") for number in range(4_000)}
    began = time.process_time()
    found = similar.pairs(sets, vocabulary, 0.7)
    assert time.process_time() - began < 20
    assert len(found) < 4_000 * 25


def test_stars_are_around_the_better_and_nothing_is_near_by_way_of_a_third() -> None:
    rank = {"c": 0, "b": 1, "a": 2, "d": 3, "e": 4, "alone": 5}
    groups = similar.stars(list(rank), [("a", "b"), ("b", "c"), ("d", "e")], lambda name: rank[name])
    assert groups == [["c", "b"], ["d", "e"]]
