"""The verifier as a whole: which grader decides, and what is never held against the model."""

import ast
import contextlib
import json

import pytest

from toolreason.errors import SandboxError
from toolreason.types import (
    CellResult,
    Judgement,
    Outcome,
    Problem,
    Reference,
    ReferenceKind,
    Segment,
    Source,
    StopReason,
    Trajectory,
)
from toolreason.verify import Verifier

MATH = Problem("1", "?", Reference(ReferenceKind.MATH, "42"))
CHOICE = Problem("1", "?", Reference(ReferenceKind.CHOICE, "B", choices=("red", "blue")))
CODE = Problem("1", "?", Reference(ReferenceKind.CODE, tests=("assert double(2) == 4", "assert double(-1) == -2")))


def trajectory(text, stop=StopReason.ANSWERED):
    segments = (Segment(Source.PROMPT, r"Put it in \boxed{42}. "), Segment(Source.MODEL, text))
    return Trajectory("t", "1", "plain", "scripted", segments, stop)


class InProcess:
    """A sandbox for the trusted programs of these tests. It takes SystemExit for success, as a careless one might."""

    def __init__(self, outcomes=()):
        self.opened = self.closed = 0
        self.outcomes = list(outcomes)

    async def session(self):
        self.opened += 1
        self.names = {}
        return self

    async def run(self, code, *, timeout_s=None, keep=True):
        if self.outcomes and (outcome := self.outcomes.pop(0)):
            if isinstance(outcome, Exception):
                raise outcome
            return CellResult(outcome)
        try:
            *body, last = ast.parse(code).body
            with contextlib.suppress(SystemExit):
                exec(compile(ast.Module(body, []), "cell", "exec"), self.names)
                return CellResult(Outcome.OK, value=repr(eval(compile(ast.Expression(last.value), "cell", "eval"), self.names)))
            return CellResult(Outcome.OK)
        except Exception as error:
            return CellResult(Outcome.ERROR, error=f"{type(error).__name__}: {error}")

    async def close(self):
        self.closed += 1

    async def aclose(self):
        pass


async def test_math_is_graded_in_workers_that_are_gone_afterwards():
    async with Verifier(workers=1, timeout_s=30) as verifier:
        right = await verifier(MATH, trajectory(r"So \boxed{42.0}"))
        wrong = await verifier(MATH, trajectory(r"\boxed{42} or rather \boxed{41}"))
        workers = [worker.process for worker in verifier._workers._idle]
    assert right.judgement is Judgement.CORRECT
    assert (wrong.judgement, wrong.answer) == (Judgement.WRONG, "41")
    assert workers
    assert all(process.returncode is not None for process in workers)


async def test_the_prompt_is_no_answer():
    verdict = await Verifier()(MATH, trajectory("I don't know."))
    assert (verdict.judgement, verdict.answer, verdict.reason) == (Judgement.WRONG, None, "no answer")


async def test_an_aborted_rollout_is_unscored_whatever_it_says():
    verdict = await Verifier()(MATH, trajectory(r"\boxed{42}", StopReason.ABORTED))
    assert verdict.judgement is Judgement.UNSCORED


async def test_without_a_reference_nothing_is_scored():
    verdict = await Verifier()(Problem("1", "?"), trajectory(r"\boxed{42}"))
    assert (verdict.judgement, verdict.answer) == (Judgement.UNSCORED, "42")


async def test_a_grader_that_fails_is_unscored(monkeypatch):
    async def run(*_, **__):
        from toolreason.errors import VerifierError

        raise VerifierError("a grading worker died")

    verifier = Verifier()
    monkeypatch.setattr(verifier._workers, "run", run)
    verdict = await verifier(MATH, trajectory(r"\boxed{42}"))
    assert (verdict.judgement, verdict.reason) == (Judgement.UNSCORED, "a grading worker died")


