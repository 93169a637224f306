"""`toolreason solve`: one question, streamed in colour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from toolreason.commands import common
from toolreason.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from toolreason.strategies.base import Settings
    from toolreason.types import Problem, Sampling, Trajectory


def solve(
    question: Annotated[str, typer.Argument(help="The question, in quotes.")],
    answer: Annotated[str | None, typer.Option(help="The right answer, if you know it: the trajectory is then judged.")] = None,
    strategy: common.StrategyOption = "hint_infer",
    policy: common.PolicyOption = common.DEFAULT_POLICY,
    set_: common.SetOption = None,
    max_tokens: Annotated[int | None, typer.Option(help="The most tokens after the prompt: model, hint and tool.")] = None,
    temperature: common.TemperatureOption = 0.0,
    top_p: common.TopPOption = 1.0,
    seed: common.SeedOption = 0,
    sandbox: common.SandboxOption = "docker",
    json_: common.JsonOption = False,
) -> None:
    """Answer one QUESTION, and watch: the model's text, [bold magenta]hints[/], [cyan]tool output[/], [red]errors[/].

    Examples:

        toolreason solve "How many primes are there below 10000?"

        toolreason solve "What is 7 * 191?" --answer 1337 -s artist --set max_calls=4

        toolreason solve "Factor 1234567." --json > trajectory.json
    """
    from toolreason.types import Problem, Reference, ReferenceKind, Sampling, StopReason, to_json

    if not question.strip():
        raise InputError("the question is empty: write it in quotes")
    settings = common.settings_of(strategy, set_, max_tokens=max_tokens)
    problem = Problem("question", question, Reference(ReferenceKind.MATH, answer) if answer else Reference())
    sampling = Sampling(temperature, top_p, seed=seed)
    console = None if json_ else common.stdout()
    done = common.run(_solve(problem, strategy, policy, settings, sampling, sandbox, console))
    if json_:
        typer.echo(to_json(done))
    if done.stop is StopReason.ABORTED:
        from toolreason.errors import InfrastructureError

        raise InfrastructureError(f"the rollout was aborted: {done.error}. Run `toolreason doctor`, then try again.")


async def _solve(
    problem: Problem, strategy: str, policy: str, settings: Settings, sampling: Sampling, sandbox: str, console: Console | None
) -> Trajectory:
    from rich.rule import Rule

    from toolreason import scaling
    from toolreason.render import LiveView, header
    from toolreason.rollouts import rollout

    sandbox = common.sandbox_for(sandbox, settings, [problem])
    errors = common.stderr()
    view = LiveView(console) if console else None
    with errors.status("starting") as status:
        async with common.opened(policy, sandbox, tell=lambda what: status.update(common.harmless(what))) as parts:
            status.stop()
            done = await rollout(
                problem,
                strategy=strategy,
                policy=parts.policy,
                sessions=parts.sessions,
                sampling=sampling,
                settings=settings,
                workshop=await parts.workshops.of(settings),
                on_event=view,
            )
            if problem.reference.answer:
                done = await scaling.judge(problem, done, parts.verifier)
    if console and view:
        view.end()
        console.print(Rule(style="dim"), header(done))
    return done
