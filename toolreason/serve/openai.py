"""`toolreason serve`: a reasoner behind an OpenAI-style endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import toolreason
from toolreason.errors import SettingsError
from toolreason.execution.base import Sandbox
from toolreason.runs import Manifest, RunWriter
from toolreason.serve.guard import listen, token_of
from toolreason.serve.process import address, asked_to_end, check, run, until
from toolreason.strategies.base import Settings, Strategy, as_dict
from toolreason.types import Sampling

PORT = 8000
KEYS = "TOOLREASON_API_KEYS"
NO_PROBLEMS = "requests"  # the source of a run of what clients asked


@dataclass(frozen=True)
class Model:
    """A way to answer, and the name that clients know it by."""

    name: str
    strategy: Strategy[Any]
    settings: Settings


@dataclass(frozen=True)
class Options:
    """How requests are taken. At most `running` rollouts at a time and `waiting` requests in line; `timeout_s` a request, its
    tokens at most `most_tokens`; `drain_s`: how long what is under way may take to end when the service does. `out`: every
    trajectory is kept there, a run directory a model. `mounts` are other applications by their path, `open_to_all` the paths that
    need no key.
    """

    running: int = 32
    waiting: int = 64
    timeout_s: float = 600.0
    most_tokens: int | None = None
    drain_s: float = 60.0
    out: Path | None = None
    mounts: Mapping[str, Any] = field(default_factory=dict)
    open_to_all: frozenset[str] = frozenset()


def keys_of(file: Path | None) -> tuple[str, ...]:
    """The API keys, a line each in a file, or from the environment with commas between. Raises SettingsError for weak ones."""
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"cannot read the API keys in {file}: {error}") from error
        given = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not given:
            raise SettingsError(f"{file} holds no API key: a line each")
    else:
        given = [key.strip() for key in os.environ.get(KEYS, "").split(",") if key.strip()]
    return tuple(key for one in given if (key := token_of(one)))


def serve(
    models: Sequence[Model],
    policy: str,
    sandbox: Callable[[int], AbstractAsyncContextManager[Sandbox]] | None,
    *,
    host: str = "127.0.0.1",
    port: int = PORT,
    keys: tuple[str, ...] = (),
    options: Options | None = None,
    tell: Callable[[str], Any] = lambda what: print(what, flush=True),
) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what is under way and return. Call it in the main thread, outside any event loop.

    `sandbox` opens one for so many sessions (None: no strategy runs code). Port 0 takes a free one; `tell` gets the address. Raises
    SettingsError for a host beyond this machine without keys, SetupError for what is missing, PolicyError for a server that does
    not answer.
    """
    check()
    with listen(host, port, token=bool(keys)) as listener:
        run(_serve(list(models), policy, sandbox, listener, keys, options or Options(), tell))


async def _serve(
    models: list[Model],
    policy: str,
    sandbox: Callable[[int], AbstractAsyncContextManager[Sandbox]] | None,
    listener: socket.socket,
    keys: tuple[str, ...],
    options: Options,
    tell: Callable[[str], Any],
) -> None:
    from toolreason.execution import SessionBook
    from toolreason.policies import open_policy
    from toolreason.serve.desk import Desk, Served
    from toolreason.serve.openai_app import application
    from toolreason.tools.workshop import Workshops

    with asked_to_end() as ending:
        async with AsyncExitStack() as stack:
            tell(f"opening {policy}")
            engine = await open_policy(policy)
            stack.push_async_callback(engine.aclose)
            box = None
            if sandbox is not None:
                tell("opening the sandbox")
                box = await stack.enter_async_context(sandbox(options.running))
            workshops = await stack.enter_async_context(Workshops(box))
            served = {}
            for one in models:
                writer = None
                if options.out is not None:
                    writer = stack.enter_context(RunWriter.open(options.out / one.name, manifest(one, engine.name), endless=True))
                served[one.name] = Served(one.name, one.strategy, one.settings, writer)
            desk = Desk(
                served,
                engine,
                None if box is None else SessionBook(box),
                workshops,
                running=options.running,
                waiting=options.waiting,
                timeout_s=options.timeout_s,
            )
            app = application(
                desk, keys=keys, most_tokens=options.most_tokens, mounts=options.mounts, open_to_all=options.open_to_all
            )
            who = f"{len(keys)} API keys" if keys else "no API key"
            tell(f"serving {', '.join(served)} on {address(listener)}/v1 with {who}; Ctrl-C finishes what is under way")
            for path in options.mounts:
                tell(f"look at {address(listener)}{path}/")

            async def end() -> None:
                with contextlib.suppress(asyncio.CancelledError):
                    await desk.drain(options.drain_s)

            await until(ending, app, listener, end)


def manifest(model: Model, policy: str) -> Manifest:
    """The run that a model's trajectories are kept as. What clients ask has no hash, and each says its own sampling."""
    return Manifest(
        model.strategy.name, as_dict(model.settings), policy, Sampling(), NO_PROBLEMS, NO_PROBLEMS, version=toolreason.__version__
    )
