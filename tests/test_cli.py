"""The commands: what they print where, how they fail, and that Ctrl-C keeps what was finished."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from toolreason import runs
from toolreason.cli import app
from toolreason.types import Judgement, Trajectory, from_json

PLAIN = ("--strategy", "plain")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with two good problems, one bad row, and a policy that always says 4."""
    rows = ['{"id": "a", "question": "2 + 2?", "answer": "4"}', "nonsense", '{"id": "b", "question": "3 + 3?", "answer": "6"}']
    (tmp_path / "p.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "four.json").write_text(json.dumps([r"It is \boxed{4}."] * 20))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TOOLREASON_HOME", str(tmp_path / "home"))
    return tmp_path


def toolreason(*args: str) -> Any:
    return CliRunner().invoke(app, list(args), catch_exceptions=False)


def collected(*more: str) -> Any:
    return toolreason("collect", "p.jsonl", "--out", "run", *PLAIN, "--policy", "scripted:four.json", *more)


def test_help_teaches_with_examples_and_starts_without_engines() -> None:
    code = (
        "import sys; from toolreason.cli import app\n"
        "try: app(['--help'])\n"
        "finally: print(sorted({'torch', 'transformers', 'docker', 'datasets', 'math_verify', 'langgraph'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "120"}
    )
    assert "toolreason demo" in done.stdout
    assert done.stdout.rstrip().endswith("[]")


@pytest.mark.parametrize(
    "command", ["solve", "collect", "show", "compare", "curate", "export", "demo", "doctor", "models", "sandbox", "tools"]
)
def test_every_command_has_help(command: str) -> None:
    done = toolreason(command, "--help")
    assert done.exit_code == 0
    assert "Usage" in done.output


def test_version_is_printed() -> None:
    import toolreason as package

    assert toolreason("--version").stdout == f"toolreason {package.__version__}\n"


def test_collect_reports_keeps_and_resumes(here: Path) -> None:
    done = collected()
    assert done.exit_code == 0, done.output
    assert "1/2 = 50.0 % (9.5 to 90.5)" in done.stdout
    assert "p.jsonl line 2: not JSON" in done.stderr
    assert {t.problem_id: t.verdict.judgement for t in runs.read(here / "run") if t.verdict} == {
        "a": Judgement.CORRECT,
        "b": Judgement.WRONG,
    }
    again = collected("--json")
    summary = json.loads(again.stdout)
    assert (summary["finished"], summary["resumed"], summary["accuracy"]) == (2, 2, 0.5)
    assert summary["bad_rows"] == [{"line": 2, "reason": summary["bad_rows"][0]["reason"]}]
    assert len((here / "run" / "trajectories.jsonl").read_text().splitlines()) == 2


def test_collect_with_other_settings_shows_the_difference_and_loses_nothing(here: Path) -> None:
    collected()
    before = (here / "run" / "trajectories.jsonl").read_bytes()
    done = collected("--set", "max_tokens=77", "--seed", "1")
    assert done.exit_code == 2
    assert "settings.max_tokens: 1024 there, 77 now" in done.stderr
    assert "sampling.seed: 0 there, 1 now" in done.stderr
    assert (here / "run" / "trajectories.jsonl").read_bytes() == before


def test_a_run_of_other_problems_is_not_gone_on_with(here: Path) -> None:
    collected()
    with (here / "p.jsonl").open("a") as file:
        file.write('{"id": "c", "question": "4 + 4?", "answer": "8"}\n')
    done = collected()
    assert done.exit_code == 2
    assert "problems: their content or order is not that of p.jsonl when it was collected" in done.stderr


def test_a_limit_can_be_lifted_later(here: Path) -> None:
    assert collected("--limit", "1").exit_code == 0
    assert json.loads(collected("--json").stdout)["resumed"] == 1


