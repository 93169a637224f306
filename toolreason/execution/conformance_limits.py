"""Checks: each limit that strikes has its own outcome, and the session goes on from before the cell."""

from __future__ import annotations

from dataclasses import replace

from toolreason.execution.base import Session
from toolreason.execution.conformance import LIMITS, Bench, ended, equal, on_bench, on_session, true, value, within
from toolreason.types import Outcome


async def strikes(session: Session, code: str, outcome: Outcome, timeout_s: float = 20) -> None:
    """The cell meets the limit, says so, and leaves no trace."""
    ended(await session.run("import os\nm = [1]"))
    result = ended(await session.run(f"m.append(2)\n{code}", timeout_s=timeout_s), outcome)
    equal(result.limit, outcome.value)
    true(result.error, "it does not say why")
    await value(session, "m", [1])


@on_session("limits")
async def wall_time(session: Session) -> None:
    await strikes(session, "import time\ntime.sleep(60)", Outcome.TIMEOUT, 0.5)


@on_session("limits")
async def memory(session: Session) -> None:
    await strikes(session, "big = 'x' * (1 << 31)", Outcome.MEMORY)
    await strikes(session, "hog = []\nwhile True: hog.append(bytearray(1 << 24))", Outcome.MEMORY)


@on_session("limits")
async def memory_of_forks(session: Session) -> None:
    """What a session's process and its forks share counts once."""
    ended(await session.run("state = b'x' * (100 << 20)"))
    fork = "import os, time\nfor _ in range(3):\n    if os.fork() == 0: time.sleep(1) or os._exit(0)"
    code = f"{fork}\nfor _ in range(3): os.wait()\nlen(state)"
    equal(ended(await session.run(code)).value, str(100 << 20))


@on_session("limits")
async def output(session: Session) -> None:
    await strikes(session, "while True: print('y' * 1000)", Outcome.OUTPUT)
    result = await session.run("while True: print('y' * 1000)")
    true(len(result.stdout) < 1100 and result.dropped > 1_000_000, f"{len(result.stdout)} kept, {result.dropped} dropped")


@on_session("limits", walls=True)
async def processes(session: Session) -> None:
    await strikes(session, "import subprocess\nwhile True: subprocess.Popen(['sleep', '60'])", Outcome.PROCESSES)


@on_session("limits", walls=True)
async def threads(session: Session) -> None:
    """Stacks of two sizes: with one, a thread can find room for its stack and none to begin with, die, and so on without end."""
    sizes = "import itertools, threading, time\nfor size in itertools.cycle((8 << 20, 12 << 20)):\n    threading.stack_size(size)"
    code = f"{sizes}\n    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    await strikes(session, code, Outcome.PROCESSES)


@on_session("limits")
async def open_files(session: Session) -> None:
    await strikes(session, "files = []\nwhile True: files.append(open('/dev/null'))", Outcome.OPEN_FILES)


@on_session("limits")
async def file_size(session: Session) -> None:
    code = "with open('large', 'wb') as f:\n    while True: f.write(bytes(1 << 20))"
    await strikes(session, code, Outcome.FILE_SIZE)
    equal([info.path for info in await session.files() if info.path == "large"], [])


@on_session("limits", walls=True)
async def disk_space(session: Session) -> None:
    await strikes(session, "for n in range(9):\n    with open(f'large{n}', 'wb') as f: f.write(bytes(4 << 20))", Outcome.DISK)


@on_session("limits")
async def number_of_files(session: Session) -> None:
    await strikes(session, "for n in range(100_000 if os.getuid() else 6000): open(f'i{n}', 'w').close()", Outcome.DISK)


@on_bench("limits")
async def cpu_time_of_a_cell(bench: Bench) -> None:
    async with bench.limited(replace(LIMITS, cell_cpu_s=1)) as session:
        await strikes(session, "while True: pass", Outcome.CPU)
        ended(await session.run("import time\ntime.sleep(1.5)"))  # wall time is another thing


@on_bench("limits")
async def cpu_time_of_a_cells_processes_counts(bench: Bench) -> None:
    async with bench.limited(replace(LIMITS, cell_cpu_s=1)) as session:
        code = "for _ in range(3):\n    if os.fork() == 0:\n        while True: pass\nimport time\ntime.sleep(60)"
        await strikes(session, code, Outcome.CPU)


@on_bench("limits")
async def cpu_time_of_a_session(bench: Bench) -> None:
    async with bench.limited(replace(LIMITS, session_cpu_s=1.0)) as session:
        spin = "import time\nend = time.process_time() + 0.6\nwhile time.process_time() < end: pass"
        ended(await session.run(spin))
        ended(await session.run(spin))
        within("session", ended(await session.run("1"), Outcome.CPU).error)


@on_bench("limits")
async def output_of_a_session(bench: Bench) -> None:
    async with bench.limited(replace(LIMITS, session_output_mb=1)) as session:
        ended(await session.run("print('x' * 700_000)"))
        ended(await session.run("print('x' * 700_000)"))
        within("session", ended(await session.run("print('x')"), Outcome.OUTPUT).error)