@pytest.mark.parametrize(
    ("text", "judgement", "answer"),
    [
        (r"\boxed{B}", Judgement.CORRECT, "B"),
        ("Answer: (B)", Judgement.CORRECT, "B"),
        (r"\boxed{\text{blue}}", Judgement.CORRECT, "B"),
        (r"\boxed{A}", Judgement.WRONG, "A"),
        (r"\boxed{C}", Judgement.WRONG, "C"),
        ("hm", Judgement.WRONG, None),
    ],
)
async def test_choice(text, judgement, answer):
    verdict = await Verifier()(CHOICE, trajectory(text))
    assert (verdict.judgement, verdict.answer) == (judgement, answer)


async def test_a_choice_whose_reference_is_no_option_is_unscored():
    problem = Problem("1", "?", Reference(ReferenceKind.CHOICE, "E", choices=("red", "blue")))
    assert (await Verifier()(problem, trajectory(r"\boxed{A}"))).judgement is Judgement.UNSCORED


@pytest.mark.parametrize(
    ("program", "judgement", "reason"),
    [
        ("def double(n):\n    return 2 * n", Judgement.CORRECT, ""),
        ("def double(n):\n    return abs(2 * n)", Judgement.WRONG, "test 2 of 2 failed: AssertionError: "),
        ("1/0", Judgement.WRONG, "the program failed: ZeroDivisionError: division by zero"),
        ("def double(n) return", Judgement.WRONG, "the program failed: SyntaxError"),
        ("raise SystemExit", Judgement.WRONG, "the program failed: it ended early"),
        ("def double(n):\n    raise SystemExit(0)", Judgement.WRONG, "test 1 of 2 failed: it ended early"),
    ],
)
async def test_code_passes_only_if_every_cell_runs_to_its_end(program, judgement, reason):
    sandbox = InProcess()
    verdict = await Verifier(sandbox)(CODE, trajectory(f"```python\n{program}\n```"))
    assert verdict.judgement is judgement
    assert verdict.reason.startswith(reason)
    assert sandbox.opened == sandbox.closed == 1


@pytest.mark.parametrize("outcome", [Outcome.TIMEOUT, Outcome.MEMORY, Outcome.CRASHED, Outcome.OUTPUT])
async def test_code_that_hangs_or_crashes_is_wrong(outcome):
    verdict = await Verifier(InProcess([None, outcome]))(CODE, trajectory("```python\ndef double(n): return 2 * n\n```"))
    assert (verdict.judgement, verdict.reason) == (Judgement.WRONG, f"test 1 of 2 failed: {outcome.value}")


async def test_a_sandbox_that_fails_is_never_held_against_the_model():
    sandbox = InProcess([None, SandboxError("engine gone")])
    verdict = await Verifier(sandbox)(CODE, trajectory("```python\ndef double(n): return 2 * n\n```"))
    assert verdict.judgement is Judgement.UNSCORED
    assert "engine gone" in verdict.reason
    assert sandbox.opened == sandbox.closed == 1


RUNNER_CASES = [
    ("def double(n):\n    return 2 * n", Judgement.CORRECT),
    ("def double(n):\n    return n", Judgement.WRONG),
    ("def double(n):\n    raise SystemExit(0)", Judgement.WRONG),
    ("import os\ndef double(n):\n    os._exit(0)", Judgement.WRONG),
    ("def double(n):\n    while True: pass", Judgement.WRONG),
]


async def runner_cases(sandbox, cases):
    verifier = Verifier(sandbox, timeout_s=5)
    return [(await verifier(CODE, trajectory(f"```python\n{program}\n```"))).judgement for program, _ in cases]


async def test_the_real_runner_decides_the_same():
    from toolreason.execution.local import LocalSandbox

    async with LocalSandbox() as sandbox:
        assert await runner_cases(sandbox, RUNNER_CASES) == [judgement for _, judgement in RUNNER_CASES]


