"""Comparing conditions: fair pairs, known numbers, runs that go on; and that nothing starts before all settings are right."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from toolreason import runs
from toolreason.cli import app
from toolreason.compare import plan as plans
from toolreason.compare import tables
from toolreason.compare.conditions import NAMES, Condition, choose, parse, ready
from toolreason.compare.matched import matched
from toolreason.compare.plan import Plan
from toolreason.compare.report import MCNEMAR, SIGN_FLIP, Report, against, at, curve, result
from toolreason.compare.rounds import by_round
from toolreason.compare.rows import Round, Row, row
from toolreason.compare.run import run
from toolreason.errors import CapabilityError, InputError, SettingsError
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.runs import Key
from toolreason.stats import mcnemar, wilson
from toolreason.types import (
    Cell,
    CellResult,
    Judgement,
    Outcome,
    Problem,
    Reference,
    ReferenceKind,
    Sampling,
    Segment,
    Source,
    StopReason,
    TakenBack,
    Trajectory,
    Verdict,
)

RIGHT, WRONG = Verdict(Judgement.CORRECT, "4"), Verdict(Judgement.WRONG, "5")


def a_row(problem: str, right: bool | None, *, sample: int = 0, spent: int = 10, stop: StopReason = StopReason.ANSWERED) -> Row:
    return Row(Key(problem, sample), stop, right, spent, spent, 0, 0, 0, 1.0)


def a_plan(*conditions: str, **more: Any) -> Plan:
    given: dict[str, Any] = {"budget": 100, "samples": 1, "rounds": 1, "domains": {"a": "x", "b": "x"}, **more}
    return Plan("p.jsonl", "hash", "scripted:s.json", Sampling(), conditions=conditions, baseline=conditions[0], **given)


# ---- the conditions


def test_the_built_in_conditions_are_the_controls_of_the_paper() -> None:
    made = {one.name: one for one in ready(choose(",".join(NAMES)), budget=300, hint="end")}
    assert list(made) == ["plain", "wait", "offered", "hint", "not-run", "artist"]
    assert {one.settings.max_tokens for one in made.values()} == {300}
    told = {
        name: tuple(getattr(one.settings, key, None) for key in ("hint", "kind", "execute", "format", "stateful"))
        for name, one in made.items()
    }
    assert told == {
        "plain": (None, None, None, None, None),
        "wait": ("end", "wait", False, None, True),
        "offered": (None, None, None, "fenced", True),
        "hint": ("end", None, True, None, True),
        "not-run": ("end", None, False, None, True),
        "artist": (None, None, None, "tagged", False),
    }


def test_rounds_are_for_the_conditions_that_have_rounds() -> None:
    made = ready(choose("plain,hint,artist", ["one=hint_infer,rounds=1"]), budget=300, rounds=3)
    assert [getattr(one.settings, "rounds", None) for one in made] == [None, 3, None, 1]
    with pytest.raises(SettingsError, match="--rounds is for conditions with hints"):
        ready(choose("plain"), budget=300, rounds=3)


def test_a_condition_of_ones_own_may_hold_commas_in_its_values() -> None:
    one = parse("mine=artist,max_calls=2,system=Think, then answer, briefly")
    assert (one.name, one.strategy, one.settings) == (
        "mine",
        "artist",
        {"max_calls": "2", "system": "Think, then answer, briefly"},
    )


@pytest.mark.parametrize(
    ("names", "own", "message"),
    [
        ("plain,guess", [], "no condition 'guess': there are plain, wait"),
        ("plain,plain", [], "two conditions have one name"),
        ("plain", ["Plain=artist"], "two conditions have one name"),
        ("", [], "no condition is named"),
        ("plain", ["plain=artist"], "'plain' is built in"),
        ("plain", ["mine"], r"no NAME=STRATEGY\[,KEY=VALUE...\]"),
        ("plain", ["../mine=artist"], "is no name of a condition"),
        ("plain", ["a/b=artist"], "is no name of a condition"),
        ("plain", ["mine=guess"], "condition 'mine': no strategy 'guess'; there are"),
        ("plain", ["mine=artist,turns=3"], "condition 'mine': 'turns=3' is no key=value"),
        ("plain", ["mine=artist,max_tokens=3"], "give it as --budget"),
    ],
)
def test_a_wrong_condition_is_named(names: str, own: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        ready(choose(names, own), budget=10)


# ---- rows and pairs


def trajectory(*parts: Segment, stop: StopReason = StopReason.ANSWERED, verdict: Verdict | None = RIGHT, **more: Any) -> Trajectory:
    segments = (Segment(Source.PROMPT, "ab", (1, 2)), *parts)
    return Trajectory("t", "p", "hint_infer", "scripted", segments, stop, verdict=verdict, timings={"total": 2.5}, **more)


def test_a_row_counts_what_was_taken_back_as_spent() -> None:
    cell = Cell("c", "print(1)", CellResult(Outcome.OK, "1\n"))
    parts = (Segment(Source.HINT, "h", (7,)), Segment(Source.MODEL, "mm", (8, 9)), Segment(Source.TOOL, "t", (5,), cell=cell))
    cut = TakenBack(1, Segment(Source.MODEL, "abc", (1, 2, 3)))
    one = row(trajectory(*parts, taken_back=(cut,)))
    assert (one.spent, one.model, one.hint, one.tool, one.taken_back) == (7, 2, 1, 1, 3)
    assert (one.calls, one.seconds, one.right, one.aborted) == (1, 2.5, True, False)


def test_an_aborted_rollout_counts_for_no_condition() -> None:
    rows = {
        "plain": [a_row("a", True), a_row("b", False), a_row("c", None, stop=StopReason.ABORTED)],
        "hint": [a_row("a", None, stop=StopReason.ABORTED), a_row("b", True), a_row("c", True)],
    }
    (one,) = against(rows, "plain")
    assert (one.pairs, one.only_this, one.only_baseline) == (1, 1, 0)
    plan = a_plan("plain", domains=dict.fromkeys("abcd", "x"))
    done = result("hint", "hint_infer", {}, rows["hint"], plan)
    assert (done.finished, done.aborted, done.missing, done.rate.scored) == (2, 1, 1, 2)
    assert done.tokens["spent"] == 10  # not that of the aborted one
    assert row(trajectory(stop=StopReason.ABORTED, verdict=RIGHT)).right is None


def test_pairs_are_of_one_problem_and_sample_and_one_sample_gives_mcnemars_test() -> None:
    names = "abcdefghij"
    plain = [a_row(name, name in "ab") for name in names]
    hint = [a_row(name, name in "bcdefgh") for name in reversed(names)]  # the order of the file does not matter
    (one,) = against({"plain": plain, "hint": hint}, "plain", seed=1)
    assert (one.pairs, one.only_this, one.only_baseline, one.test) == (10, 6, 1, MCNEMAR)
    assert one.difference == pytest.approx(0.5)
    assert one.p == mcnemar(6, 1)
    assert one.low is not None
    assert one.high is not None
    assert 0 <= one.low < 0.5 < one.high <= 1
    assert one == against({"plain": plain, "hint": hint}, "plain", seed=1)[0]


def test_several_samples_of_a_problem_are_permuted_together() -> None:
    plain = [a_row(name, False, sample=i) for name in "abc" for i in range(4)]
    hint = [a_row(name, True, sample=i) for name in "abc" for i in range(4)]
    (one,) = against({"plain": plain, "hint": hint}, "plain")
    assert (one.problems, one.pairs, one.only_this, one.test) == (3, 12, 12, SIGN_FLIP)
    assert one.p == 0.25  # 3 problems: 2 of 8 assignments; 12 independent pairs would give 0.0005


def test_p_values_are_corrected_for_the_number_of_conditions_that_were_tested() -> None:
    names = [f"p{i}" for i in range(12)]
    rows = {"plain": [a_row(name, False) for name in names]}
    rows |= {name: [a_row(p, i < right) for i, p in enumerate(names)] for name, right in (("six", 6), ("five", 5))}
    rows["nothing"] = []
    six, five, nothing = against(rows, "plain")
    assert (six.p, five.p, nothing.p) == (2 / 64, 2 / 32, None)
    assert (six.p_holm, five.p_holm, nothing.p_holm) == (4 / 64, 2 / 32, None)
    assert (nothing.difference, nothing.pairs) == (None, 0)


def test_within_a_limit_only_what_was_right_and_cheap_enough_counts() -> None:
    rows = [a_row("a", True, spent=30), a_row("b", True, spent=60), a_row("c", False, spent=5), a_row("d", True, spent=60)]
    steps = curve([*rows, a_row("e", None, spent=1)])
    assert steps == [(0, 0.0), (30, 0.25), (60, 0.75)]
    assert [at(steps, limit) for limit in (0, 29, 30, 59, 60, 1000)] == [0, 0, 0.25, 0.25, 0.75, 0.75]
    assert result("plain", "plain", {}, rows, a_plan("plain", domains=dict.fromkeys("abcd", "x"))).within == [
        (12, 0.0),
        (25, 0.0),
        (50, 0.25),
        (75, 0.75),
        (100, 0.75),
    ]
    assert curve([a_row("a", True, spent=0)]) == []  # a policy that counts no tokens


def test_domains_have_rates_of_their_own() -> None:
    plan = a_plan("plain", domains={"a": "gcd", "b": "primes", "c": "primes"})
    done = result("plain", "plain", {}, [a_row("a", True), a_row("b", False), a_row("c", True)], plan)
    assert {name: (one.correct, one.scored, (one.low, one.high)) for name, one in done.domains.items()} == {
        "gcd": (1, 1, wilson(1, 1)),
        "primes": (1, 2, wilson(1, 2)),
    }


def test_problems_are_grouped_by_domain_or_by_what_their_ids_begin_with() -> None:
    gym = [
        Problem(f"{name}-30-{i}", "?", Reference(ReferenceKind.GYM, dataset=name), domain=name)
        for name in ("gcd", "lcm")
        for i in (0, 1)
    ]
    assert set(plans.domains(gym).values()) == {"gcd", "lcm"}
    assert plans.domains([Problem(f"{name}-{i}", "?") for name in ("gcd-7", "lcm-7") for i in (0, 1)])["lcm-7-1"] == "lcm"
    assert set(plans.domains([Problem(f"q{i}", "?") for i in range(4)]).values()) == {"math"}
    assert set(plans.domains([Problem(str(i), "?") for i in range(4)]).values()) == {"math"}
    assert set(plans.domains([Problem(name, "?") for name in ("tom", "ann", "kim")]).values()) == {"math"}  # each a name of its own


# ---- rounds


def three_rounds(*verdicts: Verdict) -> Trajectory:
    """Rounds that end at 2, 5 and 7 tokens: an ending of one token is taken back, then a hint and a word are written."""
    said = [Segment(Source.MODEL, "m", (9,)), Segment(Source.HINT, "h", (7,)), Segment(Source.MODEL, "n", (8,))]
    parts = (said[0], *said[1:], *said[1:])
    ends = Segment(Source.MODEL, "e", (3,))
    taken = (TakenBack(2, ends, StopReason.ANSWERED), TakenBack(4, ends, StopReason.ANSWERED))
    return trajectory(*parts, taken_back=taken, round_verdicts=verdicts, verdict=verdicts[-1])


def last(trajectory: Trajectory, by: str, upto: int | None) -> int:
    """A stand-in: the first round is the majority's, the last one the last."""
    return 0 if by == "majority" else len(trajectory.rounds[:upto]) - 1


