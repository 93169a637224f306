"""What every real sandbox does, container or not. The session is shared: each test leaves it as a next one may find it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from toolreason.errors import SandboxError, SessionLost
from toolreason.execution import Sandbox, Session
from toolreason.types import Outcome, to_json

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(sandbox: Sandbox) -> AsyncIterator[Session]:
    leased = await sandbox.session()
    yield leased
    await leased.close()


async def test_a_cell_gives_its_output_and_the_value_of_its_last_expression(session: Session) -> None:
    result = await session.run("import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7")
    assert (result.outcome, result.stdout, result.stderr, result.value) == (Outcome.OK, "out\n", "err\n", "42")
    assert (result.error, result.traceback, result.dropped) == (None, "", 0)
    assert result.duration_s > 0


async def test_none_and_statements_have_no_value(session: Session) -> None:
    assert (await session.run("print('x')")).value is None
    assert (await session.run("y = 3")).value is None
    assert (await session.run("")).value is None


async def test_variables_imports_functions_and_classes_survive_from_cell_to_cell(session: Session) -> None:
    await session.run("import math\nn = 5\ndef f(k): return math.factorial(k)\nclass P: pass\np = P()")
    assert (await session.run("f(n), isinstance(p, P)")).value == "(120, True)"


async def test_packages_are_there(session: Session) -> None:
    result = await session.run("import sympy, numpy, networkx\nsympy.Symbol('x') ** 2 + int(numpy.arange(4).sum())")
    assert result.value == "x**2 + 6"


async def test_an_exception_is_an_error_with_the_cells_own_lines_and_keeps_what_came_before_it(session: Session) -> None:
    await session.run("def halve(k):\n    return 1 / k")
    result = await session.run("before = 1\nhalve(0)")
    assert (result.outcome, result.error) == (Outcome.ERROR, "ZeroDivisionError: division by zero")
    assert "line 2, in <module>\n    halve(0)" in result.traceback
    assert "line 2, in halve\n    return 1 / k" in result.traceback
    assert "runner" not in result.traceback
    assert (await session.run("before")).value == "1"


async def test_library_frames_are_left_out_of_a_traceback(session: Session) -> None:
    result = await session.run("import json\njson.loads('{')")
    assert result.error is not None
    assert result.error.startswith("json.decoder.JSONDecodeError: ")
    assert "json.loads('{')" in result.traceback
    assert "decoder.py" not in result.traceback


@pytest.mark.parametrize(
    "code", ["raise SystemExit(3)", "import sys; sys.exit()", "exit()", "raise KeyboardInterrupt", "1 +", "a\0b"]
)
async def test_leaving_and_bad_syntax_are_errors_like_any_other(session: Session, code: str) -> None:
    await session.run("kept = 1")
    assert (await session.run(code)).outcome is Outcome.ERROR
    assert (await session.run("kept")).value == "1"


async def test_a_syntax_error_shows_the_line_and_no_empty_traceback(session: Session) -> None:
    result = await session.run("x = 1\nif x\n    print(x)")
    assert "if x\n" in result.traceback
    assert "Traceback" not in result.traceback


async def test_a_timed_out_cell_shows_what_it_printed_and_leaves_no_trace(session: Session) -> None:
    await session.run("t = [1]")
    result = await session.run("t.append(2)\nprint('so far')\nwhile True: pass", timeout_s=1)
    assert (result.outcome, result.stdout) == (Outcome.TIMEOUT, "so far\n")
    assert (await session.run("t")).value == "[1]"


async def test_a_crashed_cell_leaves_no_trace(session: Session) -> None:
    await session.run("c = 1")
    result = await session.run("c = 2\nimport os\nos._exit(3)")
    assert result.outcome is Outcome.CRASHED
    assert "exit code 3" in (result.error or "")
    result = await session.run("c = 3\nimport os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    assert result.outcome is Outcome.CRASHED
    assert "SIGSEGV" in (result.error or "")
    assert (await session.run("c")).value == "1"


async def test_a_cell_out_of_memory_leaves_no_trace(session: Session) -> None:
    await session.run("m = 1")
    assert (await session.run("m = 2\nbig = 'x' * (1 << 31)")).outcome is Outcome.MEMORY
    assert (await session.run("m")).value == "1"


async def test_a_cell_that_prints_without_end_is_stopped(session: Session) -> None:
    await session.run("o = 1")
    result = await session.run("o = 2\nwhile True: print('y' * 1000)")
    assert result.outcome is Outcome.OUTPUT
    assert len(result.stdout) < 1100
    assert result.dropped > 1_000_000
    assert (await session.run("o")).value == "1"


async def test_stateless_cells_keep_nothing(session: Session) -> None:
    await session.run("s = 1")
    assert (await session.run("s = 2\ns", keep=False)).value == "2"
    assert (await session.run("s")).value == "1"


async def test_long_output_keeps_head_and_tail_and_counts_what_it_drops(session: Session) -> None:
    result = await session.run("print('A' + 'é' * 5000 + 'Z')")
    assert result.stdout.startswith("Aé")
    assert result.stdout.endswith("éZ\n")
    assert result.dropped == 5003 - 1000
    assert f"[... {result.dropped} characters dropped ...]" in result.stdout
    assert len(result.stdout.replace(f"\n[... {result.dropped} characters dropped ...]\n", "")) == 1000


async def test_a_long_value_keeps_head_and_tail(session: Session) -> None:
    result = await session.run("list(range(5000))")
    assert result.value is not None
    assert result.value.startswith("[0, 1")
    assert result.value.endswith("4999]")
    assert len(result.value) < 1100


async def test_big_integers_print(session: Session) -> None:
    result = await session.run("10 ** 5000")
    assert (result.outcome, (result.value or "")[:2]) == (Outcome.OK, "10")


async def test_the_state_of_random_survives(session: Session) -> None:
    await session.run("import random\nrandom.seed(1)")
    assert (await session.run("random.random()")).value == "0.13436424411240122"


async def test_a_surrogate_or_a_nul_byte_comes_back_as_text_that_json_carries(session: Session) -> None:
    result = await session.run("print('\\ud800', '\\0')\n'\\udfff'")
    assert (result.stdout, result.value) == ("\\ud800 \0\n", "'\\udfff'")
    assert "�" in (await session.run("import os\nos.write(1, b'\\xff')")).stdout
    assert (await session.run("'\ud800'")).outcome is Outcome.ERROR
    assert to_json(result)


async def test_classes_of_a_cell_can_be_pickled_and_be_dataclasses(session: Session) -> None:
    await session.run("import pickle, dataclasses\n@dataclasses.dataclass\nclass Point:\n    x: int")
    assert (await session.run("pickle.loads(pickle.dumps(Point(2)))")).value == "Point(x=2)"


async def test_processes_and_threads_of_a_cell_are_waited_for_or_killed(session: Session) -> None:
    code = "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.1), print('late'))).start()"
    assert (await session.run(code)).stdout == "late\n"
    code = "import subprocess\np = subprocess.Popen(['sleep', '1000'], start_new_session=True)\np.pid"
    pid = (await session.run(code)).value
    code = f"""
