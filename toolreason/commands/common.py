"""What the commands share: consoles, options, error and signal handling, and the parts a rollout needs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
import typer.core
from rich.console import Console
from rich.text import Text

from toolreason.errors import InputError, SettingsError, SetupError, ToolreasonError

if TYPE_CHECKING:
    from toolreason.execution.base import Sandbox, Sessions
    from toolreason.policies.base import Policy
    from toolreason.strategies.base import Settings
    from toolreason.types import Problem

T = TypeVar("T")
DEFAULT_POLICY = "transformers:qwen2.5-coder-0.5b-instruct"
SPARE = 2  # sessions beyond those of the rollouts, for grading code
INFRASTRUCTURE, INPUT, SETUP, INTERRUPTED = 1, 2, 3, 130

StrategyOption = Annotated[
    str, typer.Option("--strategy", "-s", help="How to reason: plain, artist, hint_infer, uct, or an installed one.")
]
PolicyOption = Annotated[
    str,
    typer.Option("--policy", "-p", help="Who samples: transformers:MODEL, vllm:URL, chat:PROVIDER:MODEL or scripted:FILE.json."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A setting of the strategy, e.g. max_calls=4; an unknown one names all. Repeatable."
    ),
]
TemperatureOption = Annotated[float, typer.Option(help="0 is greedy.")]
TopPOption = Annotated[float, typer.Option(help="Nucleus sampling; 1 is off.")]
TopLogprobsOption = Annotated[
    int, typer.Option(min=0, help="Keep each token's certainty, from so many log-probabilities (vLLM: at most 20). 0: none.")
]
SeedOption = Annotated[int, typer.Option(help="Sample i of a problem draws with this seed + i.")]
SandboxOption = Annotated[
    str,
    typer.Option(
        help="Where code runs: docker (a container each), shared (many in one), the URL of `toolreason sandbox serve`, "
        "local (no boundary: your own machine, for trusted models only), or none."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]


def stdout() -> Console:
    return Console()


def stderr() -> Console:
    return Console(stderr=True)


class Commands(typer.core.TyperGroup):
    """Commands whose expected errors are one red message and an exit code: 1 infrastructure, 2 input, 3 set-up, 130 Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ToolreasonError as error:
            fail(error)
            raise typer.Exit(exit_code(error)) from None
        except (KeyboardInterrupt, asyncio.CancelledError):
            say("interrupted")
            raise typer.Exit(INTERRUPTED) from None


def exit_code(error: ToolreasonError) -> int:
    if isinstance(error, InputError):
        return INPUT
    return SETUP if isinstance(error, SetupError) else INFRASTRUCTURE


def fail(error: ToolreasonError) -> None:
    say(f"error: {error}", "red")


def say(text: str, style: str = "yellow") -> None:
    """A note on stderr; whatever is in it, it does not act."""
    stderr().print(harmless(text, style), soft_wrap=True)


def harmless(text: str, style: str = "") -> Text:
    """Text from anywhere, to print."""
    from toolreason.render import visible

    return Text(visible(text), style)


def print_json(value: Any) -> None:
    """One JSON object on one line of stdout."""
    typer.echo(json.dumps(value, ensure_ascii=True))


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, with a polite kill (SIGTERM) ending the work in the same orderly way as Ctrl-C."""

    async def guarded() -> T:
        task = asyncio.current_task()
        assert task is not None
        with contextlib.suppress(NotImplementedError, RuntimeError):  # not in the main thread
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await main

    return asyncio.run(guarded())


def settings_of(strategy: str, pairs: Iterable[str] | None, **values: object) -> Settings:
    """The settings of the strategy of this name. `values` are options of their own, None where not given."""
    from toolreason.strategies.base import load, parse_settings

    given = [f"{key}={value}" for key, value in values.items() if value is not None]
    settings: Settings = parse_settings(load(strategy).settings, [*(pairs or ()), *given])
    return settings


@dataclass(frozen=True)
class Parts:
    """What a rollout needs, opened."""

    policy: Policy
    sessions: Sessions | None
    verifier: Any
    workshops: Any


@contextlib.asynccontextmanager
async def opened(
    policy: str, sandbox: str, *, concurrency: int = 1, tell: Callable[[str], Any] = lambda what: None
) -> AsyncIterator[Parts]:
    """The policy of this name, the sandbox and a verifier, closed at the end whatever happens."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # we have our own, and two at once garble each other
    from toolreason.policies import open_policy
    from toolreason.tools.workshop import Workshops
    from toolreason.verify import Verifier

    async with contextlib.AsyncExitStack() as stack:
        box: Sandbox | None = None
        sessions: Sessions | None = None
        if sandbox != "none":
            from toolreason.execution import SessionBook

            tell(f"starting the {sandbox} sandbox")
            opened = await stack.enter_async_context(sandbox_of(sandbox, concurrency + SPARE))
            box, sessions = opened, SessionBook(opened)
        tell(f"opening {policy}")
        engine = await open_policy(policy)
        stack.push_async_callback(engine.aclose)
        verifier = await stack.enter_async_context(Verifier(sandbox=box))
        workshops = await stack.enter_async_context(Workshops(box))
        yield Parts(engine, sessions, verifier, workshops)


def sandbox_of(name: str, sessions: int) -> Any:
    """The sandbox that `--sandbox` names, to be entered, with as many sessions at a time. Raises SettingsError."""
    from toolreason.execution import open_sandbox

    if name.startswith(("http://", "https://")):
        return open_sandbox("remote", url=name)
    if name == "shared":
        return open_sandbox("docker", density="shared", max_sessions=sessions)
    return open_sandbox(name, max_sessions=sessions)


def sandbox_for(sandbox: str, settings: Settings, problems: Iterable[Problem]) -> str:
    """`none` where neither the strategy nor the verification runs code, so that `plain` needs no container engine.

    Raises SettingsError for an unknown sandbox, and for `none` where the strategy runs code.
    """
    from toolreason.types import ReferenceKind

    if sandbox not in ("docker", "shared", "local", "none") and not sandbox.startswith(("http://", "https://")):
        raise SettingsError(f"no sandbox {sandbox!r}: there are docker, shared, local, none, and the URL of a sandbox service")
    acts = getattr(settings, "max_calls", 0) > 0 and getattr(settings, "execute", True)
    if acts and sandbox == "none":
        raise SettingsError("this strategy runs code: --sandbox docker (or local), or a strategy that does not, --strategy plain")
    run = (ReferenceKind.CODE, ReferenceKind.CALLS)
    return sandbox if acts or any(p.reference.kind in run for p in problems) else "none"
