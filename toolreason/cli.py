"""The `toolreason` command. Start-up imports no engine: each command imports what it uses when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from toolreason.commands import (
    collect,
    common,
    compare,
    curate,
    demo,
    doctor,
    export,
    models,
    sandbox,
    serve,
    show,
    solve,
    tools,
    train,
    view,
    watch,
)

EXAMPLES = """A language model reasons with tools it runs in a sandbox, every token kept exactly as it was sampled.

Start with:

    toolreason doctor

    toolreason demo

    toolreason solve "What is 2^100 mod 7?"

    toolreason collect problems.jsonl --out runs/first

    toolreason show runs/first --verdict wrong

    toolreason compare problems.jsonl --out runs/compared

    toolreason view runs

    toolreason serve

Exit codes: 0 done, 1 something failed, 2 wrong input, 3 something is missing on this machine, 130 stopped by Ctrl-C.
"""

app = typer.Typer(cls=common.Commands, help=EXAMPLES, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)
app.command()(solve.solve)
app.command()(collect.collect)
app.command()(show.show)
app.command()(compare.compare)
app.command()(export.export)
app.command()(demo.demo)
app.command()(doctor.doctor)
app.command()(serve.serve)
app.command()(view.view)
app.command()(watch.watch)
app.add_typer(curate.app, name="curate")
app.add_typer(models.app, name="models")
app.add_typer(sandbox.app, name="sandbox")
app.add_typer(tools.app, name="tools")
app.add_typer(train.app, name="train")


def _version(wanted: bool) -> None:
    if wanted:
        import toolreason

        typer.echo(f"toolreason {toolreason.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
