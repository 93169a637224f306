"""`toolreason serve`: a tool-using reasoner behind an OpenAI-style endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from toolreason.commands import common

VIEW = "/view"


def serve(
    strategy: common.StrategyOption = "hint_infer",
    policy: common.PolicyOption = common.DEFAULT_POLICY,
    set_: common.SetOption = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME=STRATEGY[,KEY=VALUE...]",
            help="Offer this strategy under this name. Repeatable; default: the strategy's own name.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen. Beyond this machine only with API keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="API keys, a line each; or in the environment's TOOLREASON_API_KEYS, with commas."),
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, help="Rollouts at a time.")] = 32,
    queue: Annotated[int, typer.Option(min=0, help="Requests that may wait; more are told to come again (429).")] = 64,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that a request may take.")] = 600.0,
    most_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens that a request may have (default: as the strategy says).")
    ] = None,
    drain: Annotated[float, typer.Option(min=0, help="Seconds that requests under way have to end, at SIGTERM or Ctrl-C.")] = 60.0,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Keep every trajectory, a run directory a model; shown at /view/."),
    ] = None,
    sandbox: common.SandboxOption = "docker",
) -> None:
    """Serve a reasoner: /v1/chat/completions, /v1/responses, /v1/completions, /v1/models, /health, /metrics.

    Examples:

        toolreason serve --policy vllm:http://localhost:8001

        toolreason serve --model thinker=hint_infer,hint=end --model plain=plain --sandbox shared --out runs/served

        TOOLREASON_API_KEYS=$(openssl rand -hex 32) toolreason serve --host 0.0.0.0
    """
    from toolreason.compare.conditions import parse
    from toolreason.errors import SettingsError
    from toolreason.serve.openai import Model, Options, keys_of
    from toolreason.serve.openai import serve as serve_http
    from toolreason.strategies.base import load

    if model and set_:
        raise SettingsError("--set is for --strategy: give a --model its settings in its own words, NAME=STRATEGY,KEY=VALUE")
    if model:
        named = [parse(one) for one in model]
        chosen = [(one.name, one.strategy, [f"{key}={value}" for key, value in one.settings.items()]) for one in named]
    else:
        chosen = [(strategy, strategy, set_ or [])]
    if len({name for name, _, _ in chosen}) < len(chosen):
        raise SettingsError("two models have one name: give each its own")
    models = [Model(name, load(kind), common.settings_of(kind, pairs)) for name, kind, pairs in chosen]
    boxes = {common.sandbox_for(sandbox, one.settings, ()) for one in models} - {"none"}
    serve_http(
        models,
        policy,
        (lambda sessions: common.sandbox_of(sandbox, sessions)) if boxes else None,
        host=host,
        port=port,
        keys=keys_of(keys),
        options=Options(concurrency, queue, timeout, most_tokens, drain, out, *_viewer(out)),
        tell=common.say,
    )


def _viewer(out: Path | None) -> tuple[dict[str, Any], frozenset[str]]:
    """The pages over what is kept, and those of their paths that tell nothing."""
    if out is None:
        return {}, frozenset()
    from toolreason.serve.process import check
    from toolreason.view.app import application, open_files

    check()
    return {VIEW: application([out])}, open_files(VIEW)
