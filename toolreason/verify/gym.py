"""reasoning-gym's own scorers. Some of them evaluate the answer as Python: those only ever see harmless text."""

from __future__ import annotations

import ast
import json
import re

from toolreason.types import Judgement

MAX_CHARACTERS = 20_000
# What the scorers of reasoning-gym 0.1 hand to `eval` (a literal is meant) and to sympy's `parse_expr` (which evaluates too).
_LITERALS = {"string_insertion", "spiral_matrix", "number_sorting", "binary_matrix", "n_queens"}
_EXPRESSIONS = {"simple_integration", "intermediate_integration", "polynomial_multiplication", "puzzle24", "countdown"}
_NAMES = {
    "sin",
    "cos",
    "tan",
    "sec",
    "csc",
    "cot",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "exp",
    "log",
    "ln",
    "sqrt",
    "pi",
}


def warm() -> None:
    """Import what scoring needs, so that a job's time does not pay for it."""
    import reasoning_gym  # noqa: F401


def judge(dataset: str, entry: str, answer: str) -> tuple[str, str]:
    """(judgement, reason): correct at a score of 1. Unbounded in time: call it in a worker."""
    if len(answer) > MAX_CHARACTERS:
        return Judgement.WRONG, f"the answer is longer than {MAX_CHARACTERS} characters"
    forms = [form for form in _forms(answer) if harmless(dataset, form)]
    if not forms:
        return Judgement.WRONG, "the answer is not of the form asked for"
    from reasoning_gym.factory import DATASETS, get_score_answer_fn

    if dataset not in DATASETS:
        return Judgement.UNSCORED, f"reasoning-gym has no dataset {dataset!r}"
    scorer, item = get_score_answer_fn(dataset), json.loads(entry)
    scores, trouble = [], ""
    for form in forms:
        try:
            scores.append(float(scorer(form, entry=item)))
        except Exception as error:  # most scorers raise at what they cannot read
            trouble = f"reasoning-gym could not score it: {type(error).__name__}: {error}"[:300]
    if not scores:
        return Judgement.UNSCORED, trouble
    best = max(scores)
    return (Judgement.CORRECT, "") if best >= 1.0 else (Judgement.WRONG, f"reasoning-gym scores it {best:g}")


def _forms(answer: str) -> list[str]:
    r"""The answer as it stands, without its LaTeX dressing, and with `\times` as the two signs that scorers read."""
    plain = _plain(answer)
    signs = [re.sub(r"\\(?:times|cdot)(?![A-Za-z])", sign, plain) for sign in ("\u00d7", "*")]
    return list(dict.fromkeys([answer, plain, *signs]))


def _plain(answer: str) -> str:
    r"""`\text{Friday}` is `Friday`: scorers compare plain text, and boxes make models write LaTeX."""
    answer = re.sub(r"\\(?:text|textbf|mathrm|mathbf|texttt|mbox)\s*\{([^{}]*)\}", r"\1", answer.strip().strip("$").strip())
    return re.sub(r"\\([{}_%#&])", r"\1", answer).strip("*` ")


def harmless(dataset: str, answer: str) -> bool:
    """Whether the scorer may see this answer: a literal, or arithmetic over known function names and single letters."""
    if dataset in _LITERALS and "(" in answer:
        try:
            ast.literal_eval(answer)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return False
    if dataset in _EXPRESSIONS:
        names = re.findall(r"[^\W\d]\w*", answer)
        plain = not re.search(r"[^\w\s+\-*/^().,=]|\.\s*[^\W\d]|__", answer)
        return plain and all(len(name) == 1 or name in _NAMES for name in names)
    return True
