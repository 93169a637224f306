"""Problems: what loads, what is named as bad, and that nothing else is lost with it."""

import json
import math
import sys
import types

import pytest

from tests import pictures
from toolreason.errors import ProblemError, SetupError
from toolreason.problems import dump, load
from toolreason.types import Problem, Reference, ReferenceKind

GOOD = '{"question": "1+1?", "answer": "2"}'


def write(tmp_path, *lines):
    path = tmp_path / "problems.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return str(path)


def one(tmp_path, **row):
    found = load(write(tmp_path, json.dumps({"question": "?"} | row)))
    assert not found.bad, found.bad
    return found.problems[0]


@pytest.mark.parametrize("key", ["question", "problem", "prompt"])
def test_the_question_may_have_any_of_three_names(tmp_path, key):
    assert load(write(tmp_path, json.dumps({key: "1+1?"}))).problems == [Problem("1", "1+1?")]


@pytest.mark.parametrize(
    ("row", "reference"),
    [
        ({}, Reference()),
        ({"answer": None}, Reference()),
        ({"answer": "72"}, Reference(ReferenceKind.MATH, "72")),
        ({"answer": 72}, Reference(ReferenceKind.MATH, "72")),
        ({"answer": 0}, Reference(ReferenceKind.MATH, "0")),
        ({"answer": 0.5}, Reference(ReferenceKind.MATH, "0.5")),
        ({"answer": "She sold 48/2 = <<48/2=24>>24 clips.\n#### 72"}, Reference(ReferenceKind.MATH, "72")),
        ({"solution": r"Therefore \boxed{\frac{1}{2}}."}, Reference(ReferenceKind.MATH, r"\frac{1}{2}")),
        ({"solution": r"Therefore \boxed{3}.", "answer": "4"}, Reference(ReferenceKind.MATH, "4")),
        ({"choices": ["red", "blue"], "answer": "B"}, Reference(ReferenceKind.CHOICE, "B", ("red", "blue"))),
        ({"choices": ["red", "blue"], "answer": "(b)"}, Reference(ReferenceKind.CHOICE, "B", ("red", "blue"))),
        ({"choices": ["red", "blue"], "answer": 1}, Reference(ReferenceKind.CHOICE, "B", ("red", "blue"))),
        ({"choices": ["red", "blue"], "answer": "blue"}, Reference(ReferenceKind.CHOICE, "B", ("red", "blue"))),
        ({"choices": [10, 20], "answer": "B"}, Reference(ReferenceKind.CHOICE, "B", ("10", "20"))),
        ({"choices": ["B", "A"], "answer": "B"}, Reference(ReferenceKind.CHOICE, "B", ("B", "A"))),
        ({"choices": ["X", "Y"], "answer": "Y"}, Reference(ReferenceKind.CHOICE, "B", ("X", "Y"))),
        ({"choices": {"text": ["x", "y"], "label": [1, 2]}, "answerKey": "2"}, Reference(ReferenceKind.CHOICE, "B", ("x", "y"))),
        ({"tests": ["assert f(1) == 2"]}, Reference(ReferenceKind.CODE, tests=("assert f(1) == 2",))),
        ({"tests": "assert f(1) == 2"}, Reference(ReferenceKind.CODE, tests=("assert f(1) == 2",))),
        ({"dataset": "gcd", "entry": {"answer": "1"}}, Reference(ReferenceKind.GYM, dataset="gcd", entry='{"answer": "1"}')),
        ({"dataset": "gcd", "entry": '{"answer":"1"}'}, Reference(ReferenceKind.GYM, dataset="gcd", entry='{"answer":"1"}')),
    ],
)  # fmt: skip
def test_a_row_says_what_it_is_graded_by(tmp_path, row, reference):
    assert one(tmp_path, **row).reference == reference


