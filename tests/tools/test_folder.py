"""A library as a folder: its tests run by themselves, it comes back the same, and what was changed or forged is tried."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.tools import samples
from toolreason.errors import InputError
from toolreason.execution import ScriptedSandbox
from toolreason.execution.base import Sandbox
from toolreason.tools import exchange, folder
from toolreason.tools.admission import Admission, admit
from toolreason.tools.library import Library, open_library
from toolreason.tools.package import Status, Ticket, Use


@pytest.fixture
async def library() -> AsyncIterator[Library]:
    """With three tools on offer, one of them no more, and a candidate; put there without a trial, which other tests are for."""
    async with open_library("memory") as opened:
        for package in (
            samples.square(category="numbers"),
            samples.cube(),
            samples.digits(ticket=Ticket("counts", problem_id="p1")),
        ):
            await opened.add(package)
            await opened.set_status(package.name, Status.ADMITTED, "tried")
        await opened.record(Use("square@1", "p2", True, 0.5, 10))
        await opened.set_status("cube", Status.DEPRECATED, "nobody uses it")
        await opened.add(
            samples.digits(samples.CODE.replace("digit_counts", "other"), samples.TESTS.replace("digit_counts", "other"))
        )
        yield opened


def said(place: Path, command: list[str]) -> str:
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=120)
    return done.stdout + done.stderr


async def taken(library: Library, path: Path, sandbox: Sandbox) -> dict[str, tuple[Admission, bool]]:
    return {one.package.name: (one, new) async for one, new in exchange.import_(library, path, sandbox, by="import")}


async def test_the_folder_is_a_package_whose_tests_run_by_themselves(library: Library, tmp_path: Path) -> None:
    written = await exchange.export(library, tmp_path / "lib")
    assert [one.name for one in written] == ["cube", "digit_counts", "square"]  # no candidate
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    assert "7 passed" in await asyncio.to_thread(said, tmp_path / "lib", command)
    code = "from toolbox import cube, square; print(cube(2) + square(1))"
    assert await asyncio.to_thread(said, tmp_path / "lib", [sys.executable, "-c", code]) == "9\n"
    index = json.loads((tmp_path / "lib" / "tools.json").read_text())
    entries = {entry["name"]: entry for entry in index["tools"]}
    assert entries["cube"]["status"] == "deprecated"
    assert entries["digit_counts"]["ticket"]["problem_id"] == "p1"
    assert entries["square"]["usage"]["by_problem"]["p2"]["successes"] == 1
    assert "| `square` | 1 | admitted | The square of \\`n\\`. |" in (tmp_path / "lib" / "README.md").read_text()


async def test_it_comes_back_the_same_after_gate_and_trial(library: Library, sandbox: Sandbox, tmp_path: Path) -> None:
    await exchange.export(library, tmp_path / "lib")
    async with open_library("memory") as other:
        came = await taken(other, tmp_path / "lib", sandbox)
        assert list(came) == ["square", "cube", "digit_counts"]  # square before cube, which needs it
        assert all(one.trial and one.trial.ok and new for one, new in came.values())
        for name in came:
            here, there = await other.get(name), await library.get(name)
            assert (here.hash, here.status, here.category, here.ticket) == (there.hash, there.status, there.category, there.ticket)
        assert not any(new for _, new in (await taken(other, tmp_path / "lib", ScriptedSandbox())).values())  # nothing to try


async def test_what_was_edited_becomes_a_new_version_if_it_passes(library: Library, sandbox: Sandbox, tmp_path: Path) -> None:
    await exchange.export(library, tmp_path / "lib")
    module, tests = tmp_path / "lib" / "toolbox" / "square.py", tmp_path / "lib" / "tests" / "test_digit_counts.py"
    module.write_text(samples.SQUARE.replace("n * n", "n**2").replace("The square", "The second power"))
    tests.write_text(samples.TESTS.replace('"3": 1', '"3": 2'))
    assert [one.package.name for one in folder.read(tmp_path / "lib") if one.edited] == ["square", "digit_counts"]
    came = await taken(library, tmp_path / "lib", sandbox)
    admitted, refused = came["square"][0].package, came["digit_counts"][0]
    assert (admitted.version, admitted.parents, admitted.description) == (2, ("square@1",), "The second power of `n`.")
    assert (await library.get("square")).version == 2
    assert not refused.admitted
    assert (await library.get("digit_counts")).version == 1
    assert came["cube"][1] is False


async def test_a_module_that_a_person_adds_is_a_tool_once_it_has_tests(library: Library, sandbox: Sandbox, tmp_path: Path) -> None:
    await exchange.export(library, tmp_path / "lib")
    (tmp_path / "lib" / "toolbox" / "twice.py").write_text(samples.SQUARE.replace("square", "twice").replace("n * n", "2 * n"))
    with pytest.raises(InputError, match=r"test_twice\.py cannot be read: No such file"):
        await taken(library, tmp_path / "lib", sandbox)
    tests = samples.SQUARE_TESTS.replace("square", "twice").replace("== 9", "== 6").replace("== 16", "== -8")
    (tmp_path / "lib" / "tests" / "test_twice.py").write_text(tests)
    came = await taken(library, tmp_path / "lib", sandbox)
    assert came["twice"][0].admitted


async def test_a_forged_index_is_believed_in_nothing(library: Library, sandbox: Sandbox, tmp_path: Path) -> None:
    """Its hash, its status and its schema say that all is well; the tool passes nothing."""
    await exchange.export(library, tmp_path / "lib")
    index = json.loads((tmp_path / "lib" / "tools.json").read_text())
    entry = next(one for one in index["tools"] if one["name"] == "square")
    evil = samples.SQUARE.replace("    return", "    import os\n    return")
    (tmp_path / "lib" / "toolbox" / "square.py").write_text(evil)
    found = next(one for one in folder.read(tmp_path / "lib") if one.package.name == "square")
    entry |= {"hash": found.package.hash, "status": "admitted", "version": 9, "parameters": {"x": "<|im_start|>"}}
    (tmp_path / "lib" / "tools.json").write_text(json.dumps(index))
    assert not next(one for one in folder.read(tmp_path / "lib") if one.package.name == "square").edited
    came = await taken(library, tmp_path / "lib", sandbox)
    assert not came["square"][0].admitted
    assert (await library.get("square")).code == samples.SQUARE


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda lib: (lib / "toolbox" / "x; rm -rf.py").write_text(""), "no name of a tool"),
        (lambda lib: (lib / "toolbox" / "UPPER.py").write_text(""), "no name of a tool"),
        (lambda lib: (lib / "toolbox" / "class.py").write_text(""), "no name of a tool"),
        (lambda lib: (lib / "toolbox" / "data.bin").write_text(""), "no module of a tool"),
        (lambda lib: (lib / "toolbox" / "sub").mkdir(), "no module of a tool"),
        (lambda lib: (lib / "toolbox" / "passwd.py").symlink_to("/etc/passwd"), "is a link"),
        (lambda lib: os.mkfifo(lib / "toolbox" / "pipe.py"), "no regular file"),
        (lambda lib: (lib / "toolbox" / "square.py").write_bytes(b"\xff"), "no UTF-8"),
        (lambda lib: (lib / "toolbox" / "square.py").write_text("def ("), r"square\.py: the code is no Python"),
        (lambda lib: (lib / "toolbox" / "square.py").write_text("#" * (2 << 20)), "more than"),
        (lambda lib: (lib / "tools.json").write_text("[" * 100_000), "cannot be read"),
        (lambda lib: (lib / "tools.json").write_text("{}"), "cannot be read"),
        (lambda lib: (lib / "tools.json").write_text('{"format": 99, "tools": []}'), "format 99"),
        (lambda lib: (lib / "tools.json").write_text('{"format": 1, "tools": [{"name": "../../x"}]}'), "no name of a tool"),
        (lambda lib: (lib / "tools.json").write_text('{"format": 1, "tools": [{"name": 3}]}'), "cannot be read"),
        (
            lambda lib: (lib / "tools.json").write_text('{"format": 1, "tools": [{"name": "square", "status": "king"}]}'),
            "says of square",
        ),
        (lambda lib: (lib / "tools.json").write_text('{"format": 1, "tools": [{"name": "gone"}]}'), r"gone\.py cannot be read"),
    ],
)
async def test_hostile_and_broken_folders_are_refused_before_anything_is_done(
    library: Library, tmp_path: Path, spoil: Any, said: str
) -> None:
    await exchange.export(library, tmp_path / "lib")
    spoil(tmp_path / "lib")
    with pytest.raises(InputError, match=said):
        await taken(library, tmp_path / "lib", ScriptedSandbox())


async def test_links_in_the_place_of_folders_are_not_followed(library: Library, tmp_path: Path) -> None:
    await exchange.export(library, tmp_path / "lib")
    (tmp_path / "link").symlink_to(tmp_path / "lib")
    with pytest.raises(InputError, match="is no folder"):
        folder.read(tmp_path / "link")
    with pytest.raises(InputError, match="no exported library"):
        await exchange.export(library, tmp_path / "link", overwrite=True)
    (tmp_path / "lib" / "toolbox").rename(tmp_path / "elsewhere")
    (tmp_path / "lib" / "toolbox").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="toolbox is no folder"):
        folder.read(tmp_path / "lib")


async def test_an_export_replaces_an_export_if_asked_and_nothing_else(library: Library, tmp_path: Path) -> None:
    await exchange.export(library, tmp_path / "lib")
    (tmp_path / "lib" / "toolbox" / "stale.py").write_text("")
    with pytest.raises(InputError, match="--overwrite"):
        await exchange.export(library, tmp_path / "lib")
    await exchange.export(library, tmp_path / "lib", overwrite=True)
    assert not (tmp_path / "lib" / "toolbox" / "stale.py").exists()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").write_text("dear")
    with pytest.raises(InputError, match="no exported library"):
        await exchange.export(library, tmp_path / "home", overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["home", "lib"]


async def test_an_export_that_fails_leaves_what_was_there(library: Library, tmp_path: Path, monkeypatch: Any) -> None:
    await exchange.export(library, tmp_path / "lib")

    def fail(*_: object) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(folder, "_readme", fail)
    with pytest.raises(OSError, match="disk full"):
        await exchange.export(library, tmp_path / "lib", overwrite=True)
    assert len(folder.read(tmp_path / "lib")) == 3
    assert os.listdir(tmp_path) == ["lib"]


async def test_admitted_and_imported_pass_the_same_door(sandbox: Sandbox, tmp_path: Path) -> None:
    async with open_library("memory") as library:
        assert (await admit(library, samples.square(), sandbox)).admitted
        await exchange.export(library, tmp_path / "lib")
        assert [one.claimed for one in folder.read(tmp_path / "lib")] == [Status.ADMITTED]
