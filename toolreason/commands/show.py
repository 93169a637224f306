"""`toolreason show`: what is in a run directory."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolreason.commands import common
from toolreason.errors import InputError, SettingsError

if TYPE_CHECKING:
    from toolreason.types import Judgement, Trajectory

PROMPT_CHARS = 600


def show(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run directory.")],
    id_: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="A trajectory's id, or its beginning; or a problem's id.")
    ] = None,
    verdict: Annotated[str | None, typer.Option(metavar="VERDICT", help="Only these: correct, wrong or unscored.")] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Token ids in place of text.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="The whole prompt, however long, and those of the builder of tools.")
    ] = False,
    svg: Annotated[Path | None, typer.Option(help="Write the trajectory as a picture to this file.")] = None,
    json_: common.JsonOption = False,
) -> None:
    """List the trajectories of a run, or show one in colour by source: prompt, model, hint, tool, error. With a tool library (uct):
    which tools were offered, made, repaired, used and refused, and what their builder said.

    Examples:

        toolreason show runs/first --verdict wrong

        toolreason show runs/first 3f2a

        toolreason show runs/first 3f2a --json

        toolreason show runs/first 3f2a --svg trajectory.svg
    """
    judgement = _judgement(verdict)
    _check(directory)
    if id_ is None:
        _list(directory, judgement, json_)
        return
    one = _one(directory, id_, judgement)
    from toolreason import render
    from toolreason.types import to_json

    if json_:
        from toolreason.failures import to_rows

        common.print_json({**json.loads(to_json(one)), "failures": to_rows(one)})
        return
    picture = render.trajectory(one, prompt_chars=None if full else PROMPT_CHARS, ids=tokens)
    common.stdout().print(picture, soft_wrap=True)
    if svg is not None:
        try:
            render.export_svg(picture, svg, title=one.strategy)
        except OSError as error:
            raise InputError(f"cannot write {svg}: {error.strerror}; name another file with --svg") from error
        common.say(f"picture: {svg}", "dim")


def _judgement(name: str | None) -> Judgement | None:
    from toolreason.types import Judgement

    try:
        return None if name is None else Judgement(name)
    except ValueError:
        raise SettingsError(f"no verdict {name!r}: there are {', '.join(Judgement)}") from None


def _check(directory: Path) -> None:
    """Where `directory` is no run but has some inside, name them."""
    from toolreason.runs import MANIFEST

    if (directory / MANIFEST).exists() or not directory.is_dir():
        return
    if inside := sorted(str(file.parent) for file in directory.glob(f"*/**/{MANIFEST}"))[:10]:
        raise InputError(f"{directory} is no run, but these are: {', '.join(inside)}")


def _list(directory: Path, judgement: Judgement | None, json_: bool) -> None:
    from toolreason import live_view, render, runs

    console, rows = common.stdout(), []
    for one in runs.read(directory, judgement=judgement):
        rows.append(_row(one))
        if not json_:
            told = live_view.line(one, console.width, id_=True) if console.is_terminal else render.headline(one)
            console.print(told, soft_wrap=True)
    if json_:
        common.print_json({"run": _manifest(directory), "trajectories": rows})
    elif not rows:
        common.say(f"{directory} has no trajectory {f'that is {judgement}' if judgement else 'yet'}")
    else:
        counted = "1 trajectory" if len(rows) == 1 else f"{len(rows)} trajectories"
        common.say(f"{counted}; one in full: toolreason show {directory} ID", "dim")


def _manifest(directory: Path) -> dict[str, Any]:
    from dataclasses import asdict

    from toolreason import runs

    return asdict(runs.manifest(directory))


def _row(one: Trajectory) -> dict[str, Any]:
    from dataclasses import asdict

    from toolreason.failures import modes

    return {
        "id": one.id,
        "problem_id": one.problem_id,
        "sample": one.sample,
        "verdict": None if one.verdict is None else one.verdict.judgement.value,
        "answer": None if one.verdict is None else one.verdict.answer,
        "stop": one.stop.value,
        "calls": len(one.cells),
        "tokens": one.tokens(),
        "spent": one.spent,
        "tools": None if one.tooling is None else asdict(one.tooling),
        "faults": list(one.faults),
        "rewards": one.rewards,
        "failures": {name: len(found) for name, found in modes(one).items()},
        "error": one.error,
    }


def _one(directory: Path, wanted: str, judgement: Judgement | None) -> Trajectory:
    """The trajectory whose id begins so, or the first one of the problem of this id."""
    from toolreason import runs

    named = runs.read(directory, judgement=judgement, where=lambda t: t.id.startswith(wanted) or t.problem_id == wanted)
    found = list(islice(named, 6))
    if not found:
        raise InputError(f"{directory} has no trajectory {wanted!r}: list them with toolreason show {directory}")
    exact = [one for one in found if one.id == wanted or one.problem_id == wanted]
    if len(found) > 1 and not exact:
        raise InputError(f"{wanted!r} begins several ids: {', '.join(one.id for one in found)}: give more of it")
    return (exact or found)[0]
