"""`toolreason train start`: which commands it runs, what it keeps, and how it goes on. `test_recipe_whole` runs it for real."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolreason.errors import InfrastructureError, InputError, ProblemError, SettingsError, SetupError
from toolreason.options import parse
from toolreason.problems import load
from toolreason.train import recipe_report, recipe_run, recipe_server
from toolreason.train.recipe import Recipe, RecipeSettings, Rollouts, Stage

ROWS = [{"id": str(number), "question": f"What is {number} * 7?", "answer": str(number * 7)} for number in range(10)]
ALL = (
    "plain hinted fresh-base fresh-base-plain curate-start-0 train-start-0 curate-control train-control fresh-control "
    "fresh-control-plain sampled fresh-start-0 curate-start train-start fresh-start"
)


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    file = tmp_path / "problems.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


@pytest.fixture
def recipe(tmp_path: Path, problems: Path) -> Callable[..., Recipe]:
    def made(**settings: Any) -> Recipe:
        return Recipe(parse(RecipeSettings, {"model": "m", "problems": str(problems), **settings}), tmp_path / "out", "/models/m")

    return made


def said(stage: Stage) -> dict[str, Any]:
    """What a stage's command would print."""
    rows = {"rows": 3, "problems": 2, "tool_share": 1.0, "tokens": {}}
    training = {
        "steps": 7,
        "loss": {},
        "held_out_loss": {},
        "duration_s": 1.0,
        "peak_memory_mb": {},
        "device": "cpu",
        "precision": "float32",
    }
    return rows if stage.name.startswith("curate") else training if stage.name.startswith("train") else {"finished": 1}


def everything(recipe: Recipe) -> list[Stage]:
    results: dict[str, Any] = {}
    stages = []
    for stage in recipe.stages(results):
        stages.append(stage)
        results[stage.name] = said(stage)
    return stages


def test_the_stages_are_those_of_the_paper_and_the_controls(recipe: Callable[..., Recipe]) -> None:
    stages = {stage.name: stage for stage in everything(recipe(control="greedy", sft={"lora": 8}))}
    assert " ".join(stages) == ALL
    assert {name: stage.model for name, stage in stages.items() if stage.model not in (None, "base")} == {
        "fresh-control": "control",
        "fresh-control-plain": "control",
        "sampled": "start-0",
        "fresh-start-0": "start-0",
        "fresh-start": "start",
    }
    assert "steps=7" in stages["train-control"].command  # as many updates as START-0
    assert "steps=7" not in stages["train-start"].command
    assert {"lora=8", "merge=true"} <= set(stages["train-start-0"].command)
    words = " ".join(stages["sampled"].command)
    assert "--samples 16 --temperature 0.6 --top-p 0.95" in words
    assert f"transformers:{recipe().out}/models/start-0/model" in words