def test_a_policy_that_fails_every_time_gives_exit_code_1_and_no_verdicts(here: Path) -> None:
    (here / "four.json").write_text("[]")
    done = collected("--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["aborted"] == 2
    assert json.loads(done.stdout)["scored"] == 0


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("collect", "none.jsonl", "-o", "run"), 2, "cannot read none.jsonl"),
        (("collect", "p.jsonl", "-o", "p.jsonl", *PLAIN), 2, "name another directory"),
        (("collect", "p.jsonl", "-o", "run", "-s", "guess"), 2, "no strategy 'guess'; there are"),
        (("collect", "p.jsonl", "-o", "run", *PLAIN, "--set", "turns=1"), 2, "keys are: max_tokens"),
        (("collect", "p.jsonl", "-o", "run", *PLAIN, "--temperature", "99"), 2, "outside 0 to 10"),
        (("collect", "p.jsonl", "-o", "run", *PLAIN, "--sandbox", "chroot"), 2, "there are docker, shared, local, none"),
        (("collect", "p.jsonl", "-o", "run", *PLAIN, "-p", "scripted:none.json"), 2, "none.json"),
        (("collect", "p.jsonl", "-o", "run", "--sandbox", "none"), 2, "runs code: --sandbox docker"),
        (("solve", " ", *PLAIN, "-p", "scripted:four.json"), 2, "the question is empty"),
        (("solve", "hi", *PLAIN, "-p", "oracle"), 2, "unknown policy 'oracle'"),
        (("solve", "hi", *PLAIN, "-p", "scripted:none.json"), 2, "cannot read the replies in none.json: No such file"),
        (("solve", "hi", *PLAIN, "-p", "vllm:http://127.0.0.1:9"), 1, "Start one, `vllm serve MODEL`"),
        (("solve", "hi", *PLAIN, "--set", "max_tokens=many"), 2, "max_tokens: Input should be a valid integer"),
        (("solve", "hi", *PLAIN), 3, "toolreason models pull qwen2.5-coder-0.5b-instruct"),
        (("show", "run"), 2, "holds no run"),
        (("show", "p.jsonl"), 2, "holds no run"),
        (("show", ".", "--verdict", "maybe"), 2, "there are correct, wrong, unscored"),
        (("models", "verify", "gpt"), 2, "no model is named 'gpt'"),
        (("models", "pull", "gpt"), 2, "no model is named 'gpt'"),
        (("collect", "p.jsonl"), 2, "--out"),
    ],
)
def test_errors_are_one_message_with_the_fix_and_an_exit_code(here: Path, args: tuple[str, ...], code: int, message: str) -> None:
    done = toolreason(*args)
    assert done.exit_code == code, done.output
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.output
    assert done.stdout == ""


@pytest.mark.parametrize("json_", [(), ("--json",)])
def test_a_missing_engine_is_named_with_its_fix(here: Path, monkeypatch: pytest.MonkeyPatch, json_: tuple[str, ...]) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    done = toolreason("solve", "hi", "-p", "scripted:four.json", *json_)
    assert (done.exit_code, done.stdout) == (3, "")
    assert "no container engine answers at unix:///nonexistent: start Docker" in done.stderr