@pytest.mark.docker
async def test_a_container_decides_the_same():
    from toolreason.execution.docker import DockerSandbox

    async with DockerSandbox(pool=0, max_sessions=1) as sandbox:
        assert await runner_cases(sandbox, RUNNER_CASES[::3]) == [Judgement.CORRECT, Judgement.WRONG]


async def test_code_without_a_sandbox_is_unscored_and_names_the_fix():
    verdict = await Verifier()(CODE, trajectory("```python\npass\n```"))
    assert verdict.judgement is Judgement.UNSCORED
    assert "Verifier(sandbox=...)" in verdict.reason


WEEKDAY = {"question": "?", "answer": "Friday", "metadata": {"task": "weekday_of_date"}}
COUNTDOWN = {"question": "?", "answer": "94*4 - 61 - 6", "metadata": {"numbers": [6, 61, 94, 4], "target": 309}}
FACTORS = {"question": "?", "answer": "3 \u00d7 3 \u00d7 37", "metadata": {"number": 333, "factors": [3, 3, 37]}}

GYM = [
    ("prime_factorization", FACTORS, "3 \u00d7 3 \u00d7 37", Judgement.CORRECT),
    ("prime_factorization", FACTORS, r"3 \times 3 \times 37", Judgement.CORRECT),
    ("prime_factorization", FACTORS, r"3 \cdot 111", Judgement.WRONG),
    ("prime_factorization", FACTORS, "three", Judgement.UNSCORED),
    ("countdown", COUNTDOWN, r"4 \times 94 - (61 + 6)", Judgement.CORRECT),
    ("gcd", {"question": "?", "answer": "12"}, "12", Judgement.CORRECT),
    ("gcd", {"question": "?", "answer": "12"}, "$12$", Judgement.CORRECT),
    ("gcd", {"question": "?", "answer": "12"}, "13", Judgement.WRONG),
    ("gcd", {"question": "?", "answer": "12"}, "12 or 13", Judgement.WRONG),
    ("calendar_arithmetic", WEEKDAY, r"\text{Friday}", Judgement.CORRECT),
    ("calendar_arithmetic", WEEKDAY, "Monday", Judgement.WRONG),
    ("countdown", COUNTDOWN, "4*94 - (61 + 6)", Judgement.CORRECT),
    ("countdown", COUNTDOWN, "309", Judgement.WRONG),
    ("countdown", COUNTDOWN, "__import__('os').getpid()", Judgement.WRONG),
    ("no_such_family", {}, "1", Judgement.UNSCORED),
    ("gcd", {}, "1", Judgement.UNSCORED),
]


async def test_gym_items_are_scored_by_their_own_scorer():
    async with Verifier(workers=1, timeout_s=30) as verifier:
        for dataset, entry, answer, judgement in GYM:
            problem = Problem("1", "?", Reference(ReferenceKind.GYM, dataset=dataset, entry=json.dumps(entry)))
            verdict = await verifier.grade(problem, f"<answer>{answer}</answer>")
            assert verdict.judgement is judgement, (dataset, answer, verdict.reason)


@pytest.mark.parametrize(
    "dataset", ["countdown", "puzzle24", "polynomial_multiplication", "simple_integration", "n_queens", "binary_matrix"]
)
def test_answers_that_scorers_would_evaluate_never_reach_them_as_code(dataset):
    from toolreason.verify.gym import harmless

    for code in ("__import__('os').system('x')", "open('x')", "(1).__class__", "print(1)", "(lambda: 0)()"):
        assert not harmless(dataset, code)


@pytest.mark.parametrize(
    ("dataset", "answer"),
    [
        ("countdown", "94*4 - (61 + 6)"),
        ("simple_integration", "X**3/3 + C"),
        ("intermediate_integration", "-cos(2*x)/2 + C"),
        ("binary_matrix", "[[0, 1], [1, 0]]"),
    ],
)
def test_honest_answers_reach_their_scorer(dataset, answer):
    from toolreason.verify.gym import harmless

    assert harmless(dataset, answer)
