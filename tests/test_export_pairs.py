"""Pairs and labelled rows: the same question on both sides, the model's own tokens trained, and every trajectory accounted for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from toolreason import export
from toolreason.cli import app
from toolreason.errors import CapabilityError, InputError, SettingsError
from toolreason.export import Report, files
from toolreason.runs import Manifest, RunWriter
from toolreason.types import (
    Cell,
    CellResult,
    Judgement,
    Outcome,
    Sampling,
    Segment,
    Source,
    StopReason,
    Trajectory,
    Verdict,
)

P, M, H, T = Source.PROMPT, Source.MODEL, Source.HINT, Source.TOOL
CELL = Cell("c", "print(1)", CellResult(Outcome.OK, "1\n"))


def segment(source: Source, *ids: int) -> Segment:
    """Its text is its ids."""
    logprobs = tuple(-0.5 for _ in ids) if source is M else None
    return Segment(source, " ".join(map(str, ids)), ids, logprobs, CELL if source is T else None)


def one(name: str, right: bool = True, *, problem: str = "p", prompt: int = 1, size: int = 2, **more: Any) -> Trajectory:
    """Prompt, thoughts of `size` tokens, hint, code, output, an answer."""
    parts = (segment(P, prompt, 2), segment(M, *[5] * size), segment(H, 6, 6), segment(M, 7), segment(T, 8, 8, 8), segment(M, 9))
    verdict = Verdict(Judgement.CORRECT if right else Judgement.WRONG)
    return replace(Trajectory(name, problem, "hint_infer", "vllm", parts, StopReason.ANSWERED, verdict=verdict), **more)


def made(trajectories: Iterable[Trajectory], purpose: str = "dpo", **options: Any) -> tuple[list[dict[str, Any]], Report]:
    report = Report()
    return list(export.rows(trajectories, purpose, report=report, **options)), report


def matched(trajectories: Iterable[Trajectory], **options: Any) -> dict[str, str]:
    rows, _ = made(trajectories, **options)
    return {row["chosen_from"]: row["rejected_from"] for row in rows}


def test_a_pair_holds_the_ids_as_they_were_and_trains_on_the_models_alone() -> None:
    (row,), report = made([one("r"), one("w", False, size=1)])
    assert row["prompt_ids"] == [1, 2]
    assert row["chosen_ids"] == [5, 5, 6, 6, 7, 8, 8, 8, 9]
    assert row["chosen_mask"] == [1, 1, 0, 0, 1, 0, 0, 0, 1]
    assert row["rejected_ids"] == [5, 6, 6, 7, 8, 8, 8, 9]
    assert row["rejected_mask"] == [1, 0, 0, 1, 0, 0, 0, 1]
    assert row["rejected_sources"][:2] == [{"source": "model", "count": 1}, {"source": "hint", "count": 2}]
    assert (row["id"], row["problem_id"], row["chosen_from"], row["rejected_from"]) == ("r:w", "p", "r", "w")
    assert (row["chosen_strategy"], row["rejected_policy"], row["chosen_stop"]) == ("hint_infer", "vllm", "answered")
    assert (report.read, report.rows, report.trained) == (2, 1, 7)
    assert report.tokens == {"prompt": 2, "model": 7, "hint": 4, "tool": 6}


def test_labelled_rows_hold_the_same_with_a_label() -> None:
    rows, report = made([one("r"), one("w", False)], "kto")
    assert {row["id"]: row["label"] for row in rows} == {"r": True, "w": False}
    for row in rows:
        assert row["prompt_ids"] == [1, 2]
        assert row["completion_ids"] == [5, 5, 6, 6, 7, 8, 8, 8, 9]
        assert row["completion_mask"] == [1, 1, 0, 0, 1, 0, 0, 0, 1]
        assert row["verdict"] == ("correct" if row["label"] else "wrong")
    assert (report.rows, report.trained, report.tokens["prompt"]) == (2, 8, 4)


@pytest.mark.parametrize("purpose", ["dpo", "kto"])
def test_what_is_left_out_is_counted_by_reason(purpose: str) -> None:
    only_hint = replace(one("h"), segments=(segment(P, 1, 2), segment(H, 6)))
    no_prompt = replace(one("n"), segments=one("n").segments[1:])
    trajectories = [
        one("r"),
        one("w", False),
        one("r"),
        one("other", prompt=9),
        one("easy", problem="easy"),
        one("hard", False, problem="hard"),
        one("a", stop=StopReason.ABORTED),
        one("u", verdict=Verdict(Judgement.UNSCORED)),
        one("none", verdict=None),
        one("long", size=20),
        only_hint,
        no_prompt,
    ]
    rows, report = made(trajectories, purpose, max_tokens=20)
    assert {row["id"] for row in rows} == ({"r:w"} if purpose == "dpo" else {"r", "w"})
    reasons = {"there already": 1, "another prompt": 1, "no wrong one": 1, "no right one": 1, "aborted": 1, "unscored": 2}
    assert report.left_out == {**reasons, "too long": 1, "no trained token": 1, "no prompt": 1}


@given(
    kinds=st.lists(st.tuples(st.booleans(), st.integers(1, 2), st.integers(1, 6), st.sampled_from("ab")), max_size=14),
    limit=st.integers(1, 4),
    seed=st.integers(0, 5),
)
def test_every_trajectory_is_in_one_row_or_left_out_with_a_reason(kinds: list[Any], limit: int, seed: int) -> None:
    trajectories = [
        one(str(at), right, prompt=prompt, size=size, problem=problem) for at, (right, prompt, size, problem) in enumerate(kinds)
    ]
    pairs, report = made(trajectories, pairs=limit, seed=seed)
    used = [name for row in pairs for name in (row["chosen_from"], row["rejected_from"])]
    assert len(used) == len(set(used))
    assert len(used) + report.left_out.total() == len(trajectories)
    known = {trajectory.id: trajectory for trajectory in trajectories}
    for row in pairs:
        right, wrong = known[row["chosen_from"]], known[row["rejected_from"]]
        assert (right.verdict, wrong.verdict) == (Verdict(Judgement.CORRECT), Verdict(Judgement.WRONG))
        assert right.problem_id == wrong.problem_id == row["problem_id"]
        for side, trajectory in (("chosen", right), ("rejected", wrong)):
            assert (*row["prompt_ids"], *row[f"{side}_ids"]) == trajectory.token_ids
    assert max(Counter(row["problem_id"] for row in pairs).values(), default=0) <= limit
    labelled, report = made(trajectories, "kto", pairs=limit, seed=seed)
    assert len(labelled) + report.left_out.total() == len(trajectories)
    counts = Counter((row["problem_id"], row["label"]) for row in labelled)
    assert max(counts.values(), default=0) <= limit
    for problem, label in list(counts):
        assert counts[problem, not label] > 0
    pairs_possible = {row["problem_id"] for row in pairs}
    assert pairs_possible == {problem for problem, _ in counts}


def test_a_partner_is_one_of_the_same_strategy_then_policy_then_length() -> None:
    right = one("r", size=5)
    wrongs = [
        one("far", False, size=9),
        one("near", False, size=6),
        one("policy", False, size=5, policy="other"),
        one("strategy", False, size=5, strategy="plain"),
    ]
    for name in ("near", "far", "policy", "strategy"):  # without the best the next best
        assert matched([right, *wrongs]) == {"r": name}
        wrongs = [wrong for wrong in wrongs if wrong.id != name]


def test_a_problem_gives_so_many_pairs_and_what_has_no_partner_is_told_apart_from_what_is_enough() -> None:
    many = [one(f"r{at}") for at in range(6)] + [one(f"w{at}", False) for at in range(7)]
    rows, report = made(many)
    assert (len(rows), report.left_out) == (4, {"enough of this problem": 5})
    rows, report = made(many, pairs=9)
    assert (len(rows), report.left_out) == (6, {"no partner left": 1})
    rows, report = made(many, "kto", pairs=5)
    assert (len(rows), report.left_out) == (10, {"enough of this problem": 3})


def test_the_seed_decides_which_and_the_order_of_the_run_does_not() -> None:
    many = [one(f"r{at}") for at in range(8)] + [one(f"w{at}", False) for at in range(8)]
    assert matched(many, pairs=2) == matched(reversed(many), pairs=2)
    assert len({json.dumps(sorted(matched(many, pairs=2, seed=seed).items())) for seed in range(8)}) > 4
    drawn = [{row["id"] for row in made(order, "kto", pairs=2, seed=3)[0]} for order in (many, reversed(many))]
    assert drawn[0] == drawn[1] != {row["id"] for row in made(many, "kto", pairs=2, seed=4)[0]}


def test_labelled_rows_of_one_problem_stand_apart_and_both_labels_are_everywhere() -> None:
    some = [
        one(f"{at}{right}{n}", right, problem=f"p{at}", prompt=at) for at in range(20) for right in (True, False) for n in range(4)
    ]
    rows, _ = made(some, "kto")
    assert len(rows) == 160
    assert all(row["problem_id"] != after["problem_id"] for row, after in pairwise(rows))
    for begin in range(0, 160, 40):
        assert 8 <= sum(row["label"] for row in rows[begin : begin + 40]) <= 32


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"verdict": "correct"}, "leave verdict out"),
        ({"pairs": 0}, "at least 1"),
        ({"aside": True}, "leave aside out"),
        ({"end_tokens": [1]}, "not for dpo"),
        ({"max_tokens": 9, "long": "truncate"}, "only rows for sft can be cut"),
        ({"problems": {}}, "for messages only"),
    ],
)
def test_options_that_cannot_be_are_refused_at_once(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        export.rows([], "dpo", **options)


def test_pairs_are_counted_for_pairs_only() -> None:
    with pytest.raises(SettingsError, match="for dpo and kto only, not for sft"):
        export.rows([], "sft", pairs=3)


def test_text_without_ids_makes_no_pairs() -> None:
    chat = replace(one("c"), segments=(Segment(P, "[]"), Segment(M, "4")))
    with pytest.raises(CapabilityError, match="--for messages"):
        made([chat])


@pytest.mark.parametrize("purpose", ["dpo", "kto"])
def test_every_kind_of_file_holds_the_same_rows_and_a_split_shares_no_problem(tmp_path: Path, purpose: str) -> None:
    import datasets
    from pyarrow import parquet

    some = [one(f"{at}{right}", right, problem=f"p{at}") for at in range(5) for right in (True, False)]
    rows, _ = made(some, purpose)
    for name in ("rows.parquet", "rows.jsonl", "rows"):
        files.write(tmp_path / name, rows)
    assert parquet.read_table(tmp_path / "rows.parquet").to_pylist() == rows
    assert [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == rows
    assert datasets.load_from_disk(str(tmp_path / "rows")).to_list() == rows
    parts = export.dataset(some, purpose, split=0.4, seed=1)
    problems = [set(parts[name]["problem_id"]) for name in ("train", "test")]
    assert (len(problems[0]), len(problems[1]), problems[0] & problems[1]) == (3, 2, set())


def test_the_command_makes_pairs_and_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    run = tmp_path / "run"
    with RunWriter.open(run, Manifest("hint_infer", {}, "vllm", Sampling(), "p.jsonl", "x", 2)) as writer:
        for at in range(3):
            writer.write(one(f"r{at}", sample=2 * at))
            writer.write(one(f"w{at}", False, sample=2 * at + 1))
    out = tmp_path / "pairs.jsonl"
    done = CliRunner().invoke(app, ["export", str(run), "--for", "dpo", "--pairs", "2", "--seed", "7", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "2 pairs of 6 trajectories" in done.stdout
    assert "2 enough of this problem" in done.stdout
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows == made([one(f"{kind}{at}", kind == "r") for at in range(3) for kind in "rw"], pairs=2, seed=7)[0]


def test_no_pair_at_all_is_an_error_that_says_why() -> None:
    report = Report()
    assert list(export.rows([one("r")], "dpo", report=report)) == []
    with pytest.raises(InputError, match=r"no row is left of 1 trajectories \(1 no wrong one\)$"):
        report.check()
