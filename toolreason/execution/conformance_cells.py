"""Checks: what a cell gives back, and what stays from one to the next."""

from __future__ import annotations

import asyncio

from toolreason.errors import SandboxError, SessionLost
from toolreason.execution.base import Session
from toolreason.execution.conformance import LIMITS, Bench, Failed, ended, equal, on_bench, on_session, true, value, within
from toolreason.types import CellResult, Outcome, to_json


@on_session("cells")
async def a_cell_gives_its_output_and_the_value_of_its_last_expression(session: Session) -> None:
    result = await session.run("import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7")
    equal((result.outcome, result.stdout, result.stderr, result.value), (Outcome.OK, "out\n", "err\n", "42"))
    equal((result.error, result.traceback, result.dropped), (None, "", 0))
    true(result.duration_s > 0, "it took no time")


@on_session("cells")
async def none_and_statements_have_no_value(session: Session) -> None:
    for code in ("print('x')", "y = 3", ""):
        equal(ended(await session.run(code)).value, None)


@on_session("cells")
async def variables_imports_functions_and_classes_survive_from_cell_to_cell(session: Session) -> None:
    await session.run("import math\nn = 5\ndef f(k): return math.factorial(k)\nclass P: pass\np = P()")
    await value(session, "f(n), isinstance(p, P)", (120, True))


@on_session("cells")
async def packages_are_there(session: Session) -> None:
    await value(session, "import sympy, numpy, networkx\nsympy.Symbol('x') ** 2 + int(numpy.arange(4).sum())", "x**2 + 6")


@on_session("cells")
async def an_exception_is_an_error_with_the_cells_own_lines_and_keeps_what_came_before_it(session: Session) -> None:
    await session.run("def halve(k):\n    return 1 / k")
    result = await session.run("before = 1\nhalve(0)")
    equal((result.outcome, result.error), (Outcome.ERROR, "ZeroDivisionError: division by zero"))
    within("line 2, in <module>\n    halve(0)", result.traceback)
    within("line 2, in halve\n    return 1 / k", result.traceback)
    true("runner" not in result.traceback, f"the runner's own frames: {result.traceback}")
    await value(session, "before", 1)


@on_session("cells")
async def library_frames_are_left_out_of_a_traceback(session: Session) -> None:
    result = await session.run("import json\njson.loads('{')")
    within("json.decoder.JSONDecodeError: ", result.error)
    within("json.loads('{')", result.traceback)
    true("decoder.py" not in result.traceback, f"frames of a library: {result.traceback}")


@on_session("cells")
async def leaving_and_bad_syntax_are_errors_like_any_other(session: Session) -> None:
    await session.run("kept = 1")
    for code in ("raise SystemExit(3)", "import sys; sys.exit()", "exit()", "raise KeyboardInterrupt", "1 +", "a\0b"):
        ended(await session.run(code), Outcome.ERROR)
        await value(session, "kept", 1)


@on_session("cells")
async def a_syntax_error_shows_the_line_and_no_empty_traceback(session: Session) -> None:
    result = await session.run("x = 1\nif x\n    print(x)")
    within("if x\n", result.traceback)
    true("Traceback" not in result.traceback, "an empty traceback")


@on_session("cells")
async def long_output_keeps_head_and_tail_and_counts_what_it_drops(session: Session) -> None:
    result = await session.run("print('A' + 'é' * 5000 + 'Z')")
    mark = f"\n[... {result.dropped} characters dropped ...]\n"
    equal((result.stdout[:2], result.stdout[-3:], result.dropped), ("Aé", "éZ\n", 5003 - 1000))
    equal(len(result.stdout.replace(mark, "")), 1000)


@on_session("cells")
async def a_long_value_keeps_head_and_tail(session: Session) -> None:
    text = (await session.run("list(range(5000))")).value or ""
    true(text.startswith("[0, 1") and text.endswith("4999]") and len(text) < 1100, f"{len(text)} characters: {text[:60]}")


@on_session("cells")
async def big_integers_print(session: Session) -> None:
    equal((ended(await session.run("10 ** 5000")).value or "")[:2], "10")


@on_session("cells")
async def the_state_of_random_survives(session: Session) -> None:
    await session.run("import random\nrandom.seed(1)")
    await value(session, "random.random()", 0.13436424411240122)


@on_session("cells")
async def a_surrogate_or_a_nul_byte_comes_back_as_text_that_json_carries(session: Session) -> None:
    result = await session.run("print('\\ud800', '\\0')\n'\\udfff'")
    equal((result.stdout, result.value), ("\\ud800 \0\n", "'\\udfff'"))
    true(to_json(result), "no JSON")
    within("�", (await session.run("import os\nos.write(1, b'\\xff')")).stdout)
    ended(await session.run("'\ud800'"), Outcome.ERROR)


@on_session("cells")
async def classes_of_a_cell_can_be_pickled_and_be_dataclasses(session: Session) -> None:
    await session.run("import pickle, dataclasses\n@dataclasses.dataclass\nclass Point:\n    x: int")
    await value(session, "pickle.loads(pickle.dumps(Point(2)))", "Point(x=2)")


