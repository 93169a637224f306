"""Checks: a cell that does not commit leaves no trace, and what was committed can be taken back or forked."""

from __future__ import annotations

import asyncio

from toolreason.errors import ToolreasonError
from toolreason.execution.base import Session
from toolreason.execution.conformance import (
    LIMITS,
    Bench,
    Failed,
    contents,
    ended,
    equal,
    on_bench,
    on_session,
    refused,
    value,
    within,
)
from toolreason.types import Outcome

# how cells end that are not to leave a trace
ENDINGS = (
    ("while True: pass", Outcome.TIMEOUT, 0.7),
    ("os._exit(3)", Outcome.CRASHED, 20),
    ("os.kill(os.getpid(), 11)", Outcome.CRASHED, 20),
    ("'x' * (1 << 40)", Outcome.MEMORY, 20),
    ("while True: print('y' * 10000)", Outcome.OUTPUT, 20),
)

BEFORE = """
import os, mmap, shutil
for name in os.listdir('.'): shutil.rmtree(name) if os.path.isdir(name) and not os.path.islink(name) else os.unlink(name)
kept = [1]
open('same', 'w').write('before')
open('log', 'w').write('line 1')
open('gone', 'w').write('still here')
open('mapped', 'wb').write(b'before' * 1000)
open('script', 'w').write('x'); os.chmod('script', 0o755)
os.makedirs('folder/inner'); open('folder/inner/file', 'w').write('deep')
os.symlink('same', 'link')
os.mkdir('private'); os.chmod('private', 0o500)
"""

CHANGES = """
kept.append(2); new_name = 3
open('new', 'w').write('new')
open('same', 'w').write('AFTER!')
open('log', 'a').write('line 2')
os.unlink('gone')
with open('mapped', 'r+b') as f:
    with mmap.mmap(f.fileno(), 0) as m: m[:6] = b'mmaped'
os.chmod('script', 0o600)
os.rename('folder', 'renamed'); open('renamed/inner/file', 'w').write('DEEP')
os.unlink('link'); os.symlink('/etc/passwd', 'link')
os.mkdir('another'); open('another/one', 'w').write('1')
os.chmod('private', 0o700); open('private/x', 'w').write('x')
"""

LOOK = """
def look():
    found = {}
    for folder, folders, names in os.walk('.'):
        for name in folders + names:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            if os.path.islink(path): found[path] = os.readlink(path)
            elif os.path.isdir(path): found[path] = oct(info.st_mode)
            else: found[path] = (oct(info.st_mode), open(path, 'rb').read()[:20])
    return sorted(found.items()), kept, 'new_name' in globals()
str(look()).replace('.matplotlib', '')
"""


@on_session("step back")
async def a_timed_out_cell_shows_what_it_printed_and_leaves_no_trace(session: Session) -> None:
    await session.run("t = [1]")
    result = await session.run("t.append(2)\nprint('so far')\nwhile True: pass", timeout_s=1)
    equal((result.outcome, result.stdout), (Outcome.TIMEOUT, "so far\n"))
    await value(session, "t", [1])


