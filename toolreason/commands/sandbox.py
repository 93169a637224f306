"""`toolreason sandbox`: the place where code runs: its image, its check, a prompt in it, and ways for others to use it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from toolreason.commands import common, sandbox_check, sandbox_shell, sandbox_stats
from toolreason.errors import SettingsError

HELP = "Where the model's code runs: build the image, check it on your engine, try it, offer it to other programs."
app = typer.Typer(cls=common.Commands, no_args_is_help=True, help=HELP)
app.command()(sandbox_check.check)
app.command()(sandbox_shell.shell)
app.command()(sandbox_stats.stats)

DensityOption = Annotated[str, typer.Option(help="container: one session a container; shared: many, each under its own user id.")]
RuntimeOption = Annotated[str | None, typer.Option(help="Another OCI runtime of the engine, such as runsc.")]


@app.callback()
def _group() -> None:
    """Where the model's code runs."""


@app.command()
def build(json_: common.JsonOption = False) -> None:
    """Build the sandbox's image, from a registry's slim Python or, where none is reachable, from Debian's packages.

    Example: toolreason sandbox build
    """
    from toolreason.execution import image

    errors = common.stderr()
    with errors.status("building the sandbox image") as status:

        def tell(what: str) -> None:
            status.update(common.harmless(what))
            if not errors.is_terminal:  # nothing moves there: a line a step
                errors.print(common.harmless(what))

        built = image.build(tell)
    if json_:
        common.print_json({"image": str(built)})
    else:
        common.say(f"the sandbox image is ready: {built}", "green")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Where to listen. Beyond this machine only with a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8700,
    token: Annotated[
        str | None,
        typer.Option(envvar="TOOLREASON_SANDBOX_TOKEN", help="What clients must show; better in the environment than here."),
    ] = None,
    density: DensityOption = "container",
    runtime: RuntimeOption = None,
    max_sessions: Annotated[int | None, typer.Option(help="Open at a time; 32, or 256 with shared.")] = None,
    idle: Annotated[float, typer.Option(help="Seconds without a call after which a session is ended.")] = 600.0,
) -> None:
    """Offer sandbox sessions over HTTP, for rollouts on another machine: `open_sandbox("remote", url=...)` there.

    Example: toolreason sandbox serve --density shared --port 8700
    """
    from toolreason.serve.sandbox import serve as serve_http

    serve_http(host, port, token, max_sessions=max_sessions, idle_s=idle, tell=common.say, **options(density, runtime))


@app.command()
def mcp(density: DensityOption = "container", runtime: RuntimeOption = None) -> None:
    """Offer one session to an MCP client, over standard input and output: put this command into the client's settings.

    Example: toolreason sandbox mcp
    """
    from toolreason.adapters.mcp import serve as serve_mcp

    serve_mcp(**options(density, runtime))


def options(density: str, runtime: str | None) -> dict[str, Any]:
    if density not in ("container", "shared"):
        raise SettingsError(f"no density {density!r}: there are container and shared")
    return {"density": density, "runtime": runtime}
