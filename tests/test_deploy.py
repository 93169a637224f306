"""The deployment files say what our commands understand. Nothing is deployed: there is no registry and no cluster here."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml

from toolreason.cli import app

DEPLOY = Path(__file__).parent.parent / "examples" / "deploy"


def understood(words: list[str]) -> None:
    """Parse these words as the command would; they are not carried out."""
    command: Any = typer.main.get_command(app)
    context = click.Context(command, info_name="toolreason")
    while isinstance(command, click.Group):
        name, command, words = command.resolve_command(context, words)
        assert command is not None, name
    command.make_context(command.name, words)


def kubernetes() -> dict[tuple[str, str], Any]:
    found = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def test_the_image_starts_a_command_that_is_there() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    entry = next(line for line in lines if line.startswith("ENTRYPOINT"))
    understood(yaml.safe_load(entry.removeprefix("ENTRYPOINT "))[1:])
    assert "USER toolreason" in lines


def test_the_composition_gives_options_that_are_there() -> None:
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    understood(["serve", "--host", "0.0.0.0", *services["reasoner"]["command"]])
    assert services["reasoner"]["depends_on"].keys() < services.keys()


@pytest.mark.parametrize("name", ["reasoner", "sandbox"])
def test_the_cluster_gives_options_that_are_there(name: str) -> None:
    deployment = kubernetes()["Deployment", name]
    container = next(one for one in deployment["spec"]["template"]["spec"]["containers"] if one["name"] == name)
    if name == "reasoner":
        understood(["serve", *container["args"]])
    for command in container.get("command", [])[-1:]:
        for one in command.split("&&"):
            understood(shlex.split(one.replace("exec", ""))[1:])


def test_every_service_of_the_cluster_has_its_deployment() -> None:
    found = kubernetes()
    for kind, name in found:
        if kind == "Service":
            labels = found["Deployment", name]["spec"]["template"]["metadata"]["labels"]
            assert found["Service", name]["spec"]["selector"] == labels
    patience = found["Deployment", "reasoner"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    args = found["Deployment", "reasoner"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert patience > float(args[args.index("--drain") + 1])
