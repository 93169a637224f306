"""The demo: a dozen problems without tools, with a hint and a sandbox, and with the same hint but the code left unexecuted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from toolreason import render, render_tables, runs
from toolreason.collect import collect
from toolreason.runs import Manifest, RunWriter, problems_hash
from toolreason.stats import Paired, Summary, Tally, outcomes, paired
from toolreason.types import Judgement, Problem, Sampling, Trajectory

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from toolreason.execution.base import Sessions
    from toolreason.policies.base import Policy

SAMPLING = Sampling(temperature=0.0)


@dataclass(frozen=True, slots=True)
class Condition:
    name: str
    title: str
    strategy: str
    settings: Mapping[str, Any] = field(default_factory=dict)


CONDITIONS = (
    Condition("plain", "plain: the model reasons, nothing is run", "plain"),
    Condition("hint_infer", "hint_infer: a hint suggests Python, and the sandbox runs it", "hint_infer", {"hint": "start"}),
    Condition(
        "not_executed", "the control: the same hint, but the code is not run", "hint_infer", {"hint": "start", "execute": False}
    ),
)
HINTED = "hint_infer"


class Bar(Protocol):
    def __call__(self, tally: Tally) -> None: ...


@dataclass(frozen=True, slots=True)
class Stage:
    """What the demo runs with. `bar` opens a progress bar with a title."""

    policy: Policy
    sessions: Sessions | None
    verifier: Any
    console: Console
    bar: Callable[[str], AbstractContextManager[Bar]]
    policy_spec: str
    max_tokens: int = 350
    concurrency: int = 12


def problems() -> list[Problem]:
    """The dozen problems that come with the package."""
    from toolreason.problems import load

    with resources.as_file(resources.files("toolreason") / "demo_problems.jsonl") as path:
        return load(str(path)).problems


def fresh(out: Path) -> Path:
    """A directory under `out` that no demo has used, named by the time."""
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    for number in range(1, 1000):
        path = out / (stamp if number == 1 else f"{stamp}_{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise FileExistsError(out)


async def demo(stage: Stage, out: Path, chosen: Sequence[Problem]) -> dict[str, Any]:
    """Run the conditions under `out`, which is new, and show what came of them. Returns it as plain data."""
    summaries = {}
    for condition in CONDITIONS:
        stage.console.print(Rule(Text(condition.title, "bold")))
        summaries[condition.name] = await _run(stage, condition, out / condition.name, chosen)
    found = {name: _by_problem(out / name) for name in summaries}
    against = {name: paired(outcomes(found[HINTED]), outcomes(found[name])) for name in summaries if name != HINTED}
    result = {
        "out": str(out),
        "conditions": {name: one.to_dict() for name, one in summaries.items()},
        "mcnemar": {name: {"only_hinted": p.only_first, "only_other": p.only_second, "p": p.p} for name, p in against.items()},
    }
    (out / "summary.json").write_text(json.dumps(result, indent=2) + "\n")
    _show(stage.console, out, summaries, against, _best(found, streamed=chosen[0].id))
    return result


async def _run(stage: Stage, condition: Condition, path: Path, chosen: Sequence[Problem]) -> Summary:
    """One condition. The first problem's rollout streams; when it has ended, a bar follows the others."""
    from toolreason.rollouts import rollout
    from toolreason.strategies.base import as_dict, load

    settings = load(condition.strategy).settings(**{"max_tokens": stage.max_tokens, **condition.settings})
    view = _First(stage, chosen[0])
    manifest = Manifest(
        condition.strategy, as_dict(settings), stage.policy_spec, SAMPLING, "the demo's problems", problems_hash(chosen)
    )
    with RunWriter.open(path, manifest) as writer, view:
        return await collect(
            chosen,
            strategy=condition.strategy,
            policy=stage.policy,
            sessions=stage.sessions,
            verifier=stage.verifier,
            writer=writer,
            sampling=SAMPLING,
            settings=settings,
            concurrency=stage.concurrency,
            on_progress=view.progress,
            rollout=partial(view.rollout, rollout),
        )


class _First:
    """Shows the rollout of one problem as it comes, and a progress bar from its end on."""

    def __init__(self, stage: Stage, problem: Problem) -> None:
        from contextlib import ExitStack

        self._stage, self._problem = stage, problem
        self._view = render.LiveView(stage.console)
        self._stack = ExitStack()
        self._bar: Bar | None = None
        self._tally: Tally | None = None

    def __enter__(self) -> _First:
        self._stage.console.print(Text(render.visible(self._problem.question), "bold"))
        return self

    def __exit__(self, *error: object) -> None:
        self._view.end()
        self._stack.close()

    def progress(self, tally: Tally) -> None:
        self._tally = tally
        if self._bar:
            self._bar(tally)

    async def rollout(self, rollout: Any, problem: Problem, **given: Any) -> Trajectory:
        if problem is not self._problem:
            done: Trajectory = await rollout(problem, **given)
            return done
        done = await rollout(problem, **given, on_event=self._view)
        self._view.end()
        self._bar = self._stack.enter_context(self._stage.bar("the others, meanwhile"))
        if self._tally:
            self._bar(self._tally)
        return done


def _by_problem(path: Path) -> dict[Any, Trajectory]:
    return {one.problem_id: one for one in runs.read(path)}


def _best(found: Mapping[str, Mapping[Any, Trajectory]], streamed: str) -> Trajectory | None:
    """The hinted trajectory to show: right, with code that ran, preferably where `plain` was not, not yet seen, and short."""

    def rank(one: Trajectory) -> tuple[bool, bool, bool, int]:
        plain = found["plain"].get(one.problem_id)
        ran = any(cell.result.ok for cell in one.cells)
        return not ran, plain is not None and _correct(plain), one.problem_id == streamed, len(one.text)

    return min(filter(_correct, found[HINTED].values()), key=rank, default=None)


def _correct(one: Trajectory) -> bool:
    return one.verdict is not None and one.verdict.judgement is Judgement.CORRECT


def _show(
    console: Console, out: Path, summaries: Mapping[str, Summary], against: Mapping[str, Paired], best: Trajectory | None
) -> None:
    console.print(Rule(Text("one trajectory", "bold")))
    if best is None:
        console.print("no hinted rollout was right this time")
    else:
        console.print(render.trajectory(best), soft_wrap=True)
    console.print(Rule(Text("what came of it", "bold")))
    console.print(render_tables.comparison_table(summaries))
    for name, pairs in against.items():
        console.print(render_tables.paired_text(HINTED, name, pairs))
    console.print(Text(f"\nkept, token for token, in {out}\nlook at them: toolreason show {out / HINTED}"), soft_wrap=True)
