"""What the commands that train share: a progress bar, and the problems that the model in training is tried on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from toolreason.commands import common
from toolreason.commands.collect import load_rows

if TYPE_CHECKING:
    from toolreason.train.evaluate import Evaluation


class Bar:
    """A bar over steps, or over rollouts while these are made. It takes what `toolreason.train` tells of its progress.

    Of several processes that train together the first one shows it.
    """

    def __init__(self) -> None:
        from rich import progress

        from toolreason.train.sft_model import is_first

        text = progress.TextColumn("{task.description} {task.fields[more]}", markup=False)
        columns = (text, progress.BarColumn(), progress.MofNCompleteColumn(), progress.TimeRemainingColumn())
        self.display = progress.Progress(*columns, console=common.stderr(), disable=not is_first())
        self._task = self.display.add_task("starting", total=None, more="")

    def __call__(self, told: Any) -> None:
        if told.lasting:
            self.display.console.print(common.harmless(told.what, "yellow"))
        else:
            self.display.update(self._task, description=told.what, total=told.total, completed=told.done, more=told.more)


@contextlib.contextmanager
def bar() -> Iterator[Bar]:
    shown = Bar()
    with shown.display:
        yield shown


def evaluation(
    source: str | None, strategy: str, pairs: Sequence[str], sandbox: str, *, limit: int | None, concurrency: int
) -> Evaluation | None:
    """What to roll out during training; None without problems. Raises what the settings, problems or sandbox have wrong."""
    if source is None:
        return None
    from toolreason.train.evaluate import Evaluation

    settings = common.settings_of(strategy, pairs)
    problems = load_rows(source)[0][:limit]
    where = common.sandbox_for(sandbox, settings, problems)
    opened = None if where == "none" else lambda sessions: common.sandbox_of(where, sessions)
    return Evaluation(problems, source, strategy, settings, opened, concurrency)
