r"""Mathematical equality: exact numbers and lists by ourselves, everything else by math-verify, always in a worker.

An exact answer has to be exact: `0.33333333` is not `1/3`. Lists go item by item, in order where brackets say so. No answer is
evaluated as code: the only parser that sees it is math-verify's LaTeX grammar, which hands sympy nothing but digits to evaluate.
"""

from __future__ import annotations

import re
from typing import Any

from toolreason.types import Judgement
from toolreason.verify import normalise

MAX_CHARACTERS = 2000
_PLACES = 12  # decimals at which math-verify compares floats; its own 6 would take 0.333333 for 1/3
_TEXT = re.compile(r"[^\W\d_]{4,}(?:[\s'-]+[^\W\d_]+)*|[^\W\d_]+(?:[\s'-]+[^\W\d_]{2,})+")
_ASSIGNED = re.compile(r"^[A-Za-z](?:_\{?\w\}?)?\s*=(?P<value>[^=]+)$")


class GoldError(ValueError):
    """The reference itself cannot be read."""


def warm() -> None:
    """Import what grading needs, so that a job's time does not pay for it."""
    import math_verify  # noqa: F401


def judge(gold: str, answer: str) -> tuple[str, str]:
    """(judgement, reason). Unbounded in time: call it in a worker."""
    if len(answer) > MAX_CHARACTERS:
        return Judgement.WRONG, f"the answer is longer than {MAX_CHARACTERS} characters"
    if not gold.strip() or len(gold) > MAX_CHARACTERS:
        return Judgement.UNSCORED, "the reference answer is empty or too long"
    try:
        right = equal(normalise.clean(gold), normalise.clean(answer))
    except GoldError as error:
        return Judgement.UNSCORED, str(error)
    return (Judgement.CORRECT, "") if right else (Judgement.WRONG, "not equal to the reference")


def equal(gold: str, answer: str) -> bool:
    """Whether two cleaned texts mean the same. Not symmetric: the gold says what form is asked for."""
    if not answer:
        return False
    if _squeeze(gold) == _squeeze(answer):
        return True
    if _TEXT.fullmatch(gold):
        return _squeeze(gold).casefold() == _squeeze(answer).casefold()
    if "=" not in gold and (assigned := _ASSIGNED.match(answer)):
        answer = assigned["value"].strip()
    one, other = normalise.quantity(gold), normalise.quantity(answer)
    if one and other:
        return normalise.same(one, other)
    expected, given = normalise.items(gold) if not one else None, normalise.items(answer) if not other else None
    if expected and given:
        return _lists(expected, given)
    return _expressions(gold, answer)


def _squeeze(text: str) -> str:
    return re.sub(r"\s+", "", text)


def _lists(gold: tuple[str, list[str], str], answer: tuple[str, list[str], str]) -> bool:
    """Brackets must agree, where both have them; braces and bare lists have no order."""
    (left, wanted, right), (opening, given, closing) = gold, answer
    if len(wanted) != len(given) or (left and opening and (left, right) != (opening, closing)):
        return False
    named = any("=" in item for item in wanted) and not any("=" in item for item in given)
    if left in ("(", "[") or opening in ("(", "[") or named:
        return all(equal(one, other) for one, other in zip(wanted, given, strict=True))
    rest = list(given)
    for one in wanted:
        match = next((other for other in rest if equal(one, other)), None)
        if match is None:
            return False
        rest.remove(match)
    return True


def _expressions(gold: str, answer: str) -> bool:
    from math_verify import verify

    (gold, gold_unit), (answer, answer_unit) = normalise.unit(gold), normalise.unit(answer)
    if normalise.clash(gold_unit, answer_unit):
        return False
    expected = _parse(gold)
    if not expected or _undefined(expected[0]):
        raise GoldError(f"the reference answer cannot be read: {gold[:80]}")
    given = _parse(answer)
    return bool(given) and bool(verify(expected, given, float_rounding=_PLACES, timeout_seconds=None, allow_set_relation_comp=True))


def _undefined(value: Any) -> bool:
    """Whether it divides by zero somewhere."""
    from sympy import nan, zoo

    return bool(value.has(nan, zoo))


def _parse(text: str) -> list[Any]:
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    rules = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False)
    config = LatexExtractionConfig(boxed_match_priority=-1, normalization_config=rules)
    found: list[Any] = parse(f"${text}$", extraction_config=[config], fallback_mode="no_fallback", parsing_timeout=None)
    return found
