"""Run the recipe: one command after the other, each in a process of its own, what it printed kept when it has ended well.

DIR/recipe.json          the settings, and a name for the problems
DIR/problems/            learn.jsonl and fresh.jsonl, and their attachments
DIR/stages/NAME.json     a finished stage: its command, its seconds, what it printed
DIR/runs, sets, models   what the stages made
DIR/logs/serve-NAME.log  what the server of a model said
DIR/report.json, .md     what came of it
"""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

from toolreason import problems, runs
from toolreason.durable import acquire, release, replace_file
from toolreason.errors import InfrastructureError, ProblemError, SettingsError, SetupError
from toolreason.train import recipe_report
from toolreason.train.recipe import FRESH, LEARN, LOGS, Recipe, Stage, shown
from toolreason.train.recipe_server import Server, Tell
from toolreason.types import Problem

SETTINGS, STAGES = "recipe.json", "stages"
FREE = ("concurrency", "serve", "serve_wait_s", "launch", "sandbox", "until")  # what makes no other rollout or model


class Stopped(Exception):
    """A stage was interrupted: what it has done is kept."""


def run(recipe: Recipe, tell: Tell) -> dict[str, Any]:
    """Every stage that is not finished, then the report, which is kept in the directory too.

    Raises InputError and SettingsError for what does not fit, InfrastructureError where a stage failed, Stopped where one was
    stopped; the same call goes on from there.
    """
    out = recipe.out
    lock = acquire(out)
    try:
        prepare(recipe)
        results: dict[str, dict[str, Any]] = {}
        with Server(recipe, tell) as server:
            for number, stage in enumerate(recipe.stages(results), 1):
                results[stage.name] = kept(out, stage) or _run(recipe, stage, number, server, tell)
        report = recipe_report.make(recipe, times(out, results), results)
        recipe_report.keep(out, report)
        return report
    finally:
        release(out, lock)


def prepare(recipe: Recipe) -> None:
    """Write the problems and the settings, or see that they are those that are there."""
    learn, fresh = split(recipe)
    settings = json.loads(json.dumps(asdict(recipe.settings)))
    mine = {"settings": settings, "learn": runs.problems_hash(learn), "fresh": runs.problems_hash(fresh)}
    file = recipe.out / SETTINGS
    if file.exists():
        there = json.loads(file.read_text(encoding="utf-8"))
        differ = [
            f"{name}: {there['settings'].get(name)!r} there, {value!r} now"
            for name, value in settings.items()
            if name not in FREE and there["settings"].get(name) != value
        ]
        differ += [f"the problems to {name}" for name in ("learn", "fresh") if there[name] != mine[name]]
        if differ:
            raise SettingsError(
                f"{recipe.out} was begun with other settings; name another directory with --out:\n" + "\n".join(differ)
            )
    for name in ("problems", STAGES, LOGS, "runs", "sets", "models"):
        (recipe.out / name).mkdir(exist_ok=True)
    if not file.exists():
        for name, found in ((LEARN, learn), (FRESH, fresh)):
            problems.dump([with_files(problem, recipe.out / "problems") for problem in found], recipe.problems(name))
    replace_file(file, json.dumps(mine, indent=2) + "\n")


def split(recipe: Recipe) -> tuple[list[Problem], list[Problem]]:
    """The problems to learn from, and those to evaluate on. Raises ProblemError where a question is in both, or one has none."""
    one = recipe.settings
    learn = problems.load(one.problems).problems
    if one.fresh is not None:
        fresh = problems.load(one.fresh).problems
    else:
        places = list(range(len(learn)))
        Random(one.seed).shuffle(places)
        back = set(places[: max(1, round(len(learn) * one.fresh_share))])
        fresh = [problem for place, problem in enumerate(learn) if place in back]
        learn = [problem for place, problem in enumerate(learn) if place not in back]
    for name, found in (("problems", learn), ("fresh", fresh)):
        if not found:
            raise ProblemError(f"no problem is left for {name}")
    words = {" ".join(problem.question.split()).lower() for problem in learn}
    both = [problem.id for problem in fresh if " ".join(problem.question.split()).lower() in words]
    if both:
        raise ProblemError(
            f"{len(both)} of the fresh questions ({both[0]}, ...) are among those to learn from: "
            "what the model makes of them would prove nothing. Take them out of one of the two"
        )
    return learn, fresh


def with_files(problem: Problem, folder: Path) -> Problem:
    """The problem with its attachments copied below `folder`, under their own names: the stages read them there."""
    copies = []
    for file in map(Path, problem.attachments):
        copy = folder / "attachments" / sha256(file.read_bytes()).hexdigest()[:16] / file.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
        copies.append(str(copy))
    return replace(problem, attachments=tuple(copies))


def kept(out: Path, stage: Stage) -> dict[str, Any] | None:
    """What the stage printed, if it has ended well with just this command."""
    with suppress(FileNotFoundError, ValueError, KeyError):
        there = json.loads((out / STAGES / f"{stage.name}.json").read_text(encoding="utf-8"))
        if there["command"] == list(stage.command):
            found: dict[str, Any] = there["result"]
            return found
    return None


def times(out: Path, names: Any) -> dict[str, float]:
    """The seconds of each stage; those of its last sitting, where there were several."""
    return {name: json.loads((out / STAGES / f"{name}.json").read_text(encoding="utf-8"))["seconds"] for name in names}


def _run(recipe: Recipe, stage: Stage, number: int, server: Server, tell: Tell) -> dict[str, Any]:
    tell(f"{number}. {stage.name}: {shown(stage)}")
    if stage.model is not None:
        server.serve(stage.model)
    elif stage.launched:
        server.stop()  # training needs the memory
    began = time.monotonic()
    words = shlex.split(recipe.settings.launch) if stage.launched and recipe.settings.launch else [sys.executable]
    said, stop = _said([*words, "-m", "toolreason", *stage.command], stage)
    try:
        result: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise InfrastructureError(f"the stage {stage.name} printed no result") from error
    line = {"command": list(stage.command), "seconds": round(time.monotonic() - began, 1), "result": result}
    replace_file(recipe.out / STAGES / f"{stage.name}.json", json.dumps(line) + "\n")
    if stop:
        raise Stopped(stage.name)
    return result


def _said(words: list[str], stage: Stage) -> tuple[str, bool]:
    """Run a command to its end; what it printed, and whether we were asked to stop meanwhile. A polite kill of ours is passed on,
    and Ctrl-C reaches it by itself.
    """
    asked = threading.Event()
    try:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    except OSError as error:
        raise SetupError(f"{words[0]} cannot be started for the stage {stage.name}: {error.strerror}") from error
    with _passing_on(process, asked):
        while True:
            try:
                said = process.communicate()[0]
                break
            except KeyboardInterrupt:  # it has heard it too, and is keeping what it has
                asked.set()
    if process.returncode in (130, -signal.SIGINT, -signal.SIGTERM):
        raise Stopped(stage.name)
    if process.returncode:
        raise InfrastructureError(
            f"the stage {stage.name} ended with exit code {process.returncode}; what it says is above. "
            f"What it has done is kept: when that is mended, give the same command again"
        )
    return said, asked.is_set()


@contextmanager
def _passing_on(process: subprocess.Popen[str], asked: threading.Event) -> Iterator[None]:
    def pass_on(number: int, frame: Any) -> None:
        asked.set()
        process.terminate()

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        if process.poll() is None:
            process.kill()
            process.wait()
