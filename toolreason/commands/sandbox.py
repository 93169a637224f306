"""`toolreason sandbox`: the image that code runs in."""

from __future__ import annotations

import typer

from toolreason.commands import common

app = typer.Typer(cls=common.Commands, no_args_is_help=True, help="The container image that the model's code runs in.")


@app.callback()
def _group() -> None:
    """The container image that the model's code runs in."""


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
