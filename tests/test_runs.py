"""The run directory: nothing lost, nothing twice, nothing mixed, whatever killed the process before."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image

from tests import pictures
from toolreason import runs
from toolreason.errors import InfrastructureError, InputError, ProblemError, SettingsError
from toolreason.runs import Key, Manifest, RunWriter
from toolreason.types import (
    Environment,
    FunctionTask,
    Judgement,
    Problem,
    Reference,
    Sampling,
    Segment,
    Source,
    StopReason,
    Trajectory,
    UserTurn,
    Verdict,
    to_json,
)

MANIFEST = Manifest("plain", {"max_tokens": 64}, "scripted", Sampling(seed=3), "problems.jsonl", "abc", samples=2)


def trajectory(problem: str, sample: int = 0, *, text: str = "x", stop: StopReason = StopReason.ANSWERED) -> Trajectory:
    segments = (Segment(Source.MODEL, text, (1,), (-0.5,)),)
    return Trajectory(
        f"{problem}-{sample}", problem, "plain", "scripted", segments, stop, sample, verdict=Verdict(Judgement.CORRECT)
    )


def lines(path: Path) -> list[bytes]:
    return (path / "trajectories.jsonl").read_bytes().splitlines(keepends=True)


async def test_what_was_appended_is_read_back_equal(tmp_path: Path) -> None:
    rows = [trajectory("a", text="\u2028 \x1b[31m é"), trajectory("a", 1), trajectory("../../etc/passwd\x00\n")]
    with RunWriter.open(tmp_path / "run", MANIFEST) as writer:
        for row in rows:
            await writer.append(row)
    assert list(runs.read(tmp_path / "run")) == rows
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["run.json", "run.lock", "trajectories.jsonl"]
    assert runs.manifest(tmp_path / "run") == MANIFEST


def test_finished_ones_are_done_and_aborted_ones_are_not(tmp_path: Path) -> None:
    with RunWriter.open(tmp_path, MANIFEST) as writer:
        writer.write(trajectory("a"))
        writer.write(trajectory("b", stop=StopReason.ABORTED))
    with RunWriter.open(tmp_path, MANIFEST) as writer:
        assert writer.done == {Key("a", 0)}
        writer.write(trajectory("b", text="again"))
        assert writer.done == {Key("a", 0), Key("b", 0)}
    assert [(t.problem_id, t.stop, t.text) for t in runs.read(tmp_path)] == [
        ("a", StopReason.ANSWERED, "x"),
        ("b", StopReason.ANSWERED, "again"),
    ]


@pytest.mark.parametrize("torn", [b'{"id": "c", "pro', b"{", b"\x00" * 70_000, b'"complete but never confirmed"'])
def test_a_torn_last_line_is_cut_off_and_nothing_else(tmp_path: Path, torn: bytes) -> None:
    with RunWriter.open(tmp_path, MANIFEST) as writer:
        writer.write(trajectory("a"))
        writer.write(trajectory("b", text="y" * 100_000))
    whole = (tmp_path / "trajectories.jsonl").read_bytes()
    (tmp_path / "trajectories.jsonl").write_bytes(whole + torn)
    assert [t.problem_id for t in runs.read(tmp_path)] == ["a", "b"]  # reading tolerates it and changes nothing
    assert (tmp_path / "trajectories.jsonl").read_bytes() == whole + torn
    with RunWriter.open(tmp_path, MANIFEST) as writer:
        assert writer.done == {Key("a", 0), Key("b", 0)}
        writer.write(trajectory("c"))
    assert (tmp_path / "trajectories.jsonl").read_bytes() == whole + to_json(trajectory("c")).encode() + b"\n"


def test_a_file_that_is_one_torn_line_starts_empty(tmp_path: Path) -> None:
    RunWriter.open(tmp_path, MANIFEST).close()
    (tmp_path / "trajectories.jsonl").write_bytes(b"{" * 200_000)
    with RunWriter.open(tmp_path, MANIFEST) as writer:
        assert writer.done == set()
    assert lines(tmp_path) == []


@pytest.mark.parametrize("damage", [b"{broken\n", b"[]\n", b"{}\n", b"\n", b"\xff\n"])
def test_a_damaged_line_in_the_middle_is_named_and_nothing_is_changed(tmp_path: Path, damage: bytes) -> None:
    with RunWriter.open(tmp_path, MANIFEST) as writer:
        writer.write(trajectory("a"))
        writer.write(trajectory("b"))
    first, second = lines(tmp_path)
    (tmp_path / "trajectories.jsonl").write_bytes(first + damage + second)
    for attempt in (lambda: RunWriter.open(tmp_path, MANIFEST), lambda: list(runs.read(tmp_path))):
        with pytest.raises(InputError, match=r"line 2 is damaged .* sed -i 2d"):
            attempt()
    assert lines(tmp_path) == [first, damage, second]
    (tmp_path / "trajectories.jsonl").write_bytes(first + second)  # what the message says
    RunWriter.open(tmp_path, MANIFEST).close()  # and the failed attempts left no lock


def test_other_settings_are_refused_with_the_difference_and_the_way_out(tmp_path: Path) -> None:
    with RunWriter.open(tmp_path, MANIFEST) as writer:
        writer.write(trajectory("a"))
    before = lines(tmp_path)
    other = replace(MANIFEST, settings={"max_tokens": 65}, sampling=Sampling(seed=4))
    with pytest.raises(SettingsError) as caught:
        RunWriter.open(tmp_path, other)
    message = str(caught.value)
    assert "settings.max_tokens: 64 there, 65 now" in message
    assert "sampling.seed: 3 there, 4 now" in message
    assert "--out" in message
    assert lines(tmp_path) == before
    assert runs.manifest(tmp_path) == MANIFEST


def test_more_samples_of_the_same_problems_elsewhere_are_the_same_run(tmp_path: Path) -> None:
    RunWriter.open(tmp_path, MANIFEST).close()
    RunWriter.open(tmp_path, replace(MANIFEST, samples=9, problems="copy.jsonl", version="2", started="later")).close()


def test_a_run_that_is_older_than_a_setting_goes_on_with_its_default(tmp_path: Path) -> None:
    older = replace(MANIFEST, strategy="artist", settings={"format": "fenced"})
    with RunWriter.open(tmp_path, older) as writer:
        writer.write(trajectory("a"))
    now = {"format": "fenced", "offered": True, "stateful": False}
    RunWriter.open(tmp_path, replace(older, settings=now)).close()
    with pytest.raises(SettingsError, match=r"settings\.offered: True there, False now"):
        RunWriter.open(tmp_path, replace(older, settings=now | {"offered": False}))
    installed_elsewhere = replace(older, strategy="somebody's")
    assert installed_elsewhere.differences(replace(installed_elsewhere, settings=now)) != []


def test_a_run_without_trajectories_takes_new_settings(tmp_path: Path) -> None:
    RunWriter.open(tmp_path, MANIFEST).close()  # and then, say, its model was missing
    other = replace(MANIFEST, policy="another")
    RunWriter.open(tmp_path, other).close()
    assert runs.manifest(tmp_path) == other


def test_trajectories_without_a_manifest_are_not_adopted(tmp_path: Path) -> None:
    (tmp_path / "trajectories.jsonl").write_bytes(b'{"of": "someone else"}\n')
    with pytest.raises(SettingsError, match="name another directory"):
        RunWriter.open(tmp_path, MANIFEST)
    with pytest.raises(InputError, match="holds no run"):
        list(runs.read(tmp_path))


def test_a_path_that_is_a_file_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        RunWriter.open(tmp_path / "file", MANIFEST)


def test_two_writers_exclude_each_other_within_a_process_and_across(tmp_path: Path) -> None:
    code = (
        "import sys; from toolreason.runs import *; from toolreason.types import Sampling\n"
        "m = Manifest('plain', {'max_tokens': 64}, 'scripted', Sampling(seed=3), 'problems.jsonl', 'abc')\n"
        "try: RunWriter.open(sys.argv[1], m).close()\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )

    def elsewhere() -> str:
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    with RunWriter.open(tmp_path, MANIFEST):
        with pytest.raises(SettingsError, match="another collection"):
            RunWriter.open(tmp_path, MANIFEST)
        list(runs.read(tmp_path))  # reading does not drop the lock
        assert "SettingsError" in elsewhere()
    assert elsewhere() == ""


def test_a_worker_that_outlives_its_killed_collection_does_not_keep_the_lock(tmp_path: Path) -> None:
    code = (
        "import os, sys; from toolreason.runs import *; from toolreason.types import Sampling\n"
        "RunWriter.open(sys.argv[1], Manifest('plain', {'max_tokens': 64}, 'scripted', Sampling(seed=3), 'p', 'abc'))\n"
        "if os.fork() == 0:\n"
        "    sys.stdin.read()  # the worker: lives until the test closes the pipe\n"
        "    os._exit(0)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE) as process:
        try:
            assert process.wait(timeout=60) == -9
            RunWriter.open(tmp_path, MANIFEST).close()
        finally:
            assert process.stdin is not None
            process.stdin.close()


async def test_cancelling_an_append_keeps_the_whole_line(tmp_path: Path) -> None:
    with RunWriter.open(tmp_path, MANIFEST) as writer:
        task = asyncio.ensure_future(writer.append(trajectory("a", text="z" * 1_000_000)))
        await asyncio.sleep(0)  # the write is under way or about to be
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert writer.done == {Key("a", 0)}
    assert [t.problem_id for t in runs.read(tmp_path)] == ["a"]


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunWriter.open(tmp_path, MANIFEST) as writer:
        writer.write(trajectory("a"))
        real, room = os.write, [10]

        def nearly_full(file: int, data: bytes) -> int:
            if not room:
                raise OSError(28, "No space left on device")
            return real(file, data[: room.pop()])

        monkeypatch.setattr(os, "write", nearly_full)
        with pytest.raises(InfrastructureError, match="No space left"):
            writer.write(trajectory("b"))
        monkeypatch.undo()
        writer.write(trajectory("c"))
        assert writer.done == {Key("a", 0), Key("c", 0)}
    assert [t.problem_id for t in runs.read(tmp_path)] == ["a", "c"]


def test_readers_can_ask_for_a_verdict(tmp_path: Path) -> None:
    with RunWriter.open(tmp_path, MANIFEST) as writer:
        writer.write(trajectory("a"))
        writer.write(trajectory("b").with_verdict(Verdict(Judgement.WRONG)))
        writer.write(replace(trajectory("c"), verdict=None))
    assert [t.problem_id for t in runs.read(tmp_path, judgement=Judgement.WRONG)] == ["b"]
    assert [t.problem_id for t in runs.read(tmp_path, where=lambda t: t.verdict is None)] == ["c"]


def test_the_hash_of_problems_changes_with_their_content() -> None:
    one, two = Problem("1", "a"), Problem("2", "b")
    assert runs.problems_hash([one, two]) == runs.problems_hash([Problem("1", "a"), two])
    assert len({runs.problems_hash(some) for some in ([one], [two], [one, two], [two, one], [])}) == 5


def test_the_hash_of_problems_is_what_it_was_when_they_had_fewer_fields() -> None:
    told = b'{"kind":"none","answer":"","choices":[],"tests":[],"dataset":"","entry":""}'
    then = b'{"id":"1","question":"a","reference":' + told + b',"domain":"math","attachments":[]}\n'
    assert runs.problems_hash([Problem("1", "a")]) == sha256(then).hexdigest()[:16]
    task = FunctionTask(Environment(("Bank",)), (UserTurn("a"),))
    assert runs.problems_hash([Problem("1", "a", Reference(task=task))]) != runs.problems_hash([Problem("1", "a")])


def test_a_run_is_not_resumed_over_a_picture_that_has_changed(tmp_path: Path) -> None:
    here, there = (Problem("1", "a", attachments=(pictures.save(tmp_path / at / "map.png"),)) for at in ("here", "there"))
    wanted = replace(MANIFEST, problems_hash=runs.problems_hash([here]))
    assert wanted.problems_hash == runs.problems_hash([there])
    assert wanted.problems_hash != runs.problems_hash([Problem("1", "a")])
    with RunWriter.open(tmp_path / "run", wanted) as writer:
        writer.write(trajectory("1"))
    pictures.save(tmp_path / "here" / "map.png", Image.new("RGB", (60, 40)))
    with pytest.raises(SettingsError, match="content or order"):
        RunWriter.open(tmp_path / "run", replace(wanted, problems_hash=runs.problems_hash([here])))
    Path(here.attachments[0]).unlink()
    with pytest.raises(ProblemError, match=r"map\.png cannot be read"):
        runs.problems_hash([here])


async def test_a_run_that_never_ends_remembers_no_key(tmp_path: Path) -> None:
    for _ in range(2):
        with RunWriter.open(tmp_path / "run", MANIFEST, endless=True) as writer:
            await writer.append(trajectory("one"))
            assert not writer.done
    assert len(lines(tmp_path / "run")) == 2