import pathlib, time
def living():
    try: return pathlib.Path("/proc/{pid}/stat").read_text().split()[2] not in "ZX"
    except OSError: return False
for _ in range(1000):  # it has had its signal, and may be dying yet
    if not living(): break
    time.sleep(0.01)
living()
"""
    assert (await session.run(code)).value == "False"


async def test_daemon_threads_end_with_their_cell(session: Session) -> None:
    code = "import threading, random\nspin = lambda: [None for _ in iter(int, 1)]\nrandom.seed(1)\nd = 5"
    await session.run(code + "\nthreading.Thread(target=spin, daemon=True).start()")
    look = "import os\nlen(os.listdir(f'/proc/{os.getppid()}/task')), threading.active_count(), d, random.random()"
    assert (await session.run(look)).value == "(1, 1, 5, 0.13436424411240122)"


async def test_a_fork_inside_a_cell_does_not_answer_for_it(session: Session) -> None:
    result = await session.run(
        "import os\nchild = os.fork()\nif child: os.wait()\nprint('child' if child == 0 else 'parent')\nchild > 0"
    )
    assert sorted(result.stdout.split()) == ["child", "parent"]
    assert result.value == "True"


async def test_standard_input_is_empty(session: Session) -> None:
    assert (await session.run("input()")).error == "EOFError: EOF when reading a line"


async def test_logging_set_up_in_one_cell_prints_in_the_next(session: Session) -> None:
    await session.run("import logging\nlogging.basicConfig(format='%(message)s')")
    assert (await session.run("logging.warning('heard')")).stderr == "heard\n"


async def test_an_alarm_left_behind_does_not_end_the_session(session: Session) -> None:
    await session.run("import signal\nalarm = 7\nsignal.setitimer(signal.ITIMER_REAL, 1.0)")
    await asyncio.sleep(1.2)
    assert (await session.run("alarm")).value == "7"


async def test_a_state_that_a_cell_destroyed_is_rebuilt(session: Session) -> None:
    await session.run("r = 11")
    result = await session.run("import os\nos.kill(os.getppid(), 9)\nos._exit(1)")
    assert result.outcome is Outcome.CRASHED
    assert (await session.run("r")).value == "11"


async def test_cells_of_one_session_run_one_after_the_other(session: Session) -> None:
    await session.run("order = []")
    await asyncio.gather(*(session.run(f"order.append({i})") for i in range(5)))
    assert (await session.run("sorted(order)")).value == "[0, 1, 2, 3, 4]"


async def test_too_long_a_cell_is_the_models_error(session: Session) -> None:
    assert (await session.run("#" * (2 << 20))).outcome is Outcome.ERROR


async def test_a_call_made_ready_but_not_begun_may_be_cancelled(session: Session) -> None:
    await session.run("w = 1")
    running = asyncio.ensure_future(session.run("import time\ntime.sleep(0.3)"))
    await asyncio.sleep(0)
    waiting = asyncio.ensure_future(session.run("w = 2"))
    await asyncio.sleep(0)
    waiting.cancel()
    assert (await running).ok
    assert (await session.run("w")).value == "1"


async def test_a_closed_session_says_so_and_closes_twice(sandbox: Sandbox) -> None:
    session = await sandbox.session()
    await session.close()
    await session.close()
    with pytest.raises(SessionLost):
        await session.run("1")


async def test_cancelling_a_cell_ends_its_session(sandbox: Sandbox) -> None:
    session = await sandbox.session()
    call = asyncio.ensure_future(session.run("while True: pass"))
    await asyncio.sleep(0.2)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(SessionLost):
        await session.run("1")


async def test_sessions_share_nothing(sandbox: Sandbox) -> None:
    one, two = await sandbox.session(), await sandbox.session()
    await one.run("secret = 1\nopen('note', 'w').write('x')")
    assert (await two.run("secret")).error == "NameError: name 'secret' is not defined"
    assert (await two.run("import os\nos.path.exists('note')")).value == "False"
    await one.close()
    await two.close()


async def test_a_closed_sandbox_leases_nothing(sandbox: Sandbox) -> None:
    other = type(sandbox)()  # type: ignore[call-arg]
    async with other:
        pass
    await other.aclose()
    with pytest.raises(SandboxError):
        await other.session()
