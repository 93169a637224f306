"""`toolreason train rl`: a model learns from its own rollouts with tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolreason.commands import common, train_common

if TYPE_CHECKING:
    from toolreason.train.rl import SandboxOf, Task
    from toolreason.train.rl_settings import Plan, RlSettings


def rl(
    problems: Annotated[str, typer.Argument(help="What is learned: as for collect.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="A name of `toolreason models`, a directory of safetensors, or a hub id.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The directory to make, or to go on with.")],
    strategy: Annotated[str | None, typer.Option("--strategy", "-s", help="What a rollout is (default artist).")] = None,
    set_: common.SetOption = None,
    rewards: Annotated[
        str | None, typer.Option(metavar="artist|outcome|functions", help="The preset of rewards (default artist).")
    ] = None,
    reward: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=WEIGHT", help="Another weight in it, or package.module:function=WEIGHT. Repeatable."),
    ] = None,
    group: Annotated[int | None, typer.Option(min=2, help="Rollouts of a problem in a step (default 6).")] = None,
    per_step: Annotated[int | None, typer.Option(min=1, help="Problems of a step (default 4).")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Updates (default 100); more of them go on with a run.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default 1e-6, with --lora 1e-5.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the rollouts (default 1).")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The most tokens of a rollout after its prompt.")] = None,
    loss: Annotated[
        str | None, typer.Option(metavar="artist|dapo|dr_grpo|gspo|gppo", help="How tokens are added up (default artist).")
    ] = None,
    lora: Annotated[int | None, typer.Option(metavar="RANK", min=0, help="Train an adapter of this rank (0: all weights).")] = None,
    vllm: Annotated[str | None, typer.Option(metavar="URL", help="A vLLM server that is sent the weights, and samples.")] = None,
    concurrency: Annotated[int | None, typer.Option("--concurrency", "-c", min=1, help="Rollouts in flight (default 64).")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the order of problems and of the draws.")] = None,
    save_every: Annotated[int | None, typer.Option(min=1, help="Steps between two checkpoints (default 10).")] = None,
    report_to: Annotated[
        str | None, typer.Option(metavar="none|tensorboard|trackio|wandb", help="Beside DIR/metrics.jsonl (default none).")
    ] = None,
    eval_: Annotated[
        str | None, typer.Option("--eval", metavar="PROBLEMS", help="Roll these out before, during and after; as for collect.")
    ] = None,
    eval_every: Annotated[int | None, typer.Option(min=0, help="Every so many steps (default 0: before and after only).")] = None,
    eval_limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many problems.")] = None,
    sandbox: Annotated[str | None, typer.Option(help="Where code runs (default docker); as for collect.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file of settings, named as the options are: learning_rate = 2e-6")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="Any setting, e.g. hinted=0.25; an unknown one names all. Repeatable."),
    ] = None,
    json_: common.JsonOption = False,
) -> None:
    """ARTIST's agentic RL: roll out groups with tools, reward the outcome, train on the tokens that the model itself drew.

    Ctrl-C keeps a checkpoint of the step under way, kill -9 the last one: the same command goes on. The result is in DIR/model
    (with --lora in DIR/adapter), every rollout in DIR/rollouts, what was measured in DIR/metrics.jsonl.

    Examples:

        toolreason train rl problems.jsonl -m Qwen/Qwen2.5-7B-Instruct -o models/artist --vllm http://localhost:8000

        toolreason train rl gym:count_primes,gcd:200 -m qwen2.5-coder-0.5b-instruct -o models/rl --lora 16 --rewards outcome

        toolreason train rl problems.jsonl -m models/start -o models/rl --config rl.toml --option resample=true

        toolreason show models/rl/rollouts --verdict wrong
    """
    from toolreason.options import load
    from toolreason.train.rl_settings import RlSettings

    pairs = [*(set_ or ()), *([f"max_tokens={max_tokens}"] if max_tokens else ())]
    given: dict[str, Any] = {
        "strategy": strategy,
        "set": pairs or None,
        "rewards": rewards,
        "reward": reward or None,
        "group": group,
        "problems": per_step,
        "steps": steps,
        "learning_rate": learning_rate,
        "temperature": temperature,
        "loss": loss,
        "lora": lora,
        "vllm": vllm,
        "concurrency": concurrency,
        "seed": seed,
        "save_every": save_every,
        "report_to": report_to,
        "eval": eval_,
        "eval_every": eval_every,
        "eval_limit": eval_limit,
        "sandbox": sandbox,
    }
    chosen = load(RlSettings, config, option or (), **given)
    report = _train(problems, model, out, chosen)
    if not report:  # of several processes the first one tells
        return
    if json_:
        common.print_json(report)
    else:
        _show(report, out)


def _train(source: str, model: str, out: Path, chosen: RlSettings) -> dict[str, Any]:
    from toolreason.commands.collect import load_rows
    from toolreason.train import rl, sft_files
    from toolreason.train.rl_settings import Plan

    plan = Plan.of(chosen)  # what is wrong with a strategy's settings is told before anything is read
    held_out = load_rows(chosen.eval)[0][: chosen.eval_limit] if chosen.eval else []
    task = rl.Task(load_rows(source)[0], source, held_out, chosen.eval or "")
    sandbox = _sandbox(chosen.sandbox, plan, task)
    try:
        with train_common.bar() as bar:
            return rl.train(task, model, out, chosen, sandbox=sandbox, listen=bar)
    except KeyboardInterrupt:
        kept = sft_files.latest(out)
        what = f"step {sft_files.step_of(kept)} is kept in {out}" if kept else "nothing was trained yet"
        common.say(f"stopped: {what}. To go on, give the same command again.")
        raise typer.Exit(common.INTERRUPTED) from None


def _sandbox(name: str, plan: Plan, task: Task) -> SandboxOf | None:
    """Where the rollouts' code runs, those with hints too; None where there is none."""
    ways = [plan.way, *([plan.hints] if plan.hints else ())]
    problems = [*task.problems, *task.evaluated]
    where = {common.sandbox_for(name, way.settings, problems) for way in ways} - {"none"}
    return (lambda sessions: common.sandbox_of(name, sessions)) if where else None


def _show(report: dict[str, Any], out: Path) -> None:
    from rich.table import Table

    shown = Table("", "at first", "at last", box=None, pad_edge=False)
    for name in report["first"]:
        first, last = report["first"][name], report["last"][name]
        if first is not None and last is not None:
            shown.add_row(name, f"{first:.3f}", f"{last:.3f}")
    common.stdout().print(shown)
    common.say(f"{report['steps']} steps in {report['elapsed_s']:.0f} s; {', '.join(report['out'].values())}", "dim")
    common.say(f"look at the rollouts with: toolreason show {out / 'rollouts'}", "dim")
