"""A collection as it runs: in wide, narrow and no terminals; a run that another process writes; an engine that is asked."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner

from toolreason.cli import app
from toolreason.commands import common, watch
from toolreason.engine_counters import Engine, counters
from toolreason.live_view import Board, Follower, fits, line
from toolreason.runs import Manifest, RunWriter
from toolreason.stats import RECENT, Tally
from toolreason.types import (
    Cell,
    CellResult,
    Judgement,
    Outcome,
    Sampling,
    Segment,
    Source,
    StopReason,
    Trajectory,
    Verdict,
    to_json,
)

MANIFEST = Manifest("artist", {"max_tokens": 64}, "scripted", Sampling(), "problems.jsonl", "abc")


def trajectory(problem: str, right: bool = True, answer: str = "42", **more: object) -> Trajectory:
    cell = Cell("c", "1/0", CellResult(Outcome.OK if right else Outcome.ERROR, "42\n"))
    segments = (Segment(Source.MODEL, "x", (1, 2, 3)), Segment(Source.TOOL, "42", (4,), None, cell))
    verdict = Verdict(Judgement.CORRECT if right else Judgement.WRONG, answer)
    one = Trajectory(f"id-{problem}", problem, "artist", "scripted", segments, StopReason.ANSWERED, verdict=verdict)
    return replace(one, **more)  # type: ignore[arg-type]


def shown(board: Board, width: int = 100, height: int = 30) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None, legacy_windows=False)
    console.print(board)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(len(row) <= width for row in text.splitlines())
    return str(text)


def board(tally: Tally, width: int = 100, height: int = 30, said: str = "") -> Board:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True)
    made = Board("artist", console, at_once=4, engine=lambda: said)
    made(tally)
    return made


def tally(*rows: Trajectory, total: int = 20) -> Tally:
    made = Tally(total)
    for row in rows:
        made.add(row)
    return made


def test_it_says_how_far_how_right_how_fast_and_what_ended_last() -> None:
    rows = [
        trajectory("a"),
        trajectory("b", right=False, answer="43"),
        trajectory("c", stop=StopReason.ABORTED, error="the engine died"),
    ]
    text = shown(board(tally(*rows), said="3 run, 1 wait"))
    assert "3/20" in text
    assert "right" in text
    assert "1/2 = 50.0 % (9.5 % to 90.5 %)" in text
    assert "4 rollouts, 13 wait" in text
    assert "1.0 a rollout, 50.0 % failed" in text
    assert "answered 2, aborted 1" in text
    assert "3 run, 1 wait" in text
    assert [row[0] for row in text.splitlines()[-3:]] == ["✓", "✗", "!"]
    assert [row.split("tokens")[1].split() for row in text.splitlines()[-3:]] == [
        ["42"],
        ["43"],
        ["aborted", "the", "engine", "died"],
    ]


def test_a_rate_sinks_where_nothing_ends_any_more_and_a_run_from_before_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    found = tally(trajectory("old"))
    view = board(found)
    assert "nothing has ended since this view began" in shown(view)
    now[0] += 30
    found.add(trajectory("new"))
    view(found)
    assert "2.0 rollouts/min" in shown(view)
    now[0] += 90
    assert "0.5 rollouts/min" in shown(view)
    view(found)
    assert "0.0 rollouts/min" in shown(view)


def test_columns_stand_under_each_other_whatever_the_problems_are_called() -> None:
    rows = [trajectory(name, sample=3) for name in ("a", "素数" * 30, "e\u0301" * 9, "long" * 50)]
    told = [line(row, 80).plain for row in rows]
    assert {cell_len(one.split(" #3")[0]) for one in told} == {2 + 80 // 3 - 3}
    assert all(cell_len(one) <= 80 for one in told)


def test_a_rollout_without_an_answer_tells_why_it_ended_and_what_was_said_last() -> None:
    said = (Segment(Source.MODEL, "Let me\n think", (1,)), Segment(Source.MODEL, "  ", (2,)))
    told = line(trajectory("a", segments=said, stop=StopReason.LENGTH, verdict=None), 100).plain
    assert told.endswith("tokens  length  Let me think")
    assert told.startswith("? a")


@pytest.mark.parametrize(("width", "height"), [(60, 14), (75, 20), (200, 60)])
def test_it_fits_every_terminal_that_it_takes(width: int, height: int) -> None:
    rows = [trajectory("p" * 300, answer="9" * 300) for _ in range(12)]
    lines = shown(board(tally(*rows, total=10**6), width, height, said="x" * 500), width, height).splitlines()
    assert len(lines) < height
    assert sum(row.startswith("✓") for row in lines) == min(RECENT, height - 10)


@pytest.mark.parametrize(
    ("console", "taken"),
    [
        (Console(file=io.StringIO(), width=100, height=30, force_terminal=True), True),
        (Console(file=io.StringIO(), width=50, height=30, force_terminal=True), False),
        (Console(file=io.StringIO(), width=100, height=10, force_terminal=True), False),
        (Console(file=io.StringIO(), width=100, height=30), False),
    ],
)
def test_only_a_terminal_of_some_size_is_taken(console: Console, taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert fits(console) is taken


def test_what_a_model_wrote_does_not_act() -> None:
    text = shown(board(tally(trajectory("\x1b[2Jp\u202e", answer="\x1b]0;owned\x07[bold red]x[/]")), said="\x1b[31m"))
    assert not set("\x1b\x07\u202e") & set(text)
    assert "[bold red]x[/]" in text


def test_a_run_that_grows_is_followed_and_a_torn_line_is_waited_for(tmp_path: Path) -> None:
    with RunWriter.open(tmp_path, MANIFEST) as writer:
        writer.write(trajectory("a"))
    follower = Follower(tmp_path)
    assert follower.read().finished == 1
    whole = to_json(trajectory("b", right=False)) + "\n"
    with (tmp_path / "trajectories.jsonl").open("a") as file:
        file.write(whole[:50])
        file.flush()
        assert follower.read().finished == 1
        file.write(whole[50:] + "nonsense\n" + to_json(trajectory("c")) + "\n")
    found = follower.read()
    assert (found.finished, found.accuracy) == (3, pytest.approx(2 / 3))
    assert (found.resumed, found.sampled) == (1, 6)  # what was there before is no speed of now


def test_a_run_that_is_looked_at_before_its_first_rollout_has_a_speed(tmp_path: Path) -> None:
    with RunWriter.open(tmp_path, MANIFEST) as writer:
        follower = Follower(tmp_path)
        assert follower.read().finished == 0
        writer.write(trajectory("a"))
    assert (follower.read().finished, follower.tally.resumed) == (1, 0)


def test_a_rollout_that_is_done_again_after_it_was_aborted_counts_once(tmp_path: Path) -> None:
    with RunWriter.open(tmp_path, MANIFEST) as writer:
        writer.write(trajectory("a", stop=StopReason.ABORTED, error="gone"))
        follower = Follower(tmp_path)
        assert (follower.read().aborted, follower.tally.finished) == (1, 0)
        writer.write(trajectory("a"))
    assert (follower.read().aborted, follower.tally.finished) == (0, 1)


def test_a_file_that_was_begun_anew_is_read_from_its_beginning(tmp_path: Path) -> None:
    with RunWriter.open(tmp_path, MANIFEST) as writer:
        writer.write(trajectory("a"))
        writer.write(trajectory("b"))
    follower = Follower(tmp_path)
    assert follower.read().finished == 2
    (tmp_path / "trajectories.jsonl").write_text(to_json(trajectory("c")) + "\n")
    assert [one.problem_id for one in follower.read().recent] == ["c"]


def test_watch_prints_it_once_where_there_is_no_terminal(tmp_path: Path) -> None:
    with RunWriter.open(tmp_path / "run", MANIFEST) as writer:
        writer.write(trajectory("a"))
    done = CliRunner().invoke(app, ["watch", str(tmp_path / "run")])
    assert done.exit_code == 0
    assert "1/1 = 100.0 %" in done.output
    assert CliRunner().invoke(app, ["watch", str(tmp_path)]).exit_code == 2


def test_watch_has_a_screen_of_its_own_and_leaves_the_last_state_on_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    console = Console(file=io.StringIO(), width=100, height=30, force_terminal=True, color_system=None)
    monkeypatch.setattr(common, "stdout", lambda: console)
    with RunWriter.open(tmp_path / "run", MANIFEST) as writer:
        writer.write(trajectory("a"))
        looks = iter(["b"])

        def grow(_: float) -> None:
            for name in looks:
                writer.write(trajectory(name, right=False))
                return
            raise KeyboardInterrupt

        monkeypatch.setattr(watch.time, "sleep", grow)
        assert CliRunner().invoke(app, ["watch", str(tmp_path / "run")]).exit_code == 130
    shown, left = console.file.getvalue().split("\x1b[?1049l")  # type: ignore[attr-defined]
    assert "\x1b[?1049h" in shown
    assert "1/2 = 50.0 %" in left
    assert "run: artist, 2 rollouts" in left


METRICS = """# HELP vllm:num_requests_running Running
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
vllm:num_requests_waiting{engine="0"} 2.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.5
vllm:generation_tokens_total{engine="0"} 1000.0
vllm:num_requests_running_more 9
nonsense
"""


def test_a_vllm_servers_counters_are_read() -> None:
    assert counters(METRICS) == {"running": 7.0, "waiting": 2.0, "cache": 0.5, "tokens": 1000.0}
    assert counters("") == {}


class Metrics(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/metrics" else 404)
        self.end_headers()
        self.wfile.write(METRICS.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Metrics) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_a_server_is_asked_beside_the_work_and_one_that_is_none_says_nothing(server: str) -> None:
    for policy, wanted in (
        (f"vllm:{server}/v1", "7 run, 2 wait, cache 50.0 %"),
        ("vllm:http://127.0.0.1:9", ""),
        (f"vllm:{server},{server}/v1", "14 run, 4 wait, cache 50.0 %"),
        ("vllm:http://[", ""),
        ("scripted:x", ""),
    ):
        with Engine(policy) as engine:
            deadline = time.monotonic() + (5 if wanted else 0.5)
            while not engine() and time.monotonic() < deadline:
                time.sleep(0.02)
            assert wanted in engine() if wanted else "run" not in engine()


def test_a_trajectory_that_is_kept_for_the_view_goes_when_others_come() -> None:
    found = tally(*(trajectory(str(number)) for number in range(50)))
    assert [one.problem_id for one in found.recent] == [str(number) for number in range(50 - RECENT, 50)]
    json.dumps(found.summary().to_dict())