@on_session("step back")
async def a_crashed_cell_says_how_it_died_and_leaves_no_trace(session: Session) -> None:
    await session.run("c = 1")
    within("exit code 3", ended(await session.run("c = 2\nimport os\nos._exit(3)"), Outcome.CRASHED).error)
    result = await session.run("c = 3\nimport os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    within("SIGSEGV", ended(result, Outcome.CRASHED).error)
    await value(session, "c", 1)


@on_session("step back")
async def stateless_cells_keep_nothing(session: Session) -> None:
    await session.run("s = 1")
    equal((await session.run("s = 2\ns", keep=False)).value, "2")
    await value(session, "s", 1)


FORGE = """
import os, time
n = 2
open('n', 'w').write('2')
for fd in range(3, 256):
    try: os.write(fd, b'ok plain | 1 - -\\n7')
    except OSError: pass
time.sleep({wait})
os._exit(3)
"""


@on_bench("step back")
async def files_are_as_before_a_cell_that_did_not_commit(bench: Bench) -> None:
    async with bench.session() as session:
        ended(await session.run(BEFORE))
        before = ended(await session.run(LOOK)).value
        for last, outcome, timeout_s in ENDINGS:
            ended(await session.run(CHANGES + last, timeout_s=timeout_s), outcome)
            await value(session, LOOK, before)
        ended(await session.run(CHANGES, keep=False))
        await value(session, LOOK, before)


@on_bench("step back")
async def a_process_that_dies_after_its_cell_costs_nothing_else(bench: Bench) -> None:
    """It says of itself that its cell has ended well, and dies then or later."""
    async with bench.session() as session:
        ended(await session.run("n = 1\nopen('n', 'w').write('1')"))
        for wait in (0, 0.5):
            await session.run(FORGE.format(wait=wait))
            await asyncio.sleep(wait * 3)
            await value(session, "n, open('n').read()", (1, "1"))
            ended(await session.run("n = 1"))


@on_bench("step back")
async def an_open_file_still_writes_after_a_step_back(bench: Bench) -> None:
    async with bench.session() as session:
        ended(await session.run("import os\nf = open('log', 'w', buffering=1)\nf.write('one\\n')"))
        ended(await session.run("f.write('two\\n')\nos._exit(0)"), Outcome.CRASHED)
        ended(await session.run("f.seek(0, 2); f.write('three\\n'); f.flush()"))
        equal(await session.get("log"), b"one\nthree\n")


@on_bench("step back")
async def it_works_while_numpy_has_threads_or_the_state_holds_threads_results(bench: Bench) -> None:
    async with bench.session() as session:
        code = """
import numpy, os, concurrent.futures
a = numpy.random.rand(200, 200)
with concurrent.futures.ThreadPoolExecutor(4) as pool: sums = list(pool.map(lambda k: float((a @ a).sum()) + k, range(4)))
total = (a @ a).sum()
"""
        ended(await session.run(code))
        ended(await session.run("a[:] = 0\nos._exit(0)"), Outcome.CRASHED)
        await value(session, "bool((a @ a).sum() == total), len(sums)", (True, 4))
        await session.undo()
        await value(session, "bool(numpy.linalg.norm(a) > 1)", True)


@on_bench("undo")
async def undo_goes_back_n_cells_in_variables_and_files(bench: Bench) -> None:
    async with bench.session() as session:
        for n in range(4):
            ended(await session.run(f"n = {n}\nopen('n', 'w').write('{n}'); open('n{n}', 'w').close()"))
        await session.undo()
        await value(session, "n, open('n').read()", (2, "2"))
        await session.undo(3)  # the cell that looked, too
        await value(session, "n, open('n').read()", (0, "0"))
        equal(await contents(session), {"n": b"0", "n0": b""})
        ended(await session.run("n = 'on'"))
        await value(session, "n", "'on'")


@on_bench("undo")
async def undo_beyond_what_there_is_is_refused_and_changes_nothing(bench: Bench) -> None:
    async with bench.session() as session:
        ended(await session.run("u = 1"))
        for cells in (2, 100, 0, -1):
            await refused(session.undo(cells))
        for n in range(LIMITS.undo_depth + 2):
            ended(await session.run(f"u = {n}"))
        await refused(session.undo(LIMITS.undo_depth + 1))
        await value(session, "u", LIMITS.undo_depth + 1)


@on_bench("undo")
async def cells_that_did_not_commit_do_not_count(bench: Bench) -> None:
    async with bench.session() as session:
        ended(await session.run("u = 1"))
        ended(await session.run("u = 2"))
        ended(await session.run("import os; os._exit(1)"), Outcome.CRASHED)
        ended(await session.run("u = 3", keep=False))
        await session.undo()
        await value(session, "u", 1)


@on_bench("undo")
async def a_cell_that_raised_can_be_undone(bench: Bench) -> None:
    async with bench.session() as session:
        ended(await session.run("u = [1]"))
        ended(await session.run("u.append(2)\n1 / 0"), Outcome.ERROR)
        await session.undo()
        await value(session, "u", [1])


@on_bench("fork")
async def forks_have_the_same_state_and_go_their_own_ways(bench: Bench) -> None:
    async with bench.session() as one:
        ended(await one.run("v = [1]\nopen('f', 'w').write('same')"))
        two = await one.fork()
        ended(await two.run("v.append(2)\nopen('f', 'w').write('two'); open('only two', 'w').close()"))
        ended(await one.run("v.append(3)\nopen('f', 'w').write('one')"))
        await value(one, "v, open('f').read()", ([1, 3], "one"))
        await value(two, "v, open('f').read()", ([1, 2], "two"))
        equal(await contents(one), {"f": b"one"})
        equal(await contents(two), {"f": b"two", "only two": b""})
        await two.close()


@on_bench("fork")
async def a_fork_goes_on_when_the_first_is_closed_and_the_other_way_round(bench: Bench) -> None:
    async with bench.session() as one:
        ended(await one.run("v = 1"))
        two, three = await one.fork(), await one.fork()
        await two.close()
        await value(one, "v", 1)
        await one.close()
        await value(three, "v", 1)
        ended(await three.run("v = 2\nopen('f', 'w').write('x')"))
        ended(await three.run("v = 3\nimport os; os.unlink('f'); os._exit(0)"), Outcome.CRASHED)
        await value(three, "v, open('f').read()", (2, "x"))
        await three.close()


@on_bench("fork")
async def forks_run_at_the_same_time_and_step_back_alone(bench: Bench) -> None:
    async with bench.session() as one:
        ended(await one.run("import os\nv = 1"))
        two = await one.fork()
        code = "import time\nv = 9\ntime.sleep(0.2)\nos._exit(0)"
        crashed, fine = await asyncio.gather(one.run(code), two.run("v = 2\nimport time\ntime.sleep(0.4)\nv"))
        ended(crashed, Outcome.CRASHED)
        equal(ended(fine).value, "2")
        await value(one, "v", 1)
        await value(two, "v", 2)
        await two.undo(2)
        await value(two, "v", 1)
        await two.close()


@on_bench("fork")
async def more_forks_than_allowed_are_refused(bench: Bench) -> None:
    async with bench.session() as one:
        ended(await one.run("v = 1"))
        others = [await one.fork() for _ in range(LIMITS.forks)]
        try:
            other = await one.fork()
        except ToolreasonError as error:
            within("fork", str(error))
        else:
            await other.close()
            raise Failed("one fork more than allowed")
        await asyncio.gather(*(other.close() for other in others))
        await value(one, "v", 1)
