"""What goes on beside the steps: metrics, checkpoints, measuring, stopping. Imports torch and transformers: load it late."""

from __future__ import annotations

import asyncio
import math
import random
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self

import numpy
import torch
from transformers import TrainerCallback

from toolreason.errors import InfrastructureError
from toolreason.stats import Tally
from toolreason.train import evaluate, sft_files
from toolreason.train.evaluate import Evaluation, PolicyOf
from toolreason.train.sft_files import Metrics
from toolreason.train.sft_loss import losses


@dataclass(frozen=True, slots=True)
class Progress:
    """What is being done, how much of it is done, and its latest figures as text. `lasting`: it has to stay readable."""

    what: str
    done: int = 0
    total: int | None = None
    more: str = ""
    lasting: bool = False


Listener = Callable[[Progress], None]


class Stopper:
    """The first Ctrl-C (or SIGTERM) asks for an end after the step under way, a second one ends at once."""

    def __init__(self) -> None:
        self.asked = False
        self.cancel: Callable[[], object] | None = None  # ends what would hold up the step
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: set by what is not Python

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if self.cancel is not None:
            self.cancel()


class Keeper(TrainerCallback):
    """Writes metrics, says when a checkpoint is complete, tells how far it is, and stops where it was asked to."""

    def __init__(self, out: Path, metrics: Metrics, stopper: Stopper, keep: int, listen: Listener) -> None:
        self._out, self._metrics, self._stopper, self._keep, self._listen = out, metrics, stopper, keep, listen
        self.trainer: Any = None

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        values = {key: value for key, value in (logs or {}).items() if key != "total_flos"}
        if "train_runtime" in values:  # of this sitting only
            return
        self._metrics.add(state.global_step, values)
        for name in ("loss", "grad_norm"):
            if not math.isfinite(values.get(name, 0.0)):
                raise InfrastructureError(
                    f"{name} is {values[name]} at step {state.global_step}: the weights are lost, the last checkpoint is not. "
                    "Train into another directory with a lower learning rate"
                )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        loss = self._metrics.last("loss")
        more = "" if loss is None else f"loss {loss:.3f}"
        self._listen(Progress("training", state.global_step, state.max_steps, more))
        if self._stopper.asked:
            control.should_save = control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.accelerator.wait_for_everyone()  # each process writes a part
        if state.is_world_process_zero:
            checkpoint = self._out / sft_files.CHECKPOINTS / f"{sft_files.PREFIX}{state.global_step}"
            sft_files.complete(checkpoint, self._keep, self.trainer.tokens_seen)


class Watcher(TrainerCallback):
    """Measures before the first step, every so many steps and after the last: the held-out loss, and rollouts of held-out problems.

    What is measured changes nothing of what is trained: modes and random numbers are put back.
    """

    def __init__(
        self,
        out: Path,
        held_out: Any,
        every: int,
        batch_size: int,
        stopper: Stopper,
        listen: Listener,
        evaluation: Evaluation | None = None,
    ) -> None:
        self._out, self._held_out, self._every, self._batch_size = out, held_out, every, batch_size
        self._stopper, self._listen, self._evaluation = stopper, listen, evaluation
        self.trainer: Any = None
        self.open_policy: PolicyOf | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:
            self._measure(state)
            if self._stopper.asked:
                raise KeyboardInterrupt  # nothing is trained yet

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        due = state.global_step >= state.max_steps or (self._every and state.global_step % self._every == 0)
        if due and not self._stopper.asked:
            self._measure(state)

    def _measure(self, state: Any) -> None:
        values: dict[str, Any] = {}
        with same_draws():
            if self._held_out.num_rows:
                self._listen(Progress("measuring the held-out loss", state.global_step, state.max_steps))
                found = losses(self.trainer, self._held_out, self._batch_size)
                values = {"eval_loss" if name == "all" else f"eval_loss_{name}": value for name, value in found.items()}
            if self._evaluation is not None:
                values |= {f"eval_{name}": value for name, value in self._roll_out(self._evaluation, state).items()}
        if values:
            self.trainer.note({key: value for key, value in values.items() if value is not None})

    def _roll_out(self, plan: Evaluation, state: Any) -> dict[str, Any]:
        """What the rollouts measured; nothing where they were stopped. A set-up that fails is an error at the first time only: it
        is no reason to lose a training under way.
        """
        step, total = state.global_step, state.max_steps
        name, directory = f"{self._out.name}@{step}", self._out / sft_files.EVALUATIONS / f"step-{step:06d}"

        def tell(tally: Tally) -> None:
            right = "" if tally.accuracy is None else f"{100 * tally.accuracy:.0f} % right"
            self._listen(Progress(f"rolling out at step {step} of {total}", tally.finished + tally.aborted, tally.total, right))

        async def work() -> Any:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None
            assert self.open_policy is not None
            self._stopper.cancel = lambda: loop.call_soon_threadsafe(task.cancel)
            try:
                return await evaluate.evaluate(plan, self.open_policy, name, directory, on_progress=tell)
            finally:
                self._stopper.cancel = None

        try:
            return evaluate.measures(asyncio.run(work()))
        except asyncio.CancelledError:
            if not self._stopper.asked:
                raise
            shutil.rmtree(directory, ignore_errors=True)  # a part of the problems is no sample of them
            return {}
        except InfrastructureError as error:
            if step == 0:
                raise
            self._listen(Progress(f"the rollouts at step {step} failed: {error}", step, total, lasting=True))
            return {"failed": 1.0}


@contextmanager
def same_draws() -> Iterator[None]:
    """Random numbers afterwards are those that would have come before."""
    states = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(states[0])
        numpy.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
