"""Selection: distinct, best first, balanced where asked, the same for the same seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.curate.traces import model, row, solved, trace
from toolreason.curate.select import select, tool_share, with_tool
from toolreason.curate.settings import CurateSettings
from toolreason.curate.steps import Row


def tooled(id_: str, number: int, value: float = 0.5, problem: str = "p") -> Row:
    return row(solved(f"print({number})", id_=id_, problem=problem), score=value)


def plain(id_: str, value: float = 0.5, problem: str = "p") -> Row:
    return row(trace(model(f"{id_}: \\boxed{{42}}"), id_=id_, problem=problem), score=value)


def ids(rows: list[Row]) -> list[str]:
    return [one.trajectory.id for one in rows]


def test_the_best_of_each_program_and_at_most_so_many_of_a_problem() -> None:
    rows = [tooled("a", 1, 0.2), tooled("b", 1, 0.9), tooled("c", 2, 0.5), tooled("d", 3, 0.7), tooled("e", 4, 0.1, "q")]
    chosen, step = select(rows, CurateSettings(per_problem=2))
    assert ids(chosen) == ["b", "d", "e"]
    assert step.fell == {"the same program again": 1, "more than 2 of a problem": 1}
    assert step.examples["the same program again"][0]["evidence"] == "as in b"


def test_equal_scores_are_drawn_by_the_seed_whatever_the_order_of_the_files() -> None:
    rows = [tooled(str(n), n) for n in range(12)]
    picks = {seed: ids(select(rows, CurateSettings(seed=seed))[0]) for seed in range(8)}
    assert picks[3] == ids(select(rows[::-1], CurateSettings(seed=3))[0])
    assert len({tuple(pick) for pick in picks.values()}) > 1


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_a_share_of_traces_with_a_tool_where_all_problems_have_both(share: float) -> None:
    rows = [
        make
        for p in range(20)
        for n in range(4)
        for make in (tooled(f"t{p}-{n}", n, problem=str(p)), plain(f"n{p}-{n}", problem=str(p)))
    ]
    chosen, _ = select(rows, CurateSettings(tool_share=share))
    assert tool_share(chosen) == pytest.approx(share)
    assert len(chosen) == 80


def test_with_one_row_a_problem_the_share_is_drawn() -> None:
    rows = [make for p in range(200) for make in (tooled(f"t{p}", 1, problem=str(p)), plain(f"n{p}", problem=str(p)))]
    chosen, _ = select(rows, CurateSettings(tool_share=0.5, per_problem=1))
    assert len(chosen) == 200
    assert tool_share(chosen) == pytest.approx(0.5, abs=0.1)


def test_too_many_of_one_kind_lose_their_worst_but_no_problem_its_last() -> None:
    rows = [tooled(f"t{n}", n, n / 10) for n in range(4)] + [tooled("only", 1, 0.0, "q"), plain("n", 0.3, "r")]
    chosen, step = select(rows, CurateSettings(tool_share=0.5))
    assert ids(chosen) == ["t3", "only", "n"]
    assert step.fell["balance of traces with and without a tool"] == 3


ROWS = st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 3), st.floats(0, 1)), max_size=25)


@given(ROWS, st.integers(1, 4), st.none() | st.floats(0, 1))
def test_whatever_comes_each_problem_keeps_one_to_so_many_distinct_rows(
    drawn: list[tuple[bool, int, int, float]], most: int, share: float | None
) -> None:
    rows = []
    for n, (tool, problem, number, value) in enumerate(drawn):
        made = tooled(f"{n}", number, value, str(problem)) if tool else plain(f"{n}", value, str(problem))
        rows.append(replace(made, trajectory=replace(made.trajectory, id=str(n))))
    settings = CurateSettings(per_problem=most, tool_share=share)
    chosen, step = select(rows, settings)
    counts = Counter(one.trajectory.problem_id for one in chosen)
    assert counts.keys() == {one.trajectory.problem_id for one in rows}
    assert all(1 <= n <= most for n in counts.values())
    assert step.rows == len(rows)
    assert step.stayed + step.fell.total() == len(rows)
    assert select(rows, settings)[0] == chosen
    assert all(with_tool(one) == bool(one.trajectory.cells) for one in chosen)
