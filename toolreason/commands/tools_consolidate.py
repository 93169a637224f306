"""`toolreason tools consolidate`: a smaller and better library, by a plan that can be read before and undone after."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolreason.commands import common, tools_common, tools_plan
from toolreason.commands.tools_common import DEFAULT, LibraryOption, SandboxOption
from toolreason.errors import InputError

if TYPE_CHECKING:
    from toolreason.execution import Sandbox
    from toolreason.tools.consolidation import ConsolidationSettings
    from toolreason.tools.library import Library
    from toolreason.tools.plan import Plan

OFTEN_S = 0.5  # between two writings of the plan while it is applied, or longer where writing takes long

PolicyOption = Annotated[
    str | None,
    typer.Option(
        "--policy", "-p", help="Who may write one tool for several where none of them stands for all. Default: nobody writes."
    ),
]
PlanOption = Annotated[
    Path | None, typer.Option("--plan", help="The file for the plan. Default: consolidation-TIME.json; none with --dry-run.")
]


def register(app: typer.Typer) -> None:
    app.command()(consolidate)


def consolidate(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and change nothing; --plan keeps it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Apply the plan without asking.")] = False,
    apply: Annotated[
        Path | None, typer.Option("--apply", metavar="PLAN", help="Apply this plan, or the rest of it. Its merges are tried again.")
    ] = None,
    undo: Annotated[Path | None, typer.Option("--undo", metavar="PLAN", help="Take back what this plan did.")] = None,
    health: Annotated[bool, typer.Option("--health", help="Only say how well the library is.")] = False,
    policy: PolicyOption = None,
    unused_days: Annotated[
        float | None, typer.Option(min=0, help="Deprecate tools that were never reused and are older than that. Default: never.")
    ] = None,
    unused_problems: Annotated[
        int | None, typer.Option(min=1, help="... and have seen so many problems go by. Default: never.")
    ] = None,
    tests: Annotated[bool, typer.Option("--tests/--no-tests", help="Whether to run every tool's tests again first.")] = True,
    plan: PlanOption = None,
    library: LibraryOption = DEFAULT,
    sandbox: SandboxOption = "docker",
    json_: common.JsonOption = False,
) -> None:
    """Make the library smaller and better: one tool for several that do the same, tried with the tests of all; categories for those
    without; those that fail their own tests, or that nobody reuses, no longer offered. You see the plan first; nothing is deleted,
    and --undo takes everything back.

    Examples:

        toolreason tools consolidate --dry-run

        toolreason tools consolidate --unused-days 30 --policy vllm:http://localhost:8000

        toolreason tools consolidate --undo consolidation-20260101-120000.json

        toolreason tools consolidate --health
    """
    from toolreason.tools.consolidation import ConsolidationSettings

    if sum((dry_run, health, apply is not None, undo is not None)) > 1:
        raise InputError("--dry-run, --health, --apply and --undo are four different things: give one")
    if undo is not None:
        return _undo(undo, library, json_)
    if apply is not None:
        return _apply(apply, library, sandbox, json_)
    settings = ConsolidationSettings(
        tests=tests, merge=not health, classify=not health, unused_days=unused_days, unused_problems=unused_problems
    )
    if health:
        return _health(library, sandbox, settings, json_)
    if json_ and not (dry_run or yes):
        raise InputError("with --json nobody is asked: give --dry-run, or --yes")
    made = _make(library, sandbox, settings, policy)
    if plan is not None:
        _write(plan, made)
    if not json_:
        tools_plan.show(made)
    if dry_run or not made.steps:
        if json_:
            _print(made, plan)
        return None
    if not yes and not typer.confirm(f"Apply these {len(made.steps)} steps?", err=True):
        common.say("nothing was changed", "dim")
        return None
    file = plan or Path(f"consolidation-{datetime.now(UTC):%Y%m%d-%H%M%S}.json")
    _carry_out(made, file, library, sandbox, json_, trusted=True)
    return None


def _make(library: str, sandbox: str, settings: ConsolidationSettings, policy: str | None) -> Plan:
    """The plan, after all that has to be tried for it."""
    from toolreason.graphs.consolidate import ConsolidateContext, build
    from toolreason.tools.stores import hidden

    async def work(opened: Library, box: Sandbox) -> Plan:
        from toolreason.policies import open_policy

        async with AsyncExitStack() as stack:
            engine = None
            if policy is not None:
                engine = await open_policy(policy)
                stack.push_async_callback(engine.aclose)
            with _bar() as tell:
                context = ConsolidateContext(opened, box, engine, settings, place=hidden(library), tell=tell)
                done = await build().compile().ainvoke({"apply": False}, context=context)
        made: Plan = done["plan"]
        return made

    made: Plan = tools_common.with_both(library, sandbox, work)
    return made


def _apply(file: Path, library: str, sandbox: str, json_: bool) -> None:
    from toolreason.tools.plan import read

    _carry_out(read(file), file, library, sandbox, json_, trusted=False)


def _carry_out(
    plan: Plan,
    file: Path,
    library: str,
    sandbox: str,
    json_: bool,
    *,
    trusted: bool,
) -> None:
    """Apply a plan; the file says at every moment how far it went. `trusted`: what it brings was tried just now, by us."""
    from toolreason.tools import applying

    kept = _Kept(file, plan)

    async def change(opened: Library) -> Plan:
        with _bar() as kept.tell:
            return await applying.apply(opened, plan, keep=kept)

    async def tried(opened: Library, box: Sandbox) -> Plan:
        await applying.check_packages(opened, plan, box)
        return await change(opened)

    with kept:
        if trusted:
            done: Plan = tools_common.with_library(library, change)
        else:
            done = tools_common.with_both(library, sandbox, tried)
        kept(done)
    if json_:
        return _print(done, file)
    how = f"to take them back: toolreason tools consolidate --undo {file}"
    common.say(f"{done.done} of {len(done.steps)} steps are done; {how}", "green")
    return None


def _undo(file: Path, library: str, json_: bool) -> None:
    from toolreason.tools import applying
    from toolreason.tools.plan import Progress, read

    plan = read(file)
    with _Kept(file, plan) as kept:

        async def change(opened: Library) -> Plan:
            return await applying.undo(opened, plan, keep=kept)

        done: Plan = tools_common.with_library(library, change)
        kept(done)
    if json_:
        return _print(done, file)
    undone = sum(step.progress is Progress.UNDONE for step in done.steps)
    common.say(f"{undone} of {len(done.steps)} steps are taken back. To take them again: consolidate --apply {file}", "green")
    return None


def _health(library: str, sandbox: str, settings: ConsolidationSettings, json_: bool) -> None:
    made = _make(library, sandbox, settings, None)
    assert made.before
    if json_:
        common.print_json(tools_plan.shares(made.before))
    else:
        common.stdout().print(tools_plan.health_table({"now": made.before}))


class _Kept:
    """Writes a plan to its file: at once when it is entered, now and then, and at the end whatever happens. `tell` hears how far it
    is.
    """

    def __init__(self, file: Path, plan: Plan) -> None:
        self._file, self._plan, self._next = file, plan, 0.0
        self.tell: Any = lambda what, done, of: None

    def __enter__(self) -> _Kept:
        _write(self._file, self._plan)
        return self

    def __call__(self, plan: Plan) -> None:
        self._plan = plan
        if (now := time.monotonic()) > self._next:
            _write(self._file, plan)
            self._next = time.monotonic() + max(OFTEN_S, 10 * (time.monotonic() - now))
            self.tell("applying", plan.done, len(plan.steps))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        _write(self._file, self._plan)
        if kind is not None and self._plan.done:
            done = f"{self._plan.done} of {len(self._plan.steps)} steps are done"
            common.say(f"{done}, and {self._file} says which: consolidate --apply it for the rest, or --undo it")


def _write(file: Path, plan: Plan) -> None:
    from toolreason.durable import replace_file
    from toolreason.tools.plan import dumps

    try:
        replace_file(file, dumps(plan))
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"the plan cannot be written to {file}: {why}; name another file with --plan") from error


@contextmanager
def _bar() -> Iterator[Any]:
    """A progress bar on stderr: `tell(what, done, of)`."""
    from rich import progress

    columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn())
    with progress.Progress(*columns, progress.TimeElapsedColumn(), console=common.stderr(), transient=True) as shown:
        task = shown.add_task("starting", total=None)
        yield lambda what, done, of: shown.update(task, description=what, completed=done, total=of)


def _print(plan: Plan, file: Path | None) -> None:
    from toolreason.tools.plan import to_json

    common.print_json(to_json(plan) | {"file": str(file) if file else None})
