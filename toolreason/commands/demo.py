"""`toolreason demo`: see it work."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from toolreason.commands import common
from toolreason.commands.collect import bar


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Each run of the demo makes a directory of its own in this one.")] = Path(
        "runs/demo"
    ),
    policy: common.PolicyOption = common.DEFAULT_POLICY,
    sandbox: common.SandboxOption = "docker",
    max_tokens: Annotated[int, typer.Option(min=1, help="The most tokens of a rollout, model, hint and tool.")] = 350,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, help="Rollouts at a time.")] = 12,
    json_: common.JsonOption = False,
) -> None:
    """A dozen problems, three ways: no tools, a [bold magenta]hint[/] and a sandbox, the same hint with its code not executed.

    The first rollout of each streams in colour. Ends with one whole trajectory and a table of the three. Minutes on two cores.

    Examples:

        toolreason demo

        toolreason demo --policy vllm:http://localhost:8000 --max-tokens 1024
    """
    console = common.stderr() if json_ else common.stdout()

    used: list[Path] = []

    async def show() -> dict[str, Any]:
        from toolreason import demo

        with console.status("starting") as status:

            def tell(what: str) -> None:
                status.update(common.harmless(what))

            async with common.opened(policy, sandbox, concurrency=concurrency, tell=tell) as parts:
                status.stop()
                used.append(demo.fresh(out))  # only now: what is missing on this machine leaves no empty directory
                stage = demo.Stage(parts.policy, parts.sessions, parts.verifier, console, bar, policy, max_tokens, concurrency)
                return await demo.demo(stage, used[0], demo.problems())

    try:
        result = common.run(show())
    except (KeyboardInterrupt, asyncio.CancelledError):
        common.say(f"stopped: what was finished is kept in {used[0]}" if used else "stopped: nothing had begun")
        raise typer.Exit(common.INTERRUPTED) from None
    if json_:
        common.print_json(result)