@on_session("cells")
async def standard_input_is_empty(session: Session) -> None:
    equal((await session.run("input()")).error, "EOFError: EOF when reading a line")


@on_session("cells")
async def logging_set_up_in_one_cell_prints_in_the_next(session: Session) -> None:
    await session.run("import logging\nlogging.basicConfig(format='%(message)s')")
    equal((await session.run("logging.warning('heard')")).stderr, "heard\n")


@on_session("cells")
async def figures_come_back_as_png(session: Session) -> None:
    result = ended(await session.run("import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.figure(); plt.plot([2, 1]);"))
    equal([figure[:8] for figure in result.figures], ["iVBORw0K"] * 2)
    equal(ended(await session.run("plt.get_fignums()")).value, "[]")


@on_session("cells")
async def too_long_a_cell_is_the_models_error(session: Session) -> None:
    ended(await session.run("#" * (2 << 20)), Outcome.ERROR)


@on_session("processes")
async def threads_and_processes_of_a_cell_are_waited_for_or_killed(session: Session) -> None:
    code = "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.1), print('late'))).start()"
    equal((await session.run(code)).stdout, "late\n")
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
    await value(session, code, False)


@on_session("processes")
async def daemon_threads_end_with_their_cell(session: Session) -> None:
    code = "import threading, random\nspin = lambda: [None for _ in iter(int, 1)]\nrandom.seed(1)\nd = 5"
    await session.run(code + "\nthreading.Thread(target=spin, daemon=True).start()")
    look = "import os\nlen(os.listdir('/proc/self/task')), threading.active_count(), d, random.random()"
    await value(session, look, (1, 1, 5, 0.13436424411240122))


@on_session("processes")
async def a_fork_inside_a_cell_does_not_answer_for_it(session: Session) -> None:
    code = "import os\nchild = os.fork()\nif child: os.wait()\nprint('child' if child == 0 else 'parent')\nchild > 0"
    result = await session.run(code)
    equal((sorted(result.stdout.split()), result.value), (["child", "parent"], "True"))


@on_session("processes")
async def an_alarm_left_behind_does_not_end_the_session(session: Session) -> None:
    await session.run("import signal\nalarm = 7\nsignal.setitimer(signal.ITIMER_REAL, 0.5)")
    await asyncio.sleep(0.7)
    await value(session, "alarm", 7)


@on_session("sessions")
async def cells_of_one_session_run_one_after_the_other(session: Session) -> None:
    await session.run("order = []")
    await asyncio.gather(*(session.run(f"order.append({i})") for i in range(5)))
    await value(session, "sorted(order)", [0, 1, 2, 3, 4])


@on_session("sessions")
async def a_call_that_waits_may_be_cancelled(session: Session) -> None:
    await session.run("w = 1")
    running = asyncio.ensure_future(session.run("import time\ntime.sleep(0.3)"))
    await asyncio.sleep(0)
    waiting = asyncio.ensure_future(session.run("w = 2"))
    await asyncio.sleep(0)
    waiting.cancel()
    ended(await running)
    await value(session, "w", 1)


@on_bench("sessions")
async def a_closed_session_says_so_and_closes_twice(bench: Bench) -> None:
    session = await bench.sandbox.session()
    await session.close()
    await session.close()
    await lost(session)


@on_bench("sessions")
async def cancelling_a_cell_ends_its_session(bench: Bench) -> None:
    async with bench.session() as session:
        call = asyncio.ensure_future(session.run("while True: pass"))
        await asyncio.sleep(0.2)
        call.cancel()
        found = await asyncio.gather(call, return_exceptions=True)
        true(isinstance(found[0], asyncio.CancelledError), f"not cancelled: {found}")
        await lost(session)


@on_bench("sessions")
async def sessions_share_neither_variables_nor_files(bench: Bench) -> None:
    async with bench.session() as one, bench.session() as two:
        await one.run("secret = 1\nopen('note', 'w').write('x')")
        equal((await two.run("secret")).error, "NameError: name 'secret' is not defined")
        await value(two, "import os\nos.path.exists('note')", False)
        equal(await two.files(), [])


@on_bench("sessions")
async def sessions_draw_different_random_numbers(bench: Bench) -> None:
    async with bench.session() as one, bench.session() as two:
        draw = "import random, numpy\nrandom.random(), numpy.random.random()"
        first, second = await one.run(draw), await two.run(draw)
        true(ended(first).value != ended(second).value, f"both drew {first.value}")


@on_bench("sessions")
async def a_closed_sandbox_leases_nothing(bench: Bench) -> None:
    async with bench.opener(LIMITS) as other:
        pass
    await other.aclose()
    try:
        await other.session()
    except SandboxError:
        return
    raise Failed("it leased a session")


async def lost(session: Session) -> CellResult | None:
    """The session answers that it is gone."""
    try:
        result = await session.run("1")
    except SessionLost:
        return None
    raise Failed(f"it still answers: {result}")