def test_what_is_left_out_and_what_start_comes_from(recipe: Callable[..., Recipe]) -> None:
    short = [stage.name for stage in everything(recipe(until="start-0"))]
    assert short == ["plain", "hinted", "fresh-base", "curate-start-0", "train-start-0", "fresh-start-0"]
    sampled = {stage.name: stage.command for stage in everything(recipe(control="sampled"))}
    assert any(word.endswith("runs/control-sampled") for word in sampled["curate-control"])

    def start(**settings: Any) -> str:
        command = next(stage.command for stage in everything(recipe(**settings)) if stage.name == "train-start")
        return command[command.index("--model") + 1]

    assert start() == str(recipe().out / "models/start-0/model")
    assert start(again="base") == "/models/m"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"serve": "vllm serve"}, "{model}"),
        ({"serve": "vllm serve {model}"}, "the policy is transformers"),
        ({"policy": "vllm:http://localhost:8000"}, "give serve too"),
        ({"hinted": {"samples": 4}}, "all alike"),
        ({"plain": {"samples": 2, "temperature": 1.0}}, "one plain rollout"),
        ({"sft": {"epoch": 1}}, "sft: no setting 'epoch'"),
        ({"curate": {"max_tokens": 0}}, "curate: "),
        ({"fresh_share": 1.5}, "fresh_share"),
        ({"launch": "accelerate launch", "sft": {"eval": "x.jsonl"}}, "one process"),
        ({"controls": "greedy"}, "no setting 'controls'"),
    ],
)
def test_wrong_settings_are_named(recipe: Callable[..., Recipe], settings: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        recipe(**settings)


def test_nothing_is_trained_without_rows(recipe: Callable[..., Recipe]) -> None:
    results: dict[str, Any] = {"curate-start-0": {"rows": 0}}
    with pytest.raises(InputError, match="no row is left to train start-0"):
        list(recipe().stages(results))


def test_fresh_problems_are_kept_back_and_none_is_learnt_from(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    learn, fresh = recipe_run.split(recipe())
    assert (len(learn), len(fresh)) == (8, 2)
    assert {problem.id for problem in learn} | {problem.id for problem in fresh} == {row["id"] for row in ROWS}
    assert recipe_run.split(recipe(seed=1)) != (learn, fresh)
    other = tmp_path / "fresh.jsonl"
    other.write_text(json.dumps({"id": "new", "question": "what is  3 * 7?", "answer": "21"}) + "\n")
    with pytest.raises(ProblemError, match="1 of the fresh questions"):
        recipe_run.split(recipe(fresh=str(other)))


def test_attachments_come_along(recipe: Callable[..., Recipe], tmp_path: Path, problems: Path) -> None:
    for place in ("a", "b"):  # two files of one name
        (tmp_path / place).mkdir()
        (tmp_path / place / "table.csv").write_text(f"{place},1\n")
    rows = [{**row, "attachments": [f"{'ab'[number % 2]}/table.csv"]} for number, row in enumerate(ROWS)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    one = recipe()
    one.out.mkdir()
    recipe_run.prepare(one)
    for place in ("a", "b"):
        (tmp_path / place / "table.csv").unlink()
    back = [*load(one.problems("learn.jsonl")).problems, *load(one.problems("fresh.jsonl")).problems]
    assert {problem.id: Path(problem.attachments[0]).read_text() for problem in back} == {
        row["id"]: f"{'ab'[number % 2]},1\n" for number, row in enumerate(ROWS)
    }
    assert {Path(problem.attachments[0]).name for problem in back} == {"table.csv"}


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the stages whose commands were run; a report without rollouts."""
    run: list[str] = []

    def pretend(words: list[str], stage: Stage) -> tuple[str, bool]:
        run.append(stage.name)
        return "a warning\n" + json.dumps(said(stage)) + "\n", False

    monkeypatch.setattr(recipe_run, "_said", pretend)
    monkeypatch.setattr(recipe_report.rows, "read", lambda path, wanted: iter(()))
    return run


def quiet(what: str) -> None:
    pass


def test_finished_stages_are_not_run_again(
    recipe: Callable[..., Recipe], commands: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend = recipe_run._said

    def fails(words: list[str], stage: Stage) -> tuple[str, bool]:
        if stage.name == "train-start-0":
            raise InfrastructureError("no memory")
        return pretend(words, stage)

    monkeypatch.setattr(recipe_run, "_said", fails)
    with pytest.raises(InfrastructureError, match="no memory"):
        recipe_run.run(recipe(until="start-0"), quiet)
    assert commands == ["plain", "hinted", "fresh-base", "curate-start-0"]
    monkeypatch.setattr(recipe_run, "_said", pretend)
    report = recipe_run.run(recipe(until="start-0"), quiet)
    assert commands[4:] == ["train-start-0", "fresh-start-0"]
    assert [one["model"] for one in report["fresh"]] == ["base", "start-0"]
    recipe_run.run(recipe(), quiet)  # and it goes on with the second half
    assert commands[6:] == ["sampled", "curate-start", "train-start", "fresh-start"]
    assert "| start |" in (recipe().out / "report.md").read_text()


def test_other_settings_over_the_same_directory_are_refused(
    recipe: Callable[..., Recipe], commands: list[str], problems: Path
) -> None:
    recipe_run.run(recipe(), quiet)
    count = len(commands)
    recipe_run.run(recipe(serve_wait_s=3), quiet)
    assert len(commands) == count
    with pytest.raises(SettingsError, match=r"again: 'start-0' there, 'base' now"):
        recipe_run.run(recipe(again="base"), quiet)
    problems.write_text(problems.read_text().replace("* 7", "* 8"))
    with pytest.raises(SettingsError, match="the problems to learn"):
        recipe_run.run(recipe(), quiet)


@pytest.mark.parametrize(("minds", "ends"), [(True, False), (False, True)])
def test_a_polite_kill_is_passed_on_and_stops_the_recipe_though_the_stage_ends_well(minds: bool, ends: bool) -> None:
    ignore = "" if minds else "signal.signal(signal.SIGTERM, lambda *_: None);"
    words = [sys.executable, "-c", f"import signal, time; {ignore} time.sleep(1.5); print('kept')"]
    threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGTERM)).start()
    if ends:
        assert recipe_run._said(words, Stage("s", ())) == ("kept\n", True)
    else:
        with pytest.raises(recipe_run.Stopped):
            recipe_run._said(words, Stage("s", ()))


SERVER = """
import http.server, os, sys
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
print("serving", *sys.argv[1:], flush=True)
if os.path.isdir(sys.argv[1]):
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), Health).serve_forever()
sys.exit(4)
"""


def test_a_server_for_each_model(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = tmp_path / "server.py"
    program.write_text(SERVER)
    command = shlex.join([sys.executable, str(program)]) + f" {{model}} {port} {{name}}"
    one = recipe(serve=command, policy=f"vllm:http://127.0.0.1:{port}")
    (one.out / "logs").mkdir(parents=True)
    Path(one.place("start-0")).mkdir(parents=True)
    with recipe_server.Server(one, quiet) as server:
        server.serve("start-0")
        first = server.process
        server.serve("start-0")
        assert server.process is first
        assert first is not None
        with pytest.raises(SetupError, match="ended with exit code 4"):
            server.serve("base")  # its directory is not there
        assert first.poll() is not None  # one at a time
        server.serve("start-0")
        with pytest.raises(SetupError, match="answers at"), recipe_server.Server(one, quiet) as other:
            other.serve("base")
    assert not recipe_server.answers(f"http://127.0.0.1:{port}")
    assert f"serving {one.place('start-0')} {port} start-0" in (one.out / "logs/serve-start-0.log").read_text()


def test_rollouts_are_checked() -> None:
    with pytest.raises(SettingsError):
        Rollouts(samples=0)
    with pytest.raises(SettingsError):
        Rollouts(top_p=0)
