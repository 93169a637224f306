"""Hostile cells in a container: each is contained, and the next cell finds the state from before."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from toolreason.execution import Sandbox, Session
from toolreason.types import CellResult, Outcome

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(docker_sandbox: Sandbox) -> AsyncIterator[Session]:
    leased = await docker_sandbox.session()
    yield leased
    await leased.close()


async def attack(session: Session, code: str, *, timeout_s: float = 20) -> CellResult:
    """Run a hostile cell between two that must agree."""
    await session.run("import os, sys\nstate = [1, 2, 3]")
    result = await session.run(code, timeout_s=timeout_s)
    after = await session.run("state, sum(state)")
    assert (after.outcome, after.value) == (Outcome.OK, "([1, 2, 3], 6)")
    return result


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import socket\nsocket.create_connection(('1.1.1.1', 80), 3)", "Network is unreachable"),
        ("import socket\nsocket.getaddrinfo('example.org', 80)", "gaierror"),
        ("import urllib.request\nurllib.request.urlopen('http://169.254.169.254/', timeout=3)", "unreachable"),
        ("import socket\nsocket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')", "FileNotFoundError"),
        ("open('/proc/1/environ').read()", "PermissionError"),
        ("open('/proc/1/mem', 'r+b').read(1)", "PermissionError"),
        ("os.listdir('/proc/1/fd')", "PermissionError"),
        ("open('/proc/1/fd/3', 'wb')", "PermissionError"),
        ("open('/etc/passwd', 'a')", "Error"),
        ("open('/opt/toolreason/runner/runner.py', 'a')", "Error"),
        ("open('/usr/evil', 'w')", "Read-only file system"),
        ("os.setuid(0)", "PermissionError"),
        ("os.chown('/work', 0, 0)", "PermissionError"),
        ("os.chroot('/work')", "PermissionError"),
        ("import ctypes\nos.strerror(1) if ctypes.CDLL(None).unshare(0x10000000) == 0 else 1 / 0", "ZeroDivisionError"),
        ("import ctypes\n1 / 0 if ctypes.CDLL(None).ptrace(16, 1, 0, 0) else None", "ZeroDivisionError"),
        ("import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))", "ValueError"),
        ("with open('fill', 'wb') as f:\n    while True: f.write(b'x' * 100000)", "OSError"),
        ("for i in range(100000): open(f'i{i}', 'w').close()", "No space left"),
        ("files = [open('/dev/null') for _ in range(5000)]", "Too many open files"),
        ("open('/sys/fs/cgroup/memory.max', 'w').write('max')", "Error"),
    ],
)
async def test_what_a_cell_may_not_do_is_an_exception_in_it(session: Session, code: str, error: str) -> None:
    result = await attack(session, code)
    assert result.outcome is Outcome.ERROR
    assert error in (result.error or "")
    await session.run("import glob\n[os.remove(name) for name in glob.glob('*')]")


async def test_the_cell_is_nobody_without_capabilities(session: Session) -> None:
    code = "got = dict(line.split()[:2] for line in open('/proc/self/status') if line[:3] in ('Uid', 'Gid', 'Cap', 'NoN'))"
    result = await attack(session, f"{code}\n[got[k + ':'] for k in ('Uid', 'Gid', 'CapEff', 'CapPrm', 'CapBnd', 'NoNewPrivs')]")
    none = "0000000000000000"
    assert result.value == str(["65534", "65534", none, none, none, "1"])


@pytest.mark.parametrize(
    "code",
    [
        "while True: os.fork()",
        "def bomb():\n    while True:\n        try: os.fork()\n        except OSError: pass\nbomb()",
        "import threading\nfor _ in range(500): threading.Thread(target=lambda: [None for _ in iter(int, 1)]).start()",
    ],
)
async def test_a_bomb_of_processes_or_threads_goes_off_in_a_box(session: Session, code: str) -> None:
    result = await attack(session, code, timeout_s=2)
    assert result.outcome is not Outcome.OK


@pytest.mark.parametrize(
    "code",
    [
        "hog = []\nwhile True: hog.append(bytearray(10_000_000))",
        "hog = [0]\nwhile True: hog += hog",
        "import numpy\nnumpy.ones((100_000, 100_000))",
        "'x' * (1 << 40)",
    ],
)
async def test_a_memory_bomb_is_a_memory_outcome(session: Session, code: str) -> None:
    assert (await attack(session, code)).outcome is Outcome.MEMORY


async def test_memory_taken_by_many_processes_is_killed_by_the_kernel(session: Session) -> None:
    code = """
import time
for _ in range(6):
    if os.fork() == 0:
        hog = bytearray(b"x") * (150 << 20)
        time.sleep(60)
