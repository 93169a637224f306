"""A problem's files and the module `pictures` in real sessions: written by one cell, back after a replay, shown as figures."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from tests import pictures
from tests.execution.conftest import KINDS, kind
from tests.graphs.conftest import FakeSessions
from toolreason.attachments import MOST_BYTES
from toolreason.errors import ProblemError, SandboxError
from toolreason.execution import SessionBook, open_sandbox
from toolreason.execution.base import Sandbox
from toolreason.execution.session import MAX_CODE_CHARS
from toolreason.tools import core
from toolreason.types import CellResult, Outcome


@pytest.fixture(params=[kind("local"), kind("container")])
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    async with open_sandbox(**KINDS[request.param]) as opened:
        yield opened


@pytest.fixture
async def local() -> AsyncIterator[Sandbox]:
    async with open_sandbox("local") as opened:
        yield opened


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    return [pictures.save(tmp_path / "map.png"), str(tmp_path / "t.csv")]


def figure(result: CellResult, number: int = 0) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(result.figures[number]))).convert("RGB")


def alike(one: Image.Image, two: Image.Image) -> bool:
    return one.size == two.size and ImageChops.difference(one, two).getbbox() is None


def test_the_cell_is_the_same_for_the_same_files_and_the_most_that_may_be_fits(files: list[str], tmp_path: Path) -> None:
    code = core.install_code(files)
    assert code == core.install_code(files)
    assert code.count("\n") == 0
    pictures.save(tmp_path / "map.png", pictures.shapes().rotate(90))
    assert core.install_code(files) != code
    (tmp_path / "large.bin").write_bytes(bytes(MOST_BYTES))
    assert len(core.install_code([str(tmp_path / "large.bin")])) < MAX_CODE_CHARS
    (tmp_path / "large.bin").write_bytes(bytes(MOST_BYTES + 1))
    with pytest.raises(ProblemError, match=r"large\.bin has 700\.0 kB"):
        core.install_code([str(tmp_path / "large.bin")])


async def test_files_are_read_measured_cropped_and_shown(sandbox: Sandbox, files: list[str]) -> None:
    session = await sandbox.session()
    installed = await session.run(core.install_code(files))
    assert (installed.outcome, installed.value, installed.stdout, installed.stderr) == (Outcome.OK, None, "", "")
    assert [one.path for one in await session.files()] == ["map.png", "pictures.py", "t.csv"]
    assert await session.get("map.png") == pictures.encoded(pictures.shapes())
    result = await session.run(
        "from pictures import *\nimport pictures\nprint(read('map.png'))\nprint(read('t.csv'))\n"
        "box = regions('map.png', 'red')[0].box\nprint(box, count_regions('map.png', 'red'), color_at('map.png', 5, 5))\n"
        "show('map.png')\nshow(zoom('map.png', box, 3))\nmain_colors(crop('map.png', box))"
    )
    assert result.ok, result.traceback
    assert result.stdout == (
        "PNG picture, 60 x 40 pixels, mode RGB\ntable of 1 rows below the head, 2 columns: a, b\na,b\n1,2\n\n"
        "(5, 5, 15, 15) 2 (255, 0, 0)\n[a figure of 60 x 40 pixels]\n[a figure of 30 x 30 pixels]\n"
    )
    assert result.value == "[((255, 0, 0), 1.0)]"
    assert alike(figure(result), pictures.shapes())
    assert alike(figure(result, 1), Image.new("RGB", (30, 30), "red"))
    assert len(result.figures) == 2


async def test_a_large_picture_is_shown_smaller_and_says_so(local: Sandbox) -> None:
    session = await local.session()
    await session.run(core.install_code([]))
    result = await session.run("from PIL import Image\nfrom pictures import show\nshow(Image.new('RGB', (3000, 777), 'blue'))")
    assert result.stdout == "[a figure of 1024 x 265 pixels, 2.93 times smaller than the picture]\n"
    assert alike(figure(result), Image.new("RGB", (1024, 265), "blue"))


@pytest.mark.parametrize("size", [(1, 1), (7, 333), (113, 1), (300, 517)])
async def test_figures_have_the_picture_s_own_pixels(local: Sandbox, size: tuple[int, int], tmp_path: Path) -> None:
    noise = Image.effect_noise(size, 90).convert("RGB")
    session = await local.session()
    await session.run(core.install_code([pictures.save(tmp_path / "noise.png", noise)]))
    result = await session.run("from pictures import show\nshow('noise.png')")
    assert alike(figure(result), noise)


async def test_it_may_run_twice_and_mends_what_was_meddled_with(local: Sandbox, files: list[str]) -> None:
    session = await local.session()
    code = core.install_code(files)
    for _ in range(2):
        assert (await session.run(code)).ok
        result = await session.run("from pictures import read\nread('map.png')")
        assert result.value == "'PNG picture, 60 x 40 pixels, mode RGB'"
        await session.run("import pictures\npictures.read = None\nopen('pictures.py', 'w').write('read = 5')\nopen('map.png', 'w')")
    assert (await session.run("read('t.csv')[:5]")).value == "'table'"


async def test_a_picture_that_only_the_sandbox_can_measure_is_no_bomb_there(sandbox: Sandbox, tmp_path: Path) -> None:
    huge = Image.new("1", (12_000, 12_000))
    (tmp_path / "bomb.tif").write_bytes(pictures.encoded(huge, "TIFF", compression="tiff_adobe_deflate"))
    session = await sandbox.session()
    assert (await session.run(core.install_code([str(tmp_path / "bomb.tif")]))).ok
    result = await session.run("from pictures import picture\npicture('bomb.tif')")
    assert result.outcome is Outcome.ERROR
    assert result.error is not None
    assert "no picture that can be opened: it has 12000 x 12000 pixels" in result.error


async def test_files_are_there_before_the_first_cell_and_again_after_a_replay(local: Sandbox, files: list[str]) -> None:
    code = "from pictures import regions\nfound = len(regions('map.png', 'red'))\nopen('mine.txt', 'w').write('kept')"
    async with SessionBook(local) as book:
        history = await core.install(book, "k", files)
        assert history == [("k:files", core.install_code(files))]
        first = await book.run("k", "k:0", code, history=history)
        assert first.ok, first.traceback
        assert await core.install(book, "k", files) == history
        second = await book.run("k", "k:1", "found, open('mine.txt').read()", history=[*history, ("k:0", code)])
        assert second.value == "(2, 'kept')"
    async with SessionBook(local) as book:  # another process, after a resume
        assert await core.install(book, "k", files) == history
        again = await book.run("k", "k:1", "found, open('mine.txt').read()", history=[*history, ("k:0", code)])
        assert again.value == "(2, 'kept')"
    async with SessionBook(local) as book:  # and by the history alone
        again = await book.run("k", "k:1", "found, open('mine.txt').read()", history=[*history, ("k:0", code)])
        assert again.value == "(2, 'kept')"


async def test_a_stateless_interpreter_keeps_the_files_and_nothing_else(local: Sandbox, files: list[str]) -> None:
    async with SessionBook(local) as book:
        for number in range(2):
            history = await core.install(book, "k", files)
            code = "import os, pictures\nbefore = os.listdir()\nopen('mine.txt', 'w').write(pictures.read('t.csv'))\nsorted(before)"
            result = await book.run("k", f"k:{number}", code, history=history, stateful=False)
            assert result.ok, result.traceback
            assert "mine.txt" not in str(result.value)
            assert "map.png" in str(result.value)


async def test_without_files_nothing_runs_and_a_session_that_takes_none_is_the_sandbox_s_failure(files: list[str]) -> None:
    sessions = FakeSessions(lambda code: CellResult(Outcome.DISK))
    assert await core.install(sessions, "k", []) == []
    assert sessions.ran == []
    with pytest.raises(SandboxError, match="could not be put into the session: disk"):
        await core.install(sessions, "k", files)


def test_the_functions_that_are_told_of_are_the_module_s(files: list[str]) -> None:
    import toolreason.tools.pictures as module

    told: dict[str, Any] = dict(core.functions())
    assert all(does.endswith(".") for does in told.values())
    names = [call.partition("(")[0] for call in told]
    assert [name for name in names if getattr(module, name).__doc__] == names
    assert [call for call, _ in core.functions(pictures=False)] == ["read(name, most=2000)"]
