"""Mathematical equality, on gold pairs. `judge` is called in this process wherever it is certain to end."""

import sys

import pytest

from tests.verify.gold_pairs import ACCEPT, REJECT, UNREADABLE_GOLD
from toolreason.types import Judgement, Problem, Reference, ReferenceKind
from toolreason.verify import Verifier
from toolreason.verify.math import judge


@pytest.mark.parametrize(("gold", "answer"), ACCEPT, ids=lambda text: ascii(text)[:40])
def test_equal_answers_are_accepted(gold, answer):
    assert judge(gold, answer) == (Judgement.CORRECT, "")


@pytest.mark.parametrize(("gold", "answer"), REJECT, ids=lambda text: ascii(text)[:40])
def test_other_answers_are_rejected(gold, answer):
    judgement, reason = judge(gold, answer)
    assert judgement == Judgement.WRONG
    assert reason


@pytest.mark.parametrize("gold", UNREADABLE_GOLD, ids=lambda text: text[:10])
def test_an_unreadable_gold_scores_nothing(gold):
    assert judge(gold, "3")[0] == Judgement.UNSCORED


def test_an_overlong_answer_is_wrong_before_anything_reads_it():
    assert judge("3", "3" * 2001) == (Judgement.WRONG, "the answer is longer than 2000 characters")


@pytest.mark.parametrize("code", ["__import__('os').system('x')", "$eval('1')$", "exec(open('x'))", "().__class__", "f'{open}'"])
def test_no_code_in_an_answer_is_compiled_or_run(code):
    """sympy compiles the digits of a number and code of its own making; no name of the answer's ever gets there."""
    compiled, events = [], []
    watching = [True]

    def watch(event, arguments):
        if watching[0]:
            events.append(event)
            if event == "compile":
                compiled.append(str(arguments[0]))

    judge(r"\sqrt{5}", "1+1")  # whatever is imported late is imported now
    sys.addaudithook(watch)
    try:
        judge(r"\sqrt{5}", code)
    finally:
        watching[0] = False
    assert not [source for source in compiled for word in ("__", "system", "eval", "open", "class") if word in source]
    assert not {"os.system", "subprocess.Popen", "os.fork", "os.posix_spawn", "socket.__new__"} & set(events)


@pytest.mark.parametrize(("gold", "answer"), [("5", "9^{9^{9^9}}"), ("9^{9^{9^9}}", "5")])
async def test_a_tower_of_powers_is_bounded_and_unscored(gold, answer):
    problem = Problem("1", "?", Reference(ReferenceKind.MATH, gold))
    async with Verifier(workers=1, timeout_s=1.0) as verifier:
        verdict = await verifier.grade(problem, rf"\boxed{{{answer}}}")
        assert verdict.judgement is Judgement.UNSCORED
        assert "within" in verdict.reason
