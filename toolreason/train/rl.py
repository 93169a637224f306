"""Agentic RL (ARTIST, arXiv 2505.01441): a model learns from its own rollouts with tools, by the outcome.

A step:

    1. every problem of the step is rolled out as a group, with the weights as they are     rollouts.py, rl_step.py
    2. each rollout is judged and rewarded; the group says who is better                    rewards.py, groups.py
    3. the loss, over the tokens that the model itself drew, and an update                  grpo.py, TRL

Directory, beside what `sft_files` says:

    DIR/rollouts      the run of all training rollouts, DIR/evals that of all evaluations: `toolreason show` reads them
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import toolreason
from toolreason import runs
from toolreason.adapters.background import background
from toolreason.durable import replace_file
from toolreason.errors import SettingsError, SetupError
from toolreason.runs import RunWriter
from toolreason.strategies.base import as_dict
from toolreason.train import curves, sft_files, sft_model
from toolreason.train.rl_settings import Plan, RlSettings, identity
from toolreason.train.sft import held
from toolreason.train.sft_files import Manifest, Metrics
from toolreason.train.sft_model import Base
from toolreason.types import Problem

if TYPE_CHECKING:
    from toolreason.train.rl_step import Crew
    from toolreason.train.rollouts import PolicyOf
    from toolreason.train.sft_callbacks import Listener

ROLLOUTS, EVALS = "rollouts", "evals"

SandboxOf = Callable[[int], AbstractAsyncContextManager[Any]]
"""Opens a sandbox for so many sessions at a time."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is learned: problems, and those that show whether it was. `source` and `evaluated_source` are their names."""

    problems: Sequence[Problem]
    source: str
    evaluated: Sequence[Problem] = ()
    evaluated_source: str = ""

    def known(self) -> dict[str, Problem]:
        """By id. Raises SettingsError where an id means two things."""
        found: dict[str, Problem] = {}
        for problem in (*self.problems, *self.evaluated):
            if found.setdefault(problem.id, problem) != problem:
                raise SettingsError(f"two problems have the id {problem.id!r}: give each its own")
        return found


def train(
    task: Task,
    model: str,
    out: Path | str,
    settings: RlSettings | None = None,
    *,
    sandbox: SandboxOf | None = None,
    policy_of: PolicyOf | None = None,
    listen: Listener = lambda progress: None,
) -> dict[str, Any]:
    """Train `model` on `task` in the directory `out`, or go on with that; the report, as it is kept there.

    `sandbox`: where tools run (None: the strategy has none). `policy_of`: another sampler than the settings'. The same call over a
    finished run gives its report again; more `steps` go on with it. Raises InputError and SettingsError for what does not fit,
    SetupError for what is missing, InfrastructureError where every rollout of a step failed, KeyboardInterrupt where it was
    stopped: with a checkpoint of the last step, if a second Ctrl-C did not cut that short. Not for use inside an event loop.
    """
    chosen, out = settings or RlSettings(), Path(out).resolve()
    plan, known = Plan.of(chosen), task.known()
    _check(task, chosen)
    sft_model.require(chosen.shared)
    where = sft_model.device(chosen.shared)
    if chosen.vllm is not None and policy_of is None and sft_model.is_first():
        from toolreason.train.rl_vllm import check_server, check_trainer

        check_server(chosen.vllm, chosen.temperature)
        check_trainer(where)
    base = sft_model.find(model)
    precision = sft_model.precision(chosen.shared, where)
    wanted = Manifest(
        "rl",
        identity(chosen),
        base.name,
        base.digest,
        (task.source,),
        runs.problems_hash(task.problems),
        precision,
        sft_model.processes(),
        sft_model.versions(),
    )
    with held(out, wanted):
        return _train(out, base, task, known, chosen, plan, (where, precision), sandbox, policy_of, listen)


def _check(task: Task, settings: RlSettings) -> None:
    """Raise SettingsError where a step cannot be made of these problems by these processes."""
    if len(task.problems) < settings.problems:
        raise SettingsError(f"a step has {settings.problems} problems, and there are {len(task.problems)}: give problems=...")
    processes = sft_model.processes()
    if settings.problems % processes:
        raise SettingsError(f"{settings.problems} problems cannot be shared by {processes} processes: each has whole groups")
    mine = settings.problems // processes * settings.group
    if mine % (settings.batch_size or settings.group):
        raise SettingsError(f"batch_size {settings.batch_size} does not divide the {mine} rollouts of a process")