def test_what_runs_no_code_needs_no_engine(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent")
    assert toolreason("solve", "hi", *PLAIN, "-p", "scripted:four.json").exit_code == 0
    assert toolreason("solve", "hi", "--set", "execute=false", "-p", "scripted:four.json").exit_code == 0
    assert toolreason("solve", "hi", "-s", "plain", "--sandbox", "none", "-p", "scripted:four.json").exit_code == 0


def test_bad_rows_are_named_by_line_and_reason_and_only_they_are_left_out(here: Path) -> None:
    rows = ['{"id": "a"}', '{"id": "b", "question": "2 + 2?", "answer": "4"}', '{"id": "b", "question": "2 + 2?"}', "[]"]
    (here / "p.jsonl").write_text("\n".join(rows) + "\n")
    done = collected("--json")
    assert done.exit_code == 0
    assert [row["line"] for row in json.loads(done.stdout)["bad_rows"]] == [1, 3, 4]
    for told in ("line 1: no question", "line 3: duplicate id 'b', first on line 2", "line 4: a row is a JSON object"):
        assert told in done.stderr
    (here / "p.jsonl").write_text("nonsense\n")
    none = toolreason("collect", "p.jsonl", "--out", "other", *PLAIN, "--policy", "scripted:four.json")
    assert none.exit_code == 2
    assert "no row that can be read" in none.stderr


def test_an_empty_list_says_why_it_is_empty(here: Path) -> None:
    toolreason("collect", "p.jsonl", "--out", "run", *PLAIN)  # stopped by the missing model
    assert "run has no trajectory yet" in toolreason("show", "run").stderr
    collected()
    assert "run has no trajectory that is unscored" in toolreason("show", "run", "--verdict", "unscored").stderr
    assert json.loads(toolreason("show", "run", "--verdict", "unscored", "--json").stdout)["trajectories"] == []
    assert "1 trajectory;" in toolreason("show", "run", "--verdict", "wrong").stderr


@pytest.mark.parametrize(
    "args",
    [
        ("collect", "p.jsonl", "-o", "run", *PLAIN, "-p", "scripted:four.json"),
        ("solve", "2 + 2?", *PLAIN, "-p", "scripted:four.json"),
        ("show", "run"),
        ("show", "run", "a"),
        ("models", "list"),
    ],
)
def test_json_is_one_object_on_one_line(here: Path, args: tuple[str, ...]) -> None:
    if args[0] == "show":
        collected()
    out = toolreason(*args, "--json").stdout
    assert out.count("\n") == 1
    assert isinstance(json.loads(out), dict)


def test_show_lists_filters_and_finds_by_the_beginning_of_an_id(here: Path) -> None:
    collected()
    wrong = json.loads(toolreason("show", "run", "--verdict", "wrong", "--json").stdout)
    assert [row["problem_id"] for row in wrong["trajectories"]] == ["b"]
    identity = wrong["trajectories"][0]["id"]
    one = from_json(Trajectory, toolreason("show", "run", identity[:12], "--json").stdout)
    assert (one.id, one.problem_id) == (identity, "b")
    shown = toolreason("show", "run", identity[:12]).stdout
    assert r"It is \boxed{4}." in shown
    assert "3 + 3?" in shown
    assert "wrong (4)" in toolreason("show", "run").stdout
    assert " ".join(map(str, one.segments[-1].token_ids)) in toolreason("show", "run", "b", "--tokens").stdout
    assert toolreason("show", "run", "zzz").exit_code == 2
    assert "these are: run" in toolreason("show", ".").stderr


def test_show_writes_a_picture(here: Path) -> None:
    collected()
    assert toolreason("show", "run", "a", "--svg", "a.svg").exit_code == 0
    assert "<svg" in (here / "a.svg").read_text()
    done = toolreason("show", "run", "a", "--svg", "nowhere/a.svg")
    assert done.exit_code == 2
    assert "cannot write nowhere/a.svg: No such file or directory" in done.stderr


def test_hostile_problems_cannot_act_on_the_terminal_or_leave_the_run_directory(here: Path) -> None:
    evil = "\x1b]0;owned\x07[red]../../x"
    (here / "p.jsonl").write_text(json.dumps({"id": evil, "question": evil, "answer": "4"}) + "\n")
    done = collected()
    shown = toolreason("show", "run").stdout + toolreason("show", "run", evil).stdout + done.output
    assert "\x1b" not in shown
    assert "[red]../../x" in shown
    assert sorted(p.name for p in here.iterdir()) == ["four.json", "p.jsonl", "run"]


def test_solve_streams_and_judges(here: Path) -> None:
    done = toolreason("solve", "2 + 2?", "--answer", "4", *PLAIN, "-p", "scripted:four.json", "--max-tokens", "50")
    assert done.exit_code == 0, done.output
    assert r"It is \boxed{4}." in done.stdout
    assert "correct (4)" in done.stdout


def test_solve_json_is_the_trajectory_and_nothing_else(here: Path) -> None:
    done = toolreason("solve", "2 + 2?", *PLAIN, "-p", "scripted:four.json", "--json")
    one = from_json(Trajectory, done.stdout)
    assert one.response.startswith(r"It is \boxed{4}.")
    assert one.verdict is None


def test_solve_says_that_a_failed_engine_is_no_answer(here: Path) -> None:
    (here / "four.json").write_text("[]")
    done = toolreason("solve", "2 + 2?", *PLAIN, "-p", "scripted:four.json")
    assert done.exit_code == 1
    assert "aborted" in done.stderr


def test_a_demo_that_cannot_start_says_why_and_leaves_no_directory(here: Path) -> None:
    done = toolreason("demo", "--sandbox", "none")
    assert done.exit_code == 3
    assert "toolreason models pull" in done.stderr
    assert not (here / "runs").exists()


def test_models_lists_what_is_here(here: Path) -> None:
    rows = json.loads(toolreason("models", "list", "--json").stdout)["models"]
    assert "smollm2-135m-instruct" in {row["name"] for row in rows}
    assert not any(row["here"] for row in rows)


def test_doctor_gives_the_fix_of_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from toolreason import doctor

    rows = [doctor.Check("engine", False, "[none]", "make engine"), doctor.Check("vllm", False, "absent", optional=True)]
    monkeypatch.setattr(doctor, "checks", lambda: rows)
    done = toolreason("doctor")
    assert done.exit_code == 3
    assert "make engine" in done.stdout
    assert "[none]" in done.stdout
    assert json.loads(toolreason("doctor", "--json").stdout)["ok"] is False
    monkeypatch.setenv("COLUMNS", "60")
    rows[1] = doctor.Check("vllm", False, "/a/long/path" * 9, "a command of many words " * 9, optional=True)
    assert "…" not in toolreason("doctor").stdout
    monkeypatch.setattr(doctor, "checks", lambda: rows[1:])
    assert toolreason("doctor").exit_code == 0


def wait_for_lines(path: Path, process: subprocess.Popen[str], least: int) -> None:
    deadline = time.monotonic() + 50
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= least:
            return
        time.sleep(0.05)
    raise AssertionError(f"no {least} lines in {path}; exit code {process.poll()}")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_collection_says_what_is_kept_and_goes_on_later(here: Path, how: signal.Signals) -> None:
    count = 4000  # far more than is done before the signal
    (here / "p.jsonl").write_text(
        "".join(json.dumps({"id": f"p{i}", "question": "2?", "answer": "4"}) + "\n" for i in range(count))
    )
    (here / "four.json").write_text(json.dumps([r"It is \boxed{4}."] * count))
    command = [sys.executable, "-m", "toolreason.cli", "collect", "p.jsonl", "-o", "run", *PLAIN, "-p", "scripted:four.json"]
    log = here / "run" / "trajectories.jsonl"
    with (
        (here / "err.txt").open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True) as process,
    ):
        try:
            wait_for_lines(log, process, 3)
            os.killpg(process.pid, how)  # as a terminal does: the workers get it too
            out, _ = process.communicate(timeout=50)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    told = (here / "err.txt").read_text()
    assert process.returncode == 130, told
    assert out == ""
    assert "Traceback" not in told
    kept = log.read_bytes()
    lines = len(kept.splitlines())
    assert f"{lines} finished rollouts are kept in run" in told
    assert "same command again" in told
    done = collected("--limit", str(lines + 2), "--json")
    assert json.loads(done.stdout)["finished"] == lines + 2
    assert log.read_bytes().startswith(kept)


