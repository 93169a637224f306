"""The list of a run: what it finds, in which order, and that it stays true while the run file grows or is another."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.view.material import trajectory, write
from toolreason.errors import InputError
from toolreason.view.index import Index
from toolreason.view.rows import Filters

ROWS = [
    trajectory("a", calls=1),
    trajectory("b", right=False, calls=3, failed=2, text="100% of_it ÄÖ ' OR 1=1 --"),
    trajectory("c", strategy="plain", calls=0, text="Mit Äpfeln"),
    trajectory("c", strategy="plain", calls=0, sample=1, right=False),
]


@pytest.fixture
def index(tmp_path: Path) -> Index:
    made = Index(write(tmp_path / "run", ROWS), tmp_path / "cache")
    made.refresh()
    return made


@pytest.mark.parametrize(
    ("filters", "problems"),
    [
        (Filters(), ["a", "b", "c", "c"]),
        (Filters(verdict="wrong"), ["b", "c"]),
        (Filters(strategy="plain"), ["c", "c"]),
        (Filters(stop="answered", calls=1), ["a", "b"]),
        (Filters(errors=True), ["b"]),
        (Filters(problem="c"), ["c", "c"]),
        (Filters(text="% OF_it"), ["b"]),
        (Filters(text="äpfel"), []),  # only ASCII letters are alike in both cases
        (Filters(text="Äpfel"), ["c"]),
        (Filters(text="' OR 1=1 --"), ["b"]),
        (Filters(text="print(2 + 41)"), ["b"]),  # code that ran
        (Filters(sort="calls", down=True), ["b", "a", "c", "c"]),
        (Filters(sort="problem", down=True, verdict="correct"), ["c", "a"]),
    ],
)
def test_a_filter_finds_what_it_says(index: Index, filters: Filters, problems: list[str]) -> None:
    count, rows = index.page(filters)
    assert [row["problem"] for row in rows] == problems
    assert count == len(problems)


def test_an_order_that_is_none_is_no_sql(index: Index) -> None:
    _, rows = index.page(Filters(sort="place; DROP TABLE rows"))  # type: ignore[arg-type]
    assert len(rows) == len(ROWS)


def test_pages_follow_one_another(index: Index) -> None:
    pages = [index.page(Filters(), start, 3)[1] for start in (0, 3)]
    assert [[row["problem"] for row in page] for page in pages] == [["a", "b", "c"], ["c"]]


def test_a_run_that_grows_is_read_on_and_the_later_of_two_lines_counts(tmp_path: Path) -> None:
    index = Index(write(tmp_path / "run", ROWS[:2]), tmp_path / "cache")
    index.refresh()
    again = trajectory("a", right=False)
    write(tmp_path / "run", [ROWS[2], again])
    with (tmp_path / "run" / "trajectories.jsonl").open("ab") as file:
        file.write(b'{"id": "torn')
    progress = index.refresh()
    assert [row["problem"] for row in index.page(Filters())[1]] == ["b", "c", "a"]
    assert index.page(Filters(problem="a"))[1][0]["verdict"] == "wrong"
    assert (progress.damaged, progress.size - progress.done) == (0, len(b'{"id": "torn'))


def test_a_damaged_line_is_counted_and_hides_no_other(tmp_path: Path) -> None:
    run = write(tmp_path / "run", ROWS[:1])
    with (run / "trajectories.jsonl").open("ab") as file:
        file.write(b'{"id": 3}\nnothing\n[1]\n')
    index = Index(run, tmp_path / "cache")
    assert index.refresh().damaged == 3
    assert index.page(Filters())[0] == 1


def test_another_run_in_the_same_place_is_read_anew(tmp_path: Path, index: Index) -> None:
    (tmp_path / "run" / "trajectories.jsonl").unlink()
    write(tmp_path / "run", [trajectory("other"), *ROWS])
    index.refresh()
    assert [row["problem"] for row in index.page(Filters())[1]] == ["other", "a", "b", "c", "c"]


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    run = write(tmp_path / "run", ROWS)
    Index(run, tmp_path / "cache").refresh()
    [file] = (tmp_path / "cache").iterdir()
    file.write_bytes(b"no database " * 400)
    index = Index(run, tmp_path / "cache")
    index.refresh()
    assert index.page(Filters())[0] == len(ROWS)


def test_sums_and_pairs_are_those_of_the_rows(index: Index) -> None:
    sums = index.sums()
    assert {name: sums[name] for name in ("rollouts", "problems", "correct", "scored", "aborted")} == {
        "rollouts": 4,
        "problems": 3,
        "correct": 2,
        "scored": 4,
        "aborted": 0,
    }
    assert sums["failed"] == pytest.approx(2 / 4)
    assert index.right() == {("a", 0): True, ("b", 0): False, ("c", 0): True, ("c", 1): False}
    assert index.facets()["strategy"] == {"hint_infer": 2, "plain": 2}


def test_a_trajectory_is_found_by_its_place_and_no_other_place_is_read(index: Index) -> None:
    place = index.page(Filters(problem="b"))[1][0]["place"]
    assert index.trajectory(place) == ROWS[1]
    with pytest.raises(InputError, match="go back to the list"):
        index.trajectory(place + 1)