hog = bytearray(b"x") * (150 << 20)
time.sleep(60)
"""
    assert (await attack(session, code, timeout_s=6)).outcome in (Outcome.MEMORY, Outcome.TIMEOUT)


@pytest.mark.parametrize("code", ["while True: print('y' * 1000)", "while True: os.write(2, b'z' * 65536)", "os.system('yes')"])
async def test_a_flood_of_output_is_stopped(session: Session, code: str) -> None:
    assert (await attack(session, code)).outcome is Outcome.OUTPUT


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import re\nre.match(r'(a+)+$', 'a' * 60 + 'b')",
        "sum(range(10 ** 13))",
        "import signal\nfor n in {*range(1, 32)} - {9, 19}: signal.signal(n, lambda *_: None)\nwhile True: pass",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "import time\ntime.sleep(1000)",
        "import sys\nsys.stdin.read()\nimport signal\nsignal.pause()",
        "os.kill(os.getppid(), 19)\nimport time\ntime.sleep(1000)",
    ],
)
async def test_a_loop_without_end_is_timed_out(session: Session, code: str) -> None:
    assert (await attack(session, code, timeout_s=0.7)).outcome is Outcome.TIMEOUT


@pytest.mark.parametrize(
    "code",
    [
        "os._exit(0)",
        "os.kill(os.getpid(), 9)",
        "import signal\nsignal.raise_signal(signal.SIGABRT)",
        "import ctypes\nctypes.string_at(0)",
        "os.closerange(3, 300)",
        "import builtins\nbuiltins.__dict__.clear()",
        "for fd in range(3, 300):\n    try: os.write(fd, b'\\0\\0\\0\\2{}')\n    except OSError: pass",
        "for fd in range(3, 300):\n    try: os.write(fd, b'[' * 4000)\n    except OSError: pass",
        "for fd in range(3, 300):\n    try: os.write(fd, b'{\"outcome\": []}')\n    except OSError: pass",
    ],
)
async def test_a_cell_that_dies_or_breaks_its_interpreter_has_crashed(session: Session, code: str) -> None:
    assert (await attack(session, code)).outcome is Outcome.CRASHED


@pytest.mark.parametrize(
    "code",
    [
        "os.kill(-1, 9)",
        "os.kill(-1, 19)",
        "os.kill(os.getppid(), 9)\nimport time\ntime.sleep(0.3)",
        "for n in (1, 2, 3, 9, 11, 15, 17, 19): os.kill(1, n)",
        "import atexit\natexit.register(print, 'boo')",
        "sys.stdout.close(); sys.stderr = None",
        "import gc\ngc.disable(); gc.set_threshold(1)",
        "class D:\n    def __del__(self): raise SystemExit\nd = D()\ndel d",
        "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN); os.umask(0o777)",
        "import threading\nthreading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()",
    ],
)
async def test_mischief_that_ends_well_harms_nobody(session: Session, code: str) -> None:
    assert (await attack(session, code)).outcome is Outcome.OK


@pytest.mark.parametrize(
    "code",
    [
        "os.kill(os.getppid(), 9)\nos._exit(0)",
        "sys.modules.clear()",
        "os.environ.clear(); os.chdir('/')\nos.fork = os.waitpid = os._exit = os.write = None",
    ],
)
async def test_a_cell_that_spoils_its_session_finds_it_working_all_the_same(docker_sandbox: Sandbox, code: str) -> None:
    session = await docker_sandbox.session()
    try:
        assert (await attack(session, code)).outcome in (Outcome.OK, Outcome.CRASHED)
    finally:
        await session.close()


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("10 ** 1_000_000", Outcome.ERROR),
        ("9 ** 9 ** 9", Outcome.TIMEOUT),
        ("class R:\n    def __repr__(self): raise SystemExit('no')\nR()", Outcome.ERROR),
        ("class R:\n    def __repr__(self): return 5\nR()", Outcome.ERROR),
        ("class R:\n    def __repr__(self): return 'x' * 5_000_000\nR()", Outcome.OK),
        ("class R:\n    def __repr__(self):\n        while True: pass\nR()", Outcome.TIMEOUT),
        ("class R:\n    def __repr__(self): os._exit(1)\nR()", Outcome.CRASHED),
        ("class S(str):\n    encode = __len__ = None\nclass R:\n    def __repr__(self): return S('fine')\nR()", Outcome.OK),
        ("class E(Exception):\n    def __str__(self): raise E\nraise E", Outcome.ERROR),
        ("class E(Exception):\n    def __str__(self): return 'y' * 5_000_000\nraise E", Outcome.ERROR),
        ("def f(n): return f(n + 1)\nf(0)", Outcome.ERROR),
        ("x = []\nfor _ in range(100_000): x = [x]\nx", Outcome.ERROR),
        ("raise ExceptionGroup('many', [ValueError('\\ud800')])", Outcome.ERROR),
        ("print('\\ud800\\0\\x1b[2J')\n'\\ud800'", Outcome.OK),
    ],
)
async def test_values_and_messages_are_bounded_text(session: Session, code: str, outcome: Outcome) -> None:
    result = await attack(session, code, timeout_s=2 if outcome is Outcome.TIMEOUT else 20)
    assert result.outcome is outcome
    for text in (result.value or "", result.error or "", result.traceback):
        assert len(text) < 1300
        text.encode()


async def test_a_detached_process_does_not_outlive_its_cell(session: Session) -> None:
    code = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            with open("/work/beat", "a") as file: file.write("x")
    os._exit(0)
os.wait()
"""
    await attack(session, code)
    size = "(os.path.getsize('/work/beat') if os.path.exists('/work/beat') else 0)"
    first = (await session.run(f"before = {size}\nimport time\ntime.sleep(0.2)\n{size} - before")).value
    assert first == "0"
    code = """
def living(): return [p for p in os.listdir('/proc') if p.isdigit() and open(f'/proc/{p}/stat').read().split()[2] not in 'ZX']
for _ in range(500):  # the last session process may be dying yet
    if len(living()) <= 3: break
    time.sleep(0.01)
len(living()) <= 3
"""
    assert (await session.run(code)).value == "True"


async def test_neighbours_do_not_see_each_other(docker_sandbox: Sandbox) -> None:
    one, two = await docker_sandbox.session(), await docker_sandbox.session()
    serve = "import socket\ns = socket.socket(socket.AF_UNIX)\ns.bind('\\0toolreason')\ns.listen()"
    assert (await one.run(serve)).ok
    meet = await two.run("import socket\nsocket.socket(socket.AF_UNIX).connect('\\0toolreason')")
    assert "refused" in (meet.error or "")
    await one.close()
    await two.close()
