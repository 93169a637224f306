"""The files of a comparison: its runs read into a report, the report written beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from toolreason import charts, runs, scaling
from toolreason.compare.matched import matched
from toolreason.compare.plan import Plan
from toolreason.compare.report import Report, Result, against, result
from toolreason.compare.rounds import RoundResult, by_round
from toolreason.compare.rows import Choose, Row, read
from toolreason.compare.tables import markdown
from toolreason.durable import replace_file
from toolreason.errors import InputError, SettingsError
from toolreason.runs import Key, Manifest

MARKDOWN, JSON, CHART = "compare.md", "compare.json", "compare.svg"


def report(path: Path, plan: Plan, choose: Choose = scaling.choose) -> Report:
    """What the runs under `path` say by now. `choose` picks the round whose answer counts.

    Raises InputError for a damaged run, SettingsError for one that was collected in another way than the plan says.
    """
    rows: dict[str, Sequence[Row]] = {}
    results: list[Result] = []
    rounds: list[RoundResult] = []
    for name in plan.conditions:
        run = _run(path / name, plan)
        allowed = 1 if run is None else int(run.settings.get("rounds", 1))
        rows[name] = [] if run is None else _rows(path / name, plan, choose if allowed > 1 else None, plan.samples_of(name))
        strategy, settings = ("", {}) if run is None else (run.strategy, run.settings)
        results.append(result(name, strategy, settings, rows[name], plan))
        if allowed > 1:
            rounds += by_round(name, rows[name], allowed)
    return Report(plan, results, against(rows, plan.baseline, seed=plan.sampling.seed), rounds, matched(rows))


def _run(path: Path, plan: Plan) -> Manifest | None:
    """How a condition was collected; None where it has not begun."""
    if not (path / runs.MANIFEST).exists():
        return None
    run = runs.manifest(path)
    told = {
        "policy": (plan.policy, run.policy),
        "sampling": (plan.sampling, run.sampling),
        "problems": (plan.problems_hash, run.problems_hash),
        "max_tokens": (plan.budget, run.settings.get("max_tokens")),
    }
    if wrong := [f"{name}: {planned} planned, {found} there" for name, (planned, found) in told.items() if planned != found]:
        raise SettingsError(f"{path} is no part of this comparison:\n  " + "\n  ".join(wrong) + "\nMove it elsewhere.")
    return run


def _rows(path: Path, plan: Plan, choose: Choose | None, samples: int) -> list[Row]:
    def wanted(key: Key) -> bool:
        return key.problem_id in plan.domains and key.sample < samples

    return list(read(path, wanted=wanted, choose=choose))


def write(path: Path, done: Report) -> None:
    """The tables as compare.md, the same as data in compare.json. Each is replaced whole."""
    try:
        replace_file(path / MARKDOWN, markdown(done))
        replace_file(path / JSON, json.dumps(done.to_dict(), indent=1) + "\n")
    except OSError as error:
        raise InputError(f"cannot write to {path}: {error.strerror}") from error


def draw(done: Report, chart: Path) -> list[Path]:
    """The chart of accuracy within a token limit, and beside it (`-rounds`) that of the rounds, where there are several.

    Raises SetupError where matplotlib is missing, InputError where the file cannot be written.
    """
    drawn = []
    lines = [
        charts.Line(one.name, tuple(one.curve), one.rate.low, one.rate.high)
        for one in done.conditions
        if one.curve and one.rate.scored
    ]
    if lines:
        charts.accuracy_within(lines, done.plan.budget, chart)
        drawn.append(chart)
    if done.rounds:
        second = chart.with_name(f"{chart.stem}-rounds{chart.suffix}")
        charts.by_round([_points(done.rounds, name) for name in dict.fromkeys(one.condition for one in done.rounds)], second)
        drawn.append(second)
    return drawn


def _points(rounds: Sequence[RoundResult], name: str) -> charts.Rounds:
    own = [one for one in rounds if one.condition == name]
    ways = {way: tuple(one.by[way].accuracy for one in own) for way in own[0].by}
    return charts.Rounds(
        name,
        {way: values for way, values in ways.items() if any(value is not None for value in values)},
        tuple((one.by["last"].low, one.by["last"].high) for one in own),
        tuple(one.spent for one in own),
    )
