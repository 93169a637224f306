"""Checks: files put into a session's work folder and taken out of it."""

from __future__ import annotations

from toolreason.errors import InputError
from toolreason.execution.base import FileInfo
from toolreason.execution.conformance import LIMITS, Bench, Failed, contents, ended, equal, on_bench, refused, true, value
from toolreason.types import Outcome

BAD_PATHS = ("", "/etc/passwd", "../up", "a/../../b", "./a", "a//b", "a/", "/", ".", "..", "nul\0", "x" * 300, "/".join("d" * 100))

# names that a cell can make and a host must not trip over
ODD = """
import os, socket
os.symlink('/etc/passwd', 'link'); os.symlink('/etc', 'folder link'); os.symlink('nowhere', 'dangling'); os.symlink('loop', 'loop')
os.mkfifo('fifo'); os.mkdir('folder')
open('new\\nline', 'w').write('1'); open(b'\\xff\\xfe', 'w').write('2')
open('locked', 'w').write('secret'); os.chmod('locked', 0)
with open('sparse', 'wb') as f: f.truncate(8 << 20)
open('one', 'w').write('1'); os.link('one', 'other')
try: socket.socket(socket.AF_UNIX).bind('socket')
except OSError: pass
"""


@on_bench("files")
async def what_is_put_in_is_there_for_cells_and_comes_out_again(bench: Bench) -> None:
    async with bench.session() as session:
        given = {"a.txt": b"text", "empty": b"", "folder/inner/b.bin": bytes(range(256)) * 100, "naïve 名前 🙂.csv": b"x,y\n"}
        for path, data in given.items():
            await session.put(path, data)
        equal(await contents(session), given)
        equal(await session.files(), sorted((FileInfo(p, len(d)) for p, d in given.items()), key=lambda info: info.path))
        await value(session, "open('folder/inner/b.bin', 'rb').read() == bytes(range(256)) * 100", True)
        ended(await session.run("open('naïve 名前 🙂.csv', 'a').write('1,2\\n'); open('out', 'w').write('made')"))
        equal((await session.get("naïve 名前 🙂.csv"), await session.get("out")), (b"x,y\n1,2\n", b"made"))


@on_bench("files")
async def a_file_put_again_is_replaced(bench: Bench) -> None:
    async with bench.session() as session:
        await session.put("f", b"long content")
        await session.put("f", b"short")
        equal(await contents(session), {"f": b"short"})


@on_bench("files")
async def bad_paths_are_refused(bench: Bench) -> None:
    async with bench.session() as session:
        for path in BAD_PATHS:
            await refused(session.put(path, b"x"))
            await refused(session.get(path))
        await refused(session.get("missing"), "no such file")
        equal(await session.files(), [])
        await value(session, "1", 1)


@on_bench("files")
async def only_regular_files_inside_are_read_listed_and_written(bench: Bench) -> None:
    async with bench.session() as session:
        ended(await session.run(ODD))
        for path in ("link", "folder link/passwd", "dangling", "loop", "fifo", "folder", "socket"):
            await refused(session.get(path))
        for path in ("link", "folder link/new", "dangling", "loop", "fifo", "folder", "locked/below"):
            await refused(session.put(path, b"x"))
        names = [info.path for info in await session.files()]
        true({"locked", "sparse", "one", "other"} <= set(names), f"missing: {names}")
        true(not {"link", "dangling", "loop", "fifo", "socket", "folder"} & set(names), f"no regular files: {names}")
        equal((await session.get("locked"), len(await session.get("sparse"))), (b"secret", 8 << 20))
        await value(session, "oct(os.stat('locked').st_mode)[-3:], os.readlink('dangling')", ("000", "nowhere"))


@on_bench("files", walls=True)
async def more_than_the_folder_holds_is_refused_and_leaves_it_as_it_was(bench: Bench) -> None:
    async with bench.session() as session:
        await session.put("small", b"small")
        await refused(session.put("big", bytes((LIMITS.disk_mb + 1) << 20)))
        await value(session, "open('small').read()", "'small'")
        equal(await session.get("small"), b"small")
        if "big" in [info.path for info in await session.files()]:
            raise Failed("a part of the file stayed")


@on_bench("files")
async def put_files_survive_a_step_back_and_an_undo_of_cells_after_them(bench: Bench) -> None:
    async with bench.session() as session:
        ended(await session.run("import os"))
        await session.put("f", b"given")
        ended(await session.run("open('f', 'w').write('spoilt'); os._exit(0)"), Outcome.CRASHED)
        equal(await session.get("f"), b"given")
        ended(await session.run("os.unlink('f')"))
        await session.undo()
        equal(await session.get("f"), b"given")


@on_bench("files")
async def a_closed_sessions_files_are_gone_for_the_next_one(bench: Bench) -> None:
    for _ in range(3):
        async with bench.session() as session:
            equal(await session.files(), [])
            await session.put("left behind", b"x")


@on_bench("files")
async def a_refusal_names_the_path(bench: Bench) -> None:
    async with bench.session() as session:
        try:
            await session.get("not/there")
        except InputError as error:
            true("not/there" in str(error), str(error))
            return
        raise Failed("it was found")
