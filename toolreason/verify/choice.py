"""Multiple choice: the letter named in the end against the letter of the reference."""

from __future__ import annotations

from toolreason.types import Judgement, Reference, Verdict
from toolreason.verify import extract


def judge(reference: Reference, response: str) -> Verdict:
    """Correct, wrong, or unscored where the reference names no option."""
    gold = extract.letter(reference.answer, reference.choices)
    if gold is None:
        return Verdict(Judgement.UNSCORED, reason=f"the reference names no option: {reference.answer[:80]!r}")
    found = extract.choice(response, reference.choices)
    if found is not None:
        return Verdict(Judgement.CORRECT, found) if found == gold else Verdict(Judgement.WRONG, found, "another option")
    said = extract.answer(response)
    return Verdict(Judgement.WRONG, said, "no answer" if said is None else "the answer names no single option")
