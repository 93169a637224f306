"""Rows to train on, from everything the project writes: as they are, dropped with a count, or refused with the reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.train import tiny
from toolreason.errors import CapabilityError, InputError, SettingsError
from toolreason.export import files
from toolreason.export import rows as export_rows
from toolreason.train import rows
from toolreason.train.rows import Rows
from toolreason.train.sft_data import Model
from toolreason.types import Segment, Source, StopReason

SPEAKER = tiny.Speaker()
MODEL = Model(SPEAKER.tokenizer.vocabulary, tiny.LENGTH, (SPEAKER.end,), SPEAKER.tokenizer.decode)
ANY = Model(1000, 100)


def one(**more: Any) -> dict[str, Any]:
    row = {"id": "r", "problem_id": "p", "input_ids": [1, 2, 3, 4], "labels": [-100, 2, -100, 4], **more}
    return {key: value for key, value in row.items() if value is not None}


def read(tmp_path: Path, *made: dict[str, Any], model: Model = ANY, **options: Any) -> Rows:
    return rows.read([tiny.jsonl(tmp_path / "rows.jsonl", made)], model, **options)


def kept(found: Rows) -> list[tuple[list[int], list[int]]]:
    return [(row["input_ids"], row["labels"]) for row in found.train.to_pylist()]


def test_a_run_and_every_kind_of_export_of_it_give_the_same_rows(tmp_path: Path) -> None:
    made = [tiny.trajectory(number, speaker=SPEAKER) for number in range(4)]
    run = tiny.run(tmp_path / "run", [*made, tiny.trajectory(9, right=False, speaker=SPEAKER)])
    exported = list(export_rows(made))
    for name in ("rows.jsonl", "rows.parquet", "rows"):
        files.write(tmp_path / name, exported)
    found = {name: rows.read([tmp_path / name], MODEL) for name in ("run", "rows.jsonl", "rows.parquet", "rows")}
    for name, each in found.items():
        assert kept(each) == [(row["input_ids"], row["labels"]) for row in exported], name
        assert each.digest == found["run"].digest, name
        assert each.report.tokens == found["run"].report.tokens, name
    assert found["run"].report.dropped == {"wrong": 1}
    assert found["run"].report.read == 5
    assert run == tmp_path / "run"


def test_tokens_are_counted_by_source_and_trained_ones_are_those_of_model_and_hint(tmp_path: Path) -> None:
    trajectory = tiny.trajectory(0, speaker=SPEAKER)
    report = rows.read([tiny.run(tmp_path / "run", [trajectory])], MODEL).report
    assert report.tokens == {source.value: trajectory.tokens(source) for source in Source}
    assert report.trained == trajectory.tokens(Source.MODEL, Source.HINT)
    assert report.longest == len(trajectory.token_ids)


def test_an_answer_that_we_stopped_at_gets_the_end_token_of_the_model(tmp_path: Path) -> None:
    found = rows.read([tiny.run(tmp_path / "run", [tiny.trajectory(0, end=False), tiny.trajectory(1)])], MODEL)
    assert [ids[-1] for ids, _ in kept(found)] == [SPEAKER.end] * 2
    assert [labels[-1] for _, labels in kept(found)] == [SPEAKER.end] * 2
    assert found.report.tokens["end"] == 1


def test_a_row_without_a_trained_token_is_dropped_and_counted(tmp_path: Path) -> None:
    nothing, only_first = one(id="a", labels=[-100] * 4), one(id="b", labels=[1, -100, -100, -100])
    report = read(tmp_path, one(), nothing, only_first).report
    assert report.dropped == {"no trained token": 2}
    assert (report.read, report.rows) == (3, 1)


def test_the_first_token_is_never_trained_since_nothing_stands_before_it(tmp_path: Path) -> None:
    assert kept(read(tmp_path, one(labels=[1, 2, -100, 4]))) == [([1, 2, 3, 4], [-100, 2, -100, 4])]


def test_a_row_that_is_too_long_is_dropped_and_only_if_asked_for_cut(tmp_path: Path) -> None:
    long = one(id="long", sources=[{"source": "prompt", "count": 1}, {"source": "model", "count": 3}])
    short = one(id="short", input_ids=[1, 2], labels=[-100, 2])
    dropped = read(tmp_path, long, short, max_length=3)
    assert kept(dropped) == [([1, 2], [-100, 2])]
    assert dropped.report.dropped == {"too long": 1}
    cut = read(tmp_path, long, short, max_length=3, long="truncate")
    assert kept(cut) == [([1, 2, 3], [-100, 2, -100]), ([1, 2], [-100, 2])]
    assert cut.train.to_pylist()[0]["sources"] == [{"source": "prompt", "count": 1}, {"source": "model", "count": 2}]
    assert (cut.report.truncated, cut.report.dropped.total()) == (1, 0)


def test_a_row_that_loses_its_trained_tokens_when_it_is_cut_is_dropped(tmp_path: Path) -> None:
    late = one(id="late", labels=[-100, -100, -100, 4])
    assert read(tmp_path, one(), late, max_length=3, long="truncate").report.dropped == {"no trained token": 1}


def test_a_row_longer_than_the_model_takes_is_too_long_without_being_asked(tmp_path: Path) -> None:
    assert read(tmp_path, one(id="a"), one(id="b", input_ids=[1, 2], labels=[-100, 2]), model=Model(10, 3)).report.rows == 1


def test_the_same_row_twice_is_one_row(tmp_path: Path) -> None:
    file = tiny.jsonl(tmp_path / "a.jsonl", [one()])
    report = rows.read([file, file], ANY).report
    assert (report.rows, report.dropped) == (1, {"there already": 1})


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"labels": [2, 3, 4, -100]}, "labels are not shifted"),
        ({"labels": [-100, 2]}, "4 ids and 2 labels"),
        ({"labels": ["2"] * 4}, "whole numbers"),
        ({"input_ids": [1, 2, 3, 1000], "labels": [-100, 2, -100, 1000]}, "another model's tokenizer"),
        ({"input_ids": [-1, 2, 3, 4]}, "another model's tokenizer"),
        ({"reward": 0.0}, "for rl"),
        ({"sources": [{"source": "model", "count": 3}]}, "another number of tokens"),
        ({"labels": None}, "no column labels"),
        ({"labels": None, "messages": []}, "text rows, which cannot be masked"),
    ],
)
def test_a_row_that_contradicts_itself_is_an_error_and_not_a_row_less(tmp_path: Path, wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        read(tmp_path, one(id="good"), one(**wrong))


def test_a_run_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    run = tiny.run(tmp_path / "run", [tiny.trajectory(0)])
    strange = replace(MODEL, decode=lambda ids: "".join(chr(97 + token % 26) for token in ids))
    with pytest.raises(InputError, match="another tokenizer"):
        rows.read([run], strange)


def test_one_text_that_the_ids_do_not_give_is_no_other_tokenizer(tmp_path: Path) -> None:
    odd = tiny.trajectory(0)
    cut = replace(odd, segments=(*odd.segments[:-1], replace(odd.segments[-1], text="half a character \ufffd")))
    assert rows.read([tiny.run(tmp_path / "run", [cut, tiny.trajectory(1)])], MODEL).report.rows == 2


def test_text_without_ids_is_refused(tmp_path: Path) -> None:
    text = replace(tiny.trajectory(0), segments=(Segment(Source.PROMPT, "6 * 7?"), Segment(Source.MODEL, "42")))
    with pytest.raises(CapabilityError, match="without token ids"):
        rows.read([tiny.run(tmp_path / "run", [text])], MODEL)


@pytest.mark.parametrize(("name", "text"), [("x.jsonl", "{"), ("x.jsonl", "[]\n"), ("x.parquet", "PAR0"), ("x.csv", "a,b")])
def test_what_is_no_training_data_is_said_to_be_none(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=r"is no|cannot be read"):
        rows.read([tmp_path / name], ANY)


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    aborted = replace(tiny.trajectory(0), stop=StopReason.ABORTED, verdict=None)
    run = tiny.run(tmp_path / "run", [aborted, tiny.trajectory(1, right=False)])
    with pytest.raises(InputError, match=r"of 2 \(1 aborted, 1 wrong\)"):
        rows.read([run], MODEL)


def test_what_is_held_out_shares_no_problem_with_what_is_trained_on(tmp_path: Path) -> None:
    made = [one(id=f"r{n}", problem_id=f"p{n // 3}", input_ids=[1, 2 + n], labels=[-100, 2 + n]) for n in range(30)]
    found = read(tmp_path, *made, held_out=0.2, seed=3)
    train, apart = ({row["problem_id"] for row in table.to_pylist()} for table in (found.train, found.held_out))
    assert (len(train), len(apart)) == (8, 2)
    assert not train & apart
    assert (found.report.rows, found.report.held_out, found.report.trained) == (24, 6, 24)
    other = read(tmp_path, *made, held_out=0.2, seed=4)
    assert other.digest != found.digest
    assert (
        read(tmp_path, *reversed(made), held_out=0.2, seed=3).held_out["id"].to_pylist()[::-1] == found.held_out["id"].to_pylist()
    )


def test_one_problem_alone_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--held-out 0"):
        read(tmp_path, one(id="a"), one(id="b"), held_out=0.5)


def test_the_test_part_of_an_export_is_what_is_held_out(tmp_path: Path) -> None:
    made = [{**row, "problem_id": row["id"]} for row in tiny.rows(5)]
    files.write(tmp_path / "rows", made, split=0.4)
    found = rows.read([tmp_path / "rows"], MODEL, held_out=0.5)
    assert (found.train.num_rows, found.held_out.num_rows) == (3, 2)
    assert found.report.read == 5