@pytest.mark.docker
def test_ctrl_c_while_cells_run_ends_soon_and_leaves_no_container(here: Path) -> None:
    from toolreason.execution.engine import Engine

    (here / "p.jsonl").write_text("".join(json.dumps({"id": f"p{i}", "question": "?"}) + "\n" for i in range(50)))
    (here / "sleep.json").write_text(json.dumps(["import time\ntime.sleep(60)\n```\n"] * 500))
    command = [
        sys.executable,
        "-m",
        "toolreason.cli",
        "collect",
        "p.jsonl",
        "-o",
        "run",
        "-s",
        "hint_infer",
        "-p",
        "scripted:sleep.json",
    ]
    client = Engine.find().client(timeout_s=30)
    with (
        (here / "err.txt").open("w") as errors,
        subprocess.Popen([*command, "-c", "2"], stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True) as process,
    ):

        def containers() -> int:
            return len(client.containers.list(filters={"label": f"toolreason.sandbox.pid={process.pid}"}, ignore_removed=True))

        try:
            deadline = time.monotonic() + 40
            while containers() < 2:
                assert process.poll() is None, (here / "err.txt").read_text()
                assert time.monotonic() < deadline, "no container started"
                time.sleep(0.2)
            os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=50)
            left = containers()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            client.close()
    assert process.returncode == 130, (here / "err.txt").read_text()
    assert left == 0
