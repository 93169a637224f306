"""Hint-RFT (START, section 3.2): a model learns from right rollouts, hint tokens included, so that it comes to hint itself.

    1. read the rows; those that cannot be trained on are dropped and counted       rows.py
    2. settle the directory: a new run, or the same one to go on with               sft_files.py
    3. train from the last complete checkpoint on, measuring as it goes             sft_trainer.py, sft_callbacks.py
    4. write the result and the report                                              sft_save.py

Prompt and tool tokens are in the context of what is trained, and nothing else: the gradient of the loss with respect to what the
model predicts at their places is exactly zero.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolreason.durable import acquire, release
from toolreason.errors import SettingsError, SetupError
from toolreason.train import curves, rows, sft_files, sft_model, sft_report
from toolreason.train.settings import SftSettings, identity
from toolreason.train.sft_files import Manifest, Metrics
from toolreason.train.sft_model import Base

if TYPE_CHECKING:
    from toolreason.policies.base import Policy
    from toolreason.train.evaluate import Evaluation
    from toolreason.train.rows import Rows
    from toolreason.train.sft_callbacks import Listener

OpenPolicy = Callable[..., AbstractAsyncContextManager["Policy"]]
"""As `toolreason.train.live.live_policy`: (model, tokenizer, *, name)."""


@dataclass(frozen=True, slots=True)
class _Job:
    """One sitting over one directory."""

    out: Path
    base: Base
    rows: Rows
    manifest: Manifest
    settings: SftSettings
    device: str
    listen: Listener
    evaluation: Evaluation | None
    open_policy: OpenPolicy | None


def train(
    data: Sequence[str | Path],
    model: str,
    out: Path | str,
    settings: SftSettings | None = None,
    *,
    evaluation: Evaluation | None = None,
    open_policy: OpenPolicy | None = None,
    listen: Listener = lambda progress: None,
) -> dict[str, Any]:
    """Train `model` on `data` into the directory `out`, or go on with that; the report, as it is kept there.

    The same call over a finished run gives its report again. Raises InputError and SettingsError for data, model or directory that
    do not fit, SetupError for what is missing, KeyboardInterrupt where it was stopped: with a checkpoint of the last step, if a
    second Ctrl-C did not cut that short. Not for use inside an event loop.
    """
    chosen, out = settings or SftSettings(), Path(out).resolve()
    sft_model.require(chosen)
    if evaluation is not None and sft_model.processes() > 1:
        raise SettingsError("rollouts during training are for one process: evaluate afterwards with `toolreason collect`")
    base = sft_model.find(model)
    where = sft_model.device(chosen)
    if (chosen.max_length or 0) > base.fit.context:
        raise SettingsError(f"max_length is {chosen.max_length}, but {model} takes {base.fit.context} tokens at most")
    _tell(listen, "reading the rows")
    read = rows.read(data, base.fit, max_length=chosen.max_length, long=chosen.long, held_out=chosen.held_out, seed=chosen.seed)
    wanted = _manifest(data, base, read, chosen, sft_model.precision(chosen, where))
    with held(out, wanted):
        if (out / sft_files.REPORT).exists():
            return _finished(out, base, chosen)
        return _train(_Job(out, base, read, wanted, chosen, where, listen, evaluation, open_policy))


def _tell(listen: Listener, what: str, *, lasting: bool = False) -> None:
    from toolreason.train.sft_callbacks import Progress

    listen(Progress(what, lasting=lasting))


def _manifest(data: Sequence[str | Path], base: Base, read: Rows, settings: SftSettings, precision: str) -> Manifest:
    return Manifest(
        "sft",
        identity(settings),
        base.name,
        base.digest,
        tuple(str(path) for path in data),
        read.digest,
        precision,
        sft_model.processes(),
        sft_model.versions(),
    )


@contextmanager
def held(out: Path, wanted: Manifest) -> Iterator[None]:
    """Held by this process, and settled. Of several processes the first one does it."""
    if not sft_model.is_first():
        yield
        return
    lock = acquire(out)
    try:
        sft_files.settle(out, wanted)
        yield
    finally:
        release(out, lock)


def _train(job: _Job) -> dict[str, Any]:
    from toolreason.train.sft_save import save

    out, first, checkpoint = job.out, sft_model.is_first(), sft_files.latest(job.out)
    step = None if checkpoint is None else sft_files.step_of(checkpoint)
    if first:
        sft_files.tidy(out, job.settings.keep)
        sft_files.forget_after(out, step)
    metrics = Metrics(out, step, write=first)
    rolled_out = _described(job)
    if checkpoint is None or not _is_last(checkpoint):
        _steps(job, checkpoint, metrics)
        gc.collect()  # the optimizer's part of the memory, before the result is loaded
        checkpoint = sft_files.latest(out)
    if not first:
        return {}
    assert checkpoint is not None  # the last step always leaves one
    written = save(out, checkpoint, job.base.path, job.settings)
    steps = sft_files.step_of(checkpoint)
    report = sft_report.make(job.manifest, job.rows.report, metrics, steps, job.device, written, rolled_out)
    sft_report.keep(out, report)
    with suppress(SetupError):  # without matplotlib there is no chart
        curves.draw([out], out / curves.FILE)
    return report


def _steps(job: _Job, checkpoint: Path | None, metrics: Metrics) -> None:
    """Train from `checkpoint` on, to the end. Raises KeyboardInterrupt where it was stopped."""
    from toolreason.train.sft_callbacks import Keeper, Stopper, Watcher
    from toolreason.train.sft_trainer import build, told

    chosen, base = job.settings, job.base
    with Stopper() as stopper:
        watcher = Watcher(job.out, job.rows.held_out, chosen.eval_every, chosen.batch_size, stopper, job.listen, job.evaluation)
        keeper = Keeper(job.out, metrics, stopper, chosen.keep, job.listen)
        _tell(job.listen, "loading the model")
        options = {"device": job.device, "precision": job.manifest.precision}
        trainer = build(base.path, base.tokenizer, job.rows, chosen, job.out, callbacks=[watcher, keeper], **options)
        watcher.trainer = keeper.trainer = trainer
        watcher.open_policy = _opener(job.open_policy, trainer, base)
        trainer.tokens_seen = 0 if checkpoint is None else sft_files.tokens_seen(checkpoint)
        with told(job.out):
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        if stopper.asked and trainer.state.global_step < trainer.state.max_steps:
            raise KeyboardInterrupt


def _described(job: _Job) -> dict[str, Any]:
    """What is rolled out, with a warning where it is what is trained on."""
    if job.evaluation is None:
        return {}
    found = job.evaluation.describe(set(job.rows.train["problem_id"].to_pylist()))
    if found["known"]:
        what = f"{found['known']} of the {found['problems']} problems to roll out are trained on too"
        _tell(job.listen, f"warning: {what}: what they show is not that it was learnt", lasting=True)
    return found


def _is_last(checkpoint: Path) -> bool:
    """Whether training ended here: the result is all that is missing. (The trainer would go on, past its last step.)"""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return bool(state["global_step"] >= state["max_steps"])


def _opener(given: OpenPolicy | None, trainer: Any, base: Base) -> Callable[[str], AbstractAsyncContextManager[Policy]]:
    def opened(name: str) -> AbstractAsyncContextManager[Policy]:
        if given is not None:
            return given(trainer.model, base.path, name=name)
        from toolreason.train.live import live_policy

        return live_policy(trainer.model, base.path, name=name)

    return opened


def _finished(out: Path, base: Base, settings: SftSettings) -> dict[str, Any]:
    """The report of a run that is finished; merged weights are still made if they are asked for now."""
    report = sft_report.read(out)
    if settings.merge and sft_files.MODEL not in report["out"] and sft_model.is_first():
        from toolreason.train.sft_save import save

        report["out"] = save(out, out, base.path, settings)  # the adapter is there: no checkpoint is looked at
        sft_report.keep(out, report)
    return report