def test_each_round_has_its_answer_and_its_tokens() -> None:
    one = row(three_rounds(WRONG, RIGHT, WRONG), last)
    assert [(part.spent, part.right["last"], part.right["majority"]) for part in one.rounds] == [
        (2, False, False),
        (5, True, False),
        (7, False, False),
    ]
    assert all(part.right["certain"] is None for part in one.rounds)  # no certainties were collected
    assert row(trajectory(Segment(Source.MODEL, "m", (9,))), last).rounds[0].right["last"] is True
    unscored = Verdict(Judgement.UNSCORED)
    assert [part.right["last"] for part in row(three_rounds(unscored, RIGHT, unscored), last).rounds] == [None, True, None]


def test_the_most_certain_round_is_looked_for_where_tokens_have_certainties() -> None:
    sure = trajectory(Segment(Source.MODEL, "m", (9,), certainties=(0.5,)), verdict=WRONG)
    assert row(sure, last).rounds[0].right == {"last": False, "majority": False, "certain": False}


def test_a_rollout_that_ran_out_counts_with_its_last_round() -> None:
    def parts(*right: bool) -> tuple[Round, ...]:
        return tuple(Round(10 * n, n, {"last": r, "majority": right[0], "certain": None}) for n, r in enumerate(right, 1))

    rows = [
        Row(Key(n, 0), StopReason.ANSWERED, True, 0, 0, 0, 0, 0, 0, p)
        for n, p in (("a", parts(False, True, True)), ("b", parts(True)))
    ]
    found = by_round("hint", [*rows, a_row("c", None, stop=StopReason.ABORTED)], 3)
    assert [(one.round, one.rollouts, one.reached, one.by["last"].correct, one.by["majority"].correct) for one in found] == [
        (1, 2, 2, 1, 1),
        (2, 2, 1, 2, 1),
        (3, 2, 1, 2, 1),
    ]
    assert [one.spent for one in found] == [10, 15, 20]
    assert found[0].by["certain"].accuracy is None
    assert by_round("hint", [], 3) == []


