"""`toolreason curate` over run directories: what is written, read back, told, and refused."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tests.curate.traces import CODEC, hint, model, solved, tool, trace
from toolreason import problems, runs
from toolreason.cli import app
from toolreason.policies.scripted import END
from toolreason.runs import Manifest, RunWriter
from toolreason.types import Judgement, Problem, Reference, ReferenceKind, Sampling, Source, StopReason, Trajectory, Verdict

NAMES = ("run.json", "trajectories.jsonl", "rows.jsonl", "report.json", "report.md", "card.md")
HARD = ("a", "b", "c")
PROBLEMS = [Problem(id_, "What is 6 * 7?", Reference(ReferenceKind.MATH, "42")) for id_ in (*HARD, "easy", "odd")]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    problems.dump(PROBLEMS, "p.jsonl")
    return tmp_path


def write(name: str, rows: Iterable[Trajectory], *, source: str = "p.jsonl", temperature: float = 0.0) -> None:
    loaded = problems.load(source).problems
    manifest = Manifest("hint_infer", {"max_calls": 4}, "scripted", Sampling(temperature), source, runs.problems_hash(loaded))
    with RunWriter.open(name, manifest) as writer:
        for number, one in enumerate(rows):
            writer.write(replace(one, sample=number, id=f"{name}-{one.id}"))


@pytest.fixture
def collected() -> None:
    """Plain is wrong on a, b and c; the hinted run has something of everything."""
    guess = model(rf"I guess \boxed{{41}}{END}")
    plain = [trace(guess, problem=id_, id_=id_, right=False, answer="41") for id_ in HARD]
    write("plain", [*plain, trace(guess, problem="easy", id_="easy"), trace(guess, problem="odd", id_="odd", right=None)])
    doubled = trace(
        model("Wait, Wait, let me see."),
        hint(),
        model("print(2*21)\n```\n"),
        tool("print(2*21)", "42"),
        model(r"\boxed{42}"),
        id_="doubled",
    )
    hinted = [
        *(solved(problem=id_, id_=f"good-{id_}") for id_ in (*HARD, "easy", "odd")),
        solved("print(6 * 7)  # again", problem="a", id_="again"),
        replace(doubled, problem_id="a"),
        solved(problem="b", id_="wrong", right=False),
        solved(problem="b", id_="unscored", right=None),
        solved(problem="b", id_="cut", stop=StopReason.LENGTH),
        solved(problem="b", id_="faulty", faults=("invented_output",)),
        trace(hint(), model(r"no code \boxed{42}"), problem="c", id_="talk"),
    ]
    write("hinted", hinted, temperature=0.7)


def curate(*args: str) -> Any:
    return CliRunner().invoke(app, ["curate", *args], catch_exceptions=False)


def hint_rft(*more: str, out: str = "set") -> Any:
    return curate("hint-rft", "--plain", "plain", "--hinted", "hinted", "--out", out, *more)


@pytest.mark.usefixtures("collected")
def test_a_set_is_a_run_with_report_sidecar_and_card(here: Path) -> None:
    done = hint_rft("--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    kept = list(runs.read("set"))
    assert [(one.id, one.problem_id, one.sample) for one in kept] == [
        ("hinted-doubled", "a", 0),  # a little shorter
        ("hinted-good-a", "a", 1),
        ("hinted-good-b", "b", 0),
        ("hinted-good-c", "c", 0),
    ]
    assert sorted(file.name for file in (here / "set").iterdir()) == sorted(NAMES)
    assert all(CODEC.decode(one.token_ids) == one.text for one in kept)
    modified = next(one for one in kept if one.id == "hinted-doubled")
    assert modified.response.startswith("Wait, let me see.")
    assert [s.source for s in modified.segments] == [
        Source.PROMPT,
        Source.MODEL,
        Source.HINT,
        Source.MODEL,
        Source.TOOL,
        Source.MODEL,
    ]

    fell = {step["step"]: step["fell"] for step in told["steps"]}
    assert fell["keep rule"] == {
        "plain was right": 1,
        "plain unscored": 1,
        "wrong": 1,
        "unscored": 1,
        "did not end with an answer": 1,
    }
    assert fell["filter: format faults"] == {"format faults": 1}
    assert fell["filter: executed cells"] == {"no executed cell": 1}
    assert fell["selection"] == {"the same program again": 1}
    assert (told["rows"], told["problems"], told["modified"], told["calls"]) == (4, 3, 1, 4)
    assert told["tokens"]["hint"] == sum(one.tokens(Source.HINT) for one in kept) > 0
    assert 0 < told["balance"]["balance_score"] < 1
    assert json.loads((here / "set/report.json").read_text())["steps"] == told["steps"]

    sidecar = [json.loads(line) for line in (here / "set/rows.jsonl").read_text().splitlines()]
    assert [line["id"] for line in sidecar] == [one.id for one in kept]
    assert {line["id"]: line["modifications"] for line in sidecar if line["modifications"]} == {"hinted-doubled": ["doubled: Wait"]}
    assert all(0 <= line["score"] <= 1 and line["run"] == "hinted" for line in sidecar)


@pytest.mark.usefixtures("collected")
def test_the_card_names_sources_model_sampling_and_hashes(here: Path) -> None:
    hint_rft()
    _, front, body = (here / "set/card.md").read_text().split("---\n", 2)
    card = yaml.safe_load(front)
    assert card["license"] == "FILL-IN"
    assert [(run["path"], run["role"]) for run in card["source_runs"]] == [("plain", "plain"), ("hinted", "hinted")]
    assert all(len(value) == 64 for run in card["source_runs"] for value in run["hashes"].values())
    assert (card["problems"]["source"], card["model"], card["size"]["rows"]) == ("p.jsonl", ["scripted"], 4)
    assert '"temperature": 0.7' in body


@pytest.mark.usefixtures("collected")
def test_show_and_the_report_read_the_set(here: Path) -> None:
    shown = hint_rft()
    assert "1 the same program again" in shown.stdout
    assert "kept in set" in shown.stderr
    listed = json.loads(CliRunner().invoke(app, ["show", "set", "--json"]).stdout)
    assert len(listed["trajectories"]) == 4
    assert listed["run"]["settings"] == {"max_calls": 4, "curated": "hint-rft"}
    report = (here / "set/report.md").read_text()
    assert "| keep rule | 12 | 7 | 3 |" in report
    assert "### modification: changed: doubled" in report


@pytest.mark.usefixtures("collected")
def test_the_same_again_is_nothing_new_and_another_set_is_refused(here: Path) -> None:
    assert hint_rft().exit_code == 0
    before = {name: (here / "set" / name).read_bytes() for name in NAMES}
    again = hint_rft()
    assert again.exit_code == 0
    assert "nothing new" in again.stderr
    other = hint_rft("--per-problem", "1")
    assert other.exit_code == 2
    assert "holds something else" in other.stderr
    assert {name: (here / "set" / name).read_bytes() for name in NAMES} == before
    assert hint_rft("--per-problem", "1", out="one").exit_code == 0
    assert [one.sample for one in runs.read("one")] == [0, 0, 0]
    assert not list(here.glob(".curate-*"))


@pytest.mark.usefixtures("collected")
def test_a_collection_cannot_go_on_in_a_set(here: Path) -> None:
    hint_rft()
    with pytest.raises(Exception, match=r"settings\.curated"):
        RunWriter.open("set", runs.manifest("hinted"))


@pytest.mark.usefixtures("collected")
def test_settings_come_from_a_file_and_options_go_over_it(here: Path) -> None:
    (here / "c.toml").write_text("per_problem = 1\nmin_cells = 0\n")
    told = json.loads(hint_rft("--config", "c.toml", "--per-problem", "3", "--set", "seed=5", "--json").stdout)
    assert (told["settings"]["per_problem"], told["settings"]["min_cells"], told["settings"]["seed"]) == (3, 0, 5)
    assert told["rows"] == 5  # the trace without a cell too
    for wrong, why in (("nothing=1", "no setting 'nothing'"), ("max_tokens=x", "max_tokens"), ("min_score=2", "outside 0 to 1")):
        failed = hint_rft("--set", wrong, out="wrong")
        assert failed.exit_code == 2
        assert why in failed.stderr


@pytest.mark.usefixtures("collected")
def test_runs_of_other_problems_or_named_twice_or_of_an_unknown_tokenizer_are_refused(here: Path) -> None:
    problems.dump(PROBLEMS[:2], "other.jsonl")
    write("other", [solved(problem="a")], source="other.jsonl")
    refused = curate("hint-rft", "--plain", "plain", "--hinted", "other", "--out", "x")
    assert refused.exit_code == 2
    assert "different problems" in refused.stderr
    assert "named twice" in curate("hint-rft", "--plain", "plain", "--hinted", "plain", "--out", "x").stderr
    assert "does not hold the problems" in hint_rft("--problems", "other.jsonl", out="x").stderr
    write("served", [replace(solved(problem="a"), policy="vllm:mine")])
    assert "--tokenizer" in curate("rft", "served", "--out", "x").stderr
    assert not (here / "x").exists()


def test_ids_that_read_as_another_text_are_refused_with_the_tokenizer_named() -> None:
    good = solved(problem="a")
    moved = [replace(s, token_ids=tuple(token + 1 for token in s.token_ids)) for s in good.segments[1:]]
    write("moved", [replace(good, segments=(good.segments[0], *moved))])
    refused = curate("rft", "moved", "--out", "x")
    assert refused.exit_code == 2
    assert "it is not that of scripted" in refused.stderr


def test_without_the_problem_file_the_prompts_and_verdicts_serve(here: Path) -> None:
    write("run", [solved(problem="a")])
    (here / "p.jsonl").unlink()
    done = curate("rft", "run", "--out", "set")
    assert done.exit_code == 0
    assert "p.jsonl is not here" in done.stderr
    assert len(list(runs.read("set"))) == 1


def test_the_second_stage_keeps_right_traces_of_any_problem_in_the_share_asked_for(here: Path) -> None:
    talk = [trace(model(rf"Try {n}: \boxed{{42}}"), problem=p, id_=f"talk-{p}-{n}") for p in HARD for n in range(4)]
    code = [solved(f"print(42 + {n} - {n})", problem=p, id_=f"code-{p}-{n}") for p in HARD for n in range(4)]
    write("sampled", [*talk, *code], temperature=0.6)
    told = json.loads(curate("rft", "sampled", "--out", "set", "--tool-share", "0.5", "--json").stdout)
    assert (told["stage"], told["rows"], told["tool_share"]) == ("rft", 12, 0.5)
    assert told["balance"]["exploration"] == {"pass_at_k": 1, "pass_at_k_4": 1, "distinct": 1}


def test_with_rounds_the_verdict_on_the_whole_text_counts() -> None:
    right, wrong = Verdict(Judgement.CORRECT, "42"), Verdict(Judgement.WRONG, "41")
    rows = [
        replace(solved(problem="a", id_=str(n)), round_verdicts=both) for n, both in enumerate([(right, wrong), (wrong, right)])
    ]
    write("run", rows)
    assert curate("rft", "run", "--out", "set").exit_code == 0
    assert [one.id for one in runs.read("set")] == ["run-1"]


def test_a_set_of_which_nothing_is_left_is_written_with_the_reasons(here: Path) -> None:
    write("run", [solved(problem="a", right=False)])
    done = curate("rft", "run", "--out", "set")
    assert done.exit_code == 0
    assert "no row is left" in done.stderr
    assert list(runs.read("set")) == []


def test_balance_names_the_best_temperature_and_threshold() -> None:
    write("cool", [solved(problem=p, id_=f"{p}{n}") for p in HARD for n in range(4)], temperature=0.2)  # always the same program
    warm = [solved(f"print({n}+42-{n})", problem=p, id_=f"{p}{n}", right=n > 0) for p in HARD for n in range(4)]
    write("warm", warm, temperature=1.0)
    done = curate("balance", "cool", "warm", "--threshold", "0", "--threshold", "0.99", "--target", "4", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    scores = {(one["run"], one["threshold"]): one["score"] for one in told["settings"]}
    assert scores == {
        ("cool", 0): pytest.approx(1 / 4 * 1 / 4),
        ("cool", 0.99): pytest.approx(1 / 4 * 1 / 4),
        ("warm", 0): pytest.approx(3 / 4),
        ("warm", 0.99): 0,  # the code holds the answer
    }
    assert told["best"] == {"run": "warm", "temperature": 1.0, "threshold": 0.0, "score": pytest.approx(3 / 4)}
    shown = curate("balance", "cool", "warm")
    assert "best: warm at temperature 1" in shown.stderr
    write("lost", [solved(problem="a", right=False)])
    assert "no setting is better" in curate("balance", "lost").stderr
    write("unscored", [solved(problem="a", right=None)])
    assert "nothing can be measured" in curate("balance", "unscored").stderr


@pytest.mark.parametrize("command", [["--help"], ["hint-rft", "--help"], ["rft", "--help"], ["balance", "--help"]])
def test_help_teaches_with_examples(command: list[str]) -> None:
    done = curate(*command)
    assert done.exit_code == 0
    assert "toolreason curate" in done.stdout


def test_text_from_a_model_is_inert_in_report_and_card(here: Path) -> None:
    nasty = "\x1b[31m```\n| [x](y) <b>"
    one = solved(problem="a", id_="nasty", right=False, answer=nasty)
    write("run", [one])
    curate("rft", "run", "--out", "set")
    report = (here / "set/report.md").read_text()
    assert "\x1b" not in report
    assert "````text\n\u241b[31m```\n| [x](y) <b>\n````" in report