def test_domain_and_attachments_are_kept_and_ids_may_be_integers(tmp_path):
    path = pictures.save(tmp_path / "pictures" / "a.png")
    problem = one(tmp_path, id=7, domain="geometry", attachments=["pictures/a.png"])
    assert (problem.id, problem.domain, problem.attachments) == ("7", "geometry", (path,))
    assert one(tmp_path, tests=["pass"]).domain == "code"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "empty line"),
        ("  \r", "empty line"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"question": "?", "answer": ' + "9" * 5000 + "}", "not JSON"),
        (b'{"question": "\xff"}', "not UTF-8 at byte 15"),
        (GOOD.encode("utf-16"), "not UTF-8 at byte 1"),
        ("[1]", "JSON object"),
        ('"text"', "JSON object"),
        ('{"answer": "2"}', "no question"),
        ('{"question": 5}', "question"),
        ('{"question": " "}', "question"),
        ('{"question": "?", "id": true}', "`id`"),
        ('{"question": "?", "id": ""}', "`id`"),
        ('{"question": "?", "id": null}', "`id`"),
        ('{"question": "?", "id": "first"}', "duplicate id 'first', first on line 1"),
        ('{"question": "?", "domain": 5}', "`domain`"),
        ('{"question": "?", "attachments": [1]}', "`attachments`"),
        ('{"question": "?", "attachments": ["none.png"]}', "No such file"),
        ('{"question": "?", "attachments": ["../problems.jsonl"]}', "leads out of the folder"),
        ('{"question": "?", "attachments": "/etc/passwd"}', "leads out of the folder"),
        ('{"question": "?", "attachments": ["."]}', "no regular file"),
        ('{"question": "?", "attachments": ["problems.jsonl", "problems.jsonl\\u0000"]}', "names no file"),
        ('{"question": "?", "answer": [1]}', "`answer`"),
        ('{"question": "?", "answer": true}', "`answer`"),
        ('{"question": "?", "answer": NaN}', "finite"),
        ('{"question": "?", "answer": " "}', "`answer` is empty"),
        ('{"question": "?", "answer": "#### "}', "`answer` is empty"),
        ('{"question": "\\ud800"}', "surrogate"),
        ('{"question": "?", "choices": "ab", "answer": "A"}', "`choices`"),
        ('{"question": "?", "choices": ["a"], "answer": "A"}', "1 choices"),
        ('{"question": "?", "choices": {"label": ["A"]}, "answer": "A"}', "`choices`"),
        ('{"question": "?", "choices": ["a", "b"]}', "none of the 2 choices"),
        ('{"question": "?", "choices": ["x", "y"], "answer": "C"}', "none of the 2 choices"),
        ('{"question": "?", "choices": ["x", "y"], "answer": 2}', "none of the 2 choices"),
        ('{"question": "?", "choices": ["x", "y"], "answer": false}', "none of the 2 choices"),
        ('{"question": "?", "tests": [1]}', "`tests`"),
        ('{"question": "?", "dataset": "gcd"}', "`entry`"),
        ('{"question": "?", "dataset": "gcd", "entry": "[]"}', "`entry`"),
        ('{"question": "?", "dataset": 5, "entry": {}}', "`dataset`"),
        ('{"question": "?", "reference": {"kind": "magic"}}', "`reference`"),
        ('{"question": "?", "reference": {"colour": "red"}}', "`reference`"),
        ('{"question": "?", "reference": "math"}', "`reference`"),
        ('{"question": "?", "reference": {"kind": "math", "answer": 5}}', "`reference`"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_and_costs_only_itself(tmp_path, line, reason):
    found = load(write(tmp_path, '{"id": "first", "question": "?"}', line, '{"id": "last", "question": "?"}'))
    assert [problem.id for problem in found.problems] == ["first", "last"]
    assert [bad.line for bad in found.bad] == [2]
    assert reason in found.bad[0].reason


def test_byte_order_mark_windows_line_ends_and_a_final_newline_are_no_faults(tmp_path):
    found = load(write(tmp_path, b"\xef\xbb\xbf" + GOOD.encode() + b"\r", GOOD + "\r", ""))
    assert (len(found.problems), found.bad) == (2, [])


def test_unicode_line_separators_do_not_split_a_row(tmp_path):
    assert one(tmp_path, question="a\u2028b\u0085c").question == "a\u2028b\u0085c"


def test_an_empty_file_has_no_problems(tmp_path):
    assert load(write(tmp_path, "")).problems == []


@pytest.mark.parametrize("source", ["no/such/file.jsonl", "."])
def test_a_source_that_cannot_be_read_names_what_would_be_one(source):
    with pytest.raises(ProblemError, match="JSONL file"):
        load(source)


@pytest.mark.parametrize(
    "problem",
    [
        Problem("a", "1+1?", Reference(ReferenceKind.MATH, "2")),
        Problem("a", "line\nbreak \u2028 é 日本 🎉", Reference(ReferenceKind.MATH, "#### 72"), "x"),
        Problem("a", "?", Reference(ReferenceKind.CHOICE, "B", ("B", "A"))),
        Problem("a", "?", Reference(ReferenceKind.CHOICE, "purple", ("red", "blue"))),
        Problem("a", "?", Reference(ReferenceKind.CODE, tests=("assert True",)), "code"),
        Problem("a", "?", Reference(ReferenceKind.GYM, dataset="gcd", entry='{"answer":"1"}'), "gcd"),
        Problem("a", "?", Reference(ReferenceKind.GYM, dataset="gcd", entry="broken")),
        Problem("a", "?"),
        Problem("a", "?", Reference(ReferenceKind.NONE, "ignored", ("x",), ("y",), "z", "w")),
    ],
)
def test_what_is_dumped_loads_back_equal(tmp_path, problem):
    path = tmp_path / "dumped.jsonl"
    dump([problem], path)
    assert load(str(path)).problems == [problem]
    assert load(str(path)).bad == []


def test_attachments_are_dumped_by_their_paths_from_there_and_load_back_equal(tmp_path):
    files = (pictures.save(tmp_path / "set" / "a.png"), pictures.save(tmp_path / "set" / "more" / "b.png"))
    problem = Problem("a", "?", Reference(ReferenceKind.MATH, "#### 72"), attachments=files)
    dump([problem], tmp_path / "set" / "dumped.jsonl")
    assert json.loads((tmp_path / "set" / "dumped.jsonl").read_text())["attachments"] == ["a.png", "more/b.png"]
    assert load(str(tmp_path / "set" / "dumped.jsonl")).problems == [problem]
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(ProblemError, match="copy it there"):
        dump([Problem("b", "?"), problem], tmp_path / "elsewhere" / "dumped.jsonl")
    assert not (tmp_path / "elsewhere" / "dumped.jsonl").exists()


def test_a_row_that_is_in_no_file_has_no_folder_for_attachments(hub, monkeypatch):
    rows = [{"question": "?", "attachments": ["a.png"]}, {"question": "?", "attachments": []}]
    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", lambda name, config, *, split: {"test": rows})
    found = load("hf:with/pictures")
    assert [problem.id for problem in found.problems] == ["2"]
    assert "as a JSONL file" in found.bad[0].reason


def test_generated_problems_are_repeatable_keep_their_wording_and_survive_a_file(tmp_path):
    found = load("gym:gcd,count_primes:2:7")
    assert [problem.id for problem in found.problems] == ["gcd-7-0", "gcd-7-1", "count_primes-7-0", "count_primes-7-1"]
    assert found.bad == []
    assert found.problems == load("gym:gcd,count_primes:2:7").problems
    first = found.problems[0]
    assert first.question == json.loads(first.reference.entry)["question"]
    assert (first.reference.kind, first.domain) == (ReferenceKind.GYM, "gcd")
    dump(found.problems, tmp_path / "gym.jsonl")
    assert load(str(tmp_path / "gym.jsonl")).problems == found.problems


@pytest.mark.parametrize(
    "source", ["gym:", "gym:gcd", "gym:gcd:0", "gym:gcd:x", "gym:gcd:5:-1", "gym:gcd,:5", "gym:no_such_family:5"]
)
def test_a_wrong_generator_names_what_is_possible(source):
    with pytest.raises(ProblemError, match=r"gym:FAMILY|count_primes"):
        load(source)


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for `datasets` that notes what is asked of it."""
    calls = []

    def load_dataset(name, config, *, split):
        calls.append((name, config, split))
        if name == "missing":
            raise ConnectionError("no route")
        rows = [{"question": "1+1?", "answer": "easy\n#### 2"}, {"question": None}]
        return rows if split else {"train": [], "test": rows}

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return calls


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("hf:openai/gsm8k", ("openai/gsm8k", None, None)),
        ("hf:openai/gsm8k:main", ("openai/gsm8k", "main", None)),
        ("hf:openai/gsm8k:test", ("openai/gsm8k", None, "test")),
        ("hf:openai/gsm8k:main:test", ("openai/gsm8k", "main", "test")),
        ("hf:openai/gsm8k:main:test[:10]", ("openai/gsm8k", "main", "test[:10]")),
        ("hf:openai/gsm8k:test[:10]", ("openai/gsm8k", None, "test[:10]")),
    ],
)
def test_a_hub_dataset_loads_like_a_file(hub, source, call):
    found = load(source)
    assert hub == [call]
    assert found.problems == [Problem("1", "1+1?", Reference(ReferenceKind.MATH, "2"))]
    assert [bad.line for bad in found.bad] == [2]


def test_a_dataset_that_cannot_be_had_names_the_fix(hub, monkeypatch):
    with pytest.raises(SetupError, match=r"no route.*JSONL"):
        load("hf:missing")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SetupError, match="pip install datasets"):
        load("hf:openai/gsm8k")


def primes(start, stop):
    return [n for n in range(max(start, 2), stop) if all(n % d for d in range(2, math.isqrt(n) + 1))]


def divisors(n):
    return [d for d in range(1, n + 1) if n % d == 0]


DEMO = {
    "product": lambda: 48271 * 69621,
    "modular-power": lambda: pow(7, 222, 1000),
    "digit-sum": lambda: sum(map(int, str(2**100))),
    "count-primes": lambda: len(primes(1000, 2001)),
    "nth-prime": lambda: primes(2, 2000)[199],
    "multiples": lambda: sum(n for n in range(1000) if n % 3 == 0 or n % 7 == 0),
    "squares": lambda: sum(n * n for n in range(1, 151)),
    "largest-factor": lambda: max(p for p in divisors(600851) if primes(p, p + 1)),
    "trailing-zeros": lambda: len(str(math.factorial(137))) - len(str(math.factorial(137)).rstrip("0")),
    "palindromes": lambda: sum(str(n) == str(n)[::-1] for n in range(1, 20001)),
    "committees": lambda: sum(math.comb(9, women) * math.comb(7, 4 - women) for women in (1, 2, 3)),
    "coins": lambda: sum((100 - 50 * a - 25 * b - 10 * c) >= 0 for a in range(3) for b in range(5) for c in range(11)),
}


def test_the_demo_has_a_dozen_problems_whose_answers_python_confirms():
    from importlib.resources import files

    found = load(str(files("toolreason") / "demo_problems.jsonl"))
    assert found.bad == []
    assert {problem.id: problem.reference.answer for problem in found.problems} == {
        name: str(value()) for name, value in DEMO.items()
    }