def _train(
    out: Path,
    base: Base,
    task: Task,
    known: Mapping[str, Problem],
    settings: RlSettings,
    plan: Plan,
    computed: tuple[str, str],
    sandbox: SandboxOf | None,
    policy_of: PolicyOf | None,
    listen: Listener,
) -> dict[str, Any]:
    from toolreason.train.rl_trainer import Parts, build, sampler
    from toolreason.train.sft_callbacks import Progress, Stopper
    from toolreason.train.sft_trainer import told

    first, checkpoint = sft_model.is_first(), sft_files.latest(out)
    step = None if checkpoint is None else sft_files.step_of(checkpoint)
    if (out / sft_files.REPORT).exists() and step is not None and step >= settings.steps:
        report: dict[str, Any] = json.loads((out / sft_files.REPORT).read_text(encoding="utf-8"))
        return report
    if first:
        sft_files.tidy(out, settings.keep)
        _forget_result(out)
    metrics = Metrics(out, step, write=first)
    if step is None or step < settings.steps:
        with ExitStack() as stack:
            stopper = stack.enter_context(Stopper())
            listen(Progress("starting the sandbox"))
            crews = stack.enter_context(_crews(out, base, task, settings, plan, sandbox))
            listen(Progress("loading the model"))
            parts = Parts(out, base, task, known, settings, plan, *computed, metrics, stopper, listen)
            trainer = build(parts, crews, policy_of or sampler(settings, base), resumed=step is not None)
            with told(out):
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
            if stopper.asked and trainer.state.global_step < settings.steps:
                raise KeyboardInterrupt
    return _finish(out, base, settings, metrics) if first else {}


def _forget_result(out: Path) -> None:
    """What a shorter run had come to."""
    (out / sft_files.REPORT).unlink(missing_ok=True)
    for name in (sft_files.MODEL, sft_files.ADAPTER):
        shutil.rmtree(out / name, ignore_errors=True)


@contextmanager
def _crews(
    out: Path, base: Base, task: Task, settings: RlSettings, plan: Plan, sandbox: SandboxOf | None
) -> Iterator[dict[str, Crew]]:
    """Who rolls out in training and in evaluations, with their directories; sandbox and verifier live in the background."""
    loop, parts = background(), AsyncExitStack()
    try:
        crews = loop.run(_open(parts, plan, sandbox))
        with ExitStack() as stack:
            for mode, name, problems, source, samples in (
                ("train", ROLLOUTS, task.problems, task.source, settings.group),
                ("eval", EVALS, task.evaluated, task.evaluated_source, settings.eval_samples),
            ):
                if problems:
                    rank = "" if sft_model.is_first() else f"-{os.environ['RANK']}"  # one writes a directory
                    way = plan.way
                    wanted = runs.Manifest(
                        way.strategy.name,
                        as_dict(way.settings),
                        f"train:{base.name}",
                        plan.sampling,
                        source,
                        runs.problems_hash(problems),
                        samples,
                        toolreason.__version__,
                    )
                    crews[mode].writer = stack.enter_context(RunWriter.open(out / f"{name}{rank}", wanted))
            yield crews
    finally:
        loop.run(parts.aclose())


async def _open(parts: AsyncExitStack, plan: Plan, sandbox: SandboxOf | None) -> dict[str, Crew]:
    from toolreason.execution import SessionBook
    from toolreason.tools.workshop import Workshops
    from toolreason.train.rl_step import Crew
    from toolreason.verify import Verifier

    box = None if sandbox is None else await parts.enter_async_context(sandbox(plan.concurrency + 2))
    verifier = await parts.enter_async_context(Verifier(sandbox=box))
    workshops = await parts.enter_async_context(Workshops(box))
    sessions = None if box is None else SessionBook(box)
    return {mode: Crew(plan, verifier, sessions, workshops) for mode in ("train", "eval")}


def _finish(out: Path, base: Base, settings: RlSettings, metrics: Metrics) -> dict[str, Any]:
    """Write the weights and the report."""
    from toolreason.train.sft_save import save

    checkpoint = sft_files.latest(out)
    assert checkpoint is not None  # the last step always leaves one
    written = save(out, checkpoint, base.path, settings.shared)
    names = ("reward", "rollout/accuracy", "rollout/calls", "rollout/tokens/model", "entropy", "eval_rollout/accuracy")
    report = {
        "kind": "rl",
        "steps": sft_files.step_of(checkpoint),
        "elapsed_s": round(metrics.elapsed_s, 1),
        "first": {name: metrics.first(name) for name in names},
        "last": {name: metrics.last(name) for name in names},
        "held_out": curves.held_out(metrics.lines),
        "cost": curves.cost(metrics.lines),
        "out": written,
    }
    replace_file(out / sft_files.REPORT, json.dumps(report, indent=1) + "\n")
    with suppress(SetupError):  # without matplotlib there is no chart
        curves.draw([out], out / curves.FILE)
    return report