# ---- tables


def test_hostile_names_stay_in_their_cells() -> None:
    evil = "x | y\n# <script>\x1b[31m`"
    plan = a_plan("plain", domains={"a": evil, "b": "other"})
    done = result("plain", "plain", {"system": evil}, [a_row("a", True), a_row("b", False)], plan)
    text = tables.markdown(Report(plan, [done], [], []))
    assert "\x1b" not in text
    assert "<script" not in text
    assert not [line for line in text.splitlines() if line.startswith("# ") and line != "# Comparison"]
    lines = [line for line in text.splitlines() if r"x \| y" in line]
    assert len(lines) == 2  # the settings and the domain, a line each
    assert [line.replace(r"\|", "").count("|") for line in lines] == [4, 3]


def test_small_p_values_are_not_rounded_to_nothing() -> None:
    assert [tables.p_text(p) for p in (None, 1.0, 0.5, 0.0312, 4e-9)] == ["-", "1.00", "0.50", "0.031", "4e-09"]


# ---- the command


PROBLEMS = [("a", "6*7?", "42"), ("b", "2+2?", "4"), ("c", "3+3?", "6")]
PLAIN = [r"\boxed{42}", r"\boxed{5}", r"\boxed{5}"]
HINTED = [text for _, question, answer in PROBLEMS for text in (f"print({question[:-1]})\n```\n", f"So \\boxed{{{answer}}}.")]
NOT_RUN = ["print(1)\n```\nIt prints 41, so \\boxed{41}."] * 3
RUN = ("p.jsonl", "-o", "out", "-p", "scripted:s.json", "-c", "1", "--sandbox", "local")
THREE = ("--conditions", "plain,hint,not-run")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three problems, and a policy that is right on one alone, on all with code that runs, on none where it does not."""
    rows = [{"id": name, "question": question, "answer": answer} for name, question, answer in PROBLEMS]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "s.json").write_text(json.dumps([*PLAIN, *HINTED, *NOT_RUN]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def compare(*args: str) -> Any:
    return CliRunner().invoke(app, ["compare", *args], catch_exceptions=False)


def test_one_table_one_chart_and_each_condition_a_run(here: Path) -> None:
    done = compare(*RUN, *THREE, "--budget", "200")
    assert done.exit_code == 0, done.output
    assert "1/3 = 33.3 %" in done.stdout
    assert "+66.7 (" in done.stdout
    kept = json.loads((here / "out" / "compare.json").read_text())
    rates = {one["name"]: (one["rate"]["correct"], one["rate"]["scored"]) for one in kept["conditions"]}
    assert rates == {"plain": (1, 3), "hint": (3, 3), "not-run": (0, 3)}
    calls = {one["name"]: (one["calls"], one["with_call"]) for one in kept["conditions"]}
    assert calls == {"plain": (0, 0), "hint": (1, 1), "not-run": (0, 0)}
    told = {one["name"]: (one["only_this"], one["only_baseline"], one["p"], one["p_holm"]) for one in kept["against"]}
    assert told == {"hint": (2, 0, 0.5, 1.0), "not-run": (0, 1, 1.0, 1.0)}
    for name in rates:
        settings = runs.manifest(here / "out" / name).settings
        assert settings["max_tokens"] == 200
    spent = [one.spent for one in runs.read(here / "out" / "hint")]
    assert next(one for one in kept["conditions"] if one["name"] == "hint")["tokens"]["spent"] == pytest.approx(sum(spent) / 3)
    assert kept["plan"]["command"] == f"toolreason compare p.jsonl --out out --conditions {THREE[1]} --budget 200 " + (
        "--policy scripted:s.json --concurrency 1 --sandbox local"
    )
    text = (here / "out" / "compare.md").read_text()
    assert kept["plan"]["problems_hash"] in text
    assert "| not-run | 0/3 = 0.0 % (0.0 to 56.1) |" in text
    assert (here / "out" / "compare.svg").read_text().count("<!-- not-run -->") == 1


def test_all_conditions_have_the_same_problems_and_seeds(here: Path) -> None:
    (here / "s.json").write_text(json.dumps([r"\boxed{42}"] * 12))
    done = compare(*RUN, "--conditions", "plain,artist", "--samples", "2", "--seed", "5", "--temperature", "1", "--limit", "2")
    assert done.exit_code == 0, done.output
    seeds = {
        name: {(one.problem_id, one.sample, one.sampling.seed) for one in runs.read(here / "out" / name)}
        for name in ("plain", "artist")
    }
    assert seeds["plain"] == seeds["artist"] == {(problem, i, 5 + i) for problem in "ab" for i in (0, 1)}
    assert "the 2 samples of a problem as independent" in (here / "out" / "compare.md").read_text()
    fewer = compare(*RUN, "--conditions", "plain,artist", "--seed", "5", "--temperature", "1", "--limit", "1", "--json")
    assert [(one["finished"], one["missing"]) for one in json.loads(fewer.stdout)["conditions"]] == [(1, 0), (1, 0)]


def test_a_comparison_that_was_broken_off_goes_on_where_it_ended(here: Path) -> None:
    (here / "s.json").write_text(json.dumps([*PLAIN, *HINTED[:2]]))  # the engine "fails" after the first hinted rollout
    first = compare(*RUN, *THREE, "--json")
    assert first.exit_code == 1
    shown = {one["name"]: (one["finished"], one["aborted"]) for one in json.loads(first.stdout)["conditions"]}
    assert shown == {"plain": (3, 0), "hint": (1, 2), "not-run": (0, 3)}
    assert [one["pairs"] for one in json.loads(first.stdout)["against"]] == [1, 0]
    before = (here / "out" / "plain" / "trajectories.jsonl").read_bytes()
    (here / "s.json").write_text(json.dumps([*HINTED[2:], *NOT_RUN]))
    second = compare(*RUN, *THREE, "--json")
    assert second.exit_code == 0, second.output
    shown = {one["name"]: (one["finished"], one["aborted"]) for one in json.loads(second.stdout)["conditions"]}
    assert shown == {"plain": (3, 0), "hint": (3, 0), "not-run": (3, 0)}
    assert (here / "out" / "plain" / "trajectories.jsonl").read_bytes() == before


def test_a_report_runs_nothing_and_can_take_another_baseline(here: Path) -> None:
    compare(*RUN, *THREE)
    (here / "s.json").unlink()
    (here / "p.jsonl").unlink()
    done = compare("out", "--baseline", "not-run", "--chart", "mine.svg", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert {one["name"]: one["only_this"] for one in told["against"]} == {"plain": 1, "hint": 3}
    assert told["files"][-1] == "mine.svg"
    assert (here / "mine.svg").exists()


def test_a_comparison_can_grow_by_a_condition(here: Path) -> None:
    compare(*RUN, *THREE)
    (here / "s.json").write_text(json.dumps(HINTED))
    done = compare(*RUN, "--conditions", "plain", "--condition", "mine=hint_infer,hint=start,max_calls=1", "--json")
    assert done.exit_code == 0, done.output
    assert [one["name"] for one in json.loads(done.stdout)["conditions"]] == ["plain", "mine", "hint", "not-run"]
    assert json.loads(done.stdout)["plan"]["baseline"] == "plain"
    again = compare(*RUN, "--conditions", "not-run", "--json")  # what it does not name stays, and so does the baseline
    assert json.loads(again.stdout)["plan"]["baseline"] == "plain"
    other = compare(*RUN, "--conditions", "not-run", "--baseline", "mine", "--json")
    assert json.loads(other.stdout)["plan"]["baseline"] == "mine"
    refused = compare(*RUN, "--conditions", "plain", "--budget", "99")
    assert refused.exit_code == 2
    assert "budget: 1024 there, 99 now" in refused.stderr


def test_rounds_have_a_table_and_a_chart(here: Path) -> None:
    (here / "p.jsonl").write_text('{"id": "b", "question": "2+2?", "answer": "4"}\n')
    script = [r"\boxed{5}", "print(2+3)\n```\n", r"So \boxed{5}.", "print(2+2)\n```\n", r"So \boxed{4}."]
    (here / "s.json").write_text(json.dumps(script))
    done = compare(*RUN, "--conditions", "plain,hint", "--rounds", "2", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["plan"]["sampling"]["top_logprobs"] == 20
    found = [(one["round"], one["by"]["last"]["correct"], one["by"]["majority"]["correct"], one["calls"]) for one in told["rounds"]]
    assert found == [(1, 0, 0, 1.0), (2, 1, 0, 2.0)]  # of two answers that differ the majority is the first
    assert [one["by"]["certain"]["scored"] for one in told["rounds"]] == [1, 1]  # the certainties were asked for
    assert told["rounds"][0]["spent"] < told["rounds"][1]["spent"] == told["conditions"][1]["tokens"]["spent"]
    assert [Path(name).name for name in told["files"]] == ["compare.md", "compare.json", "compare.svg", "compare-rounds.svg"]
    assert "## Round by round" in (here / "out" / "compare.md").read_text()


async def test_hints_for_a_policy_that_takes_none_are_refused_before_anything_is_sampled() -> None:
    class TextOnly(ScriptedPolicy):
        exact = False

    policy = TextOnly([])
    with pytest.raises(CapabilityError, match="and hint write hints into the model's own text"):
        await run(
            a_plan("plain", "hint"), [], ready(choose("plain,hint"), budget=9), [], policy=policy, sessions=None, verifier=None
        )
    assert not policy.calls


def test_the_command_has_help() -> None:
    done = compare("--help")
    assert done.exit_code == 0
    assert "not-run" in done.output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((*RUN, "--conditions", "plain,guess"), "no condition 'guess'"),
        ((*RUN, "--condition", "mine=artist,stateful=perhaps"), "condition 'mine': stateful"),
        ((*RUN, "--hint", "nowhere"), "condition 'wait'"),
        ((*RUN, "--baseline", "guess"), "the baseline 'guess' is none of the conditions"),
        ((*RUN, "--chart", "no/where.svg"), "cannot write no/where.svg"),
        ((*RUN[:-1], "none"), "condition 'offered': this strategy runs code"),
        ((*RUN, "--temperature", "99"), "outside 0 to 10"),
        (("p.jsonl",), "holds no comparison"),
        (("out",), "holds no comparison"),
        (("out", "--budget", "9", "--rounds", "2"), "without --out nothing is run, and --budget, --rounds would do nothing"),
    ],
)
def test_what_is_wrong_is_told_before_anything_runs(here: Path, args: tuple[str, ...], message: str) -> None:
    done = compare(*args)
    assert done.exit_code == 2, done.output
    assert message in " ".join(done.stderr.split())
    assert done.stdout == ""
    assert not (here / "out").exists()


def test_a_condition_collected_in_another_way_stops_all_before_anything_runs(here: Path) -> None:
    compare(*RUN, *THREE)
    done = compare(*RUN, "--conditions", "plain,artist,hint", "--hint", "end")
    assert done.exit_code == 2
    assert "settings.hint: 'start' there, 'end' now" in done.stderr
    assert (
        not (here / "out" / "artist" / "trajectories.jsonl").exists()
        or not (here / "out" / "artist" / "trajectories.jsonl").read_bytes()
    )


def test_without_matplotlib_only_a_chart_that_was_asked_for_is_an_error(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = compare(*RUN, *THREE)
    assert done.exit_code == 0
    assert "no chart: charts need matplotlib: pip install 'toolreason[charts]'" in done.stderr
    asked = compare(*RUN, *THREE, "--chart", "a.svg")
    assert asked.exit_code == 3


def test_a_run_that_is_no_part_of_the_comparison_is_refused(here: Path) -> None:
    compare(*RUN, *THREE)
    file = here / "out" / "hint" / "run.json"
    file.write_text(file.read_text().replace('"max_tokens":1024', '"max_tokens":4096'))
    done = compare("out")
    assert done.exit_code == 2
    assert "max_tokens: 1024 planned, 4096 there" in done.stderr
    (here / "out" / "plan.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        plans.read(here / "out")


def test_ctrl_c_keeps_what_is_finished_and_it_can_be_reported(here: Path) -> None:
    count = 4000
    (here / "p.jsonl").write_text(
        "".join(json.dumps({"id": f"p{i}", "question": "2?", "answer": "4"}) + "\n" for i in range(count))
    )
    (here / "s.json").write_text(json.dumps([r"It is \boxed{4}."] * count))
    command = [sys.executable, "-m", "toolreason.cli", "compare", *RUN, "--conditions", "plain,artist"]
    log = here / "out" / "plain" / "trajectories.jsonl"
    with (
        (here / "err.txt").open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True) as process,
    ):
        try:
            deadline = time.monotonic() + 100
            while (
                time.monotonic() < deadline and process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") > 3)
            ):
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGINT)
            out, _ = process.communicate(timeout=50)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    told = (here / "err.txt").read_text()
    assert (process.returncode, out) == (130, ""), told
    lines = len(log.read_bytes().splitlines())
    assert f"{lines} finished rollouts are kept in out" in told
    shown = json.loads(compare("out", "--json").stdout)["conditions"]
    assert [(one["finished"], one["missing"]) for one in shown] == [(lines, count - lines), (0, count)]


def retried(problem: str, sample: int, answer: str | None, spent: int) -> Row:
    right = None if answer is None else answer == "right"
    return Row(Key(problem, sample), StopReason.ANSWERED, right, spent, spent, 0, 0, 0, 1.0, answer=answer)


def test_a_condition_that_retries_is_judged_at_the_tokens_of_the_other() -> None:
    tries = [retried("a", 0, "wrong", 40), retried("a", 1, "right", 40), retried("a", 2, "right", 40), retried("a", 3, "wrong", 1)]
    rows = {"uct": [retried("a", 0, "right", 120)], "retry": tries}
    (one,) = matched(rows)
    assert (one.name, one.other, one.rollouts, one.tokens, one.limit) == ("retry", "uct", 3, 120, 120)
    assert one.rate.correct == 1  # of wrong, right, right; the fourth would not fit
    (one,) = matched({**rows, "uct": [retried("a", 0, "right", 80)]})
    assert (one.rollouts, one.rate.correct) == (2, 0)  # one each: the first counts
    (one,) = matched({**rows, "uct": [retried("a", 0, "right", 3)]})
    assert one.rollouts == 1  # one at least
    assert matched({"a": tries, "b": tries}) == []


def test_a_condition_may_have_more_rollouts_than_the_others() -> None:
    assert parse("retry=artist,samples=4,format=fenced") == Condition("retry", "artist", {"format": "fenced"}, 4)
    with pytest.raises(SettingsError, match="samples=no"):
        parse("retry=artist,samples=no")
