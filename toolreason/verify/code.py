"""Code against tests, in a session of its own: never the one in which the model worked, which it could have prepared.

What is not covered: the program shares the interpreter with its tests, so a program written to fool them (by classes that equal
everything, say) can. Each test ends in a value nobody could guess beforehand, so that leaving early is no way to pass.
"""

from __future__ import annotations

import secrets

from toolreason.errors import InfrastructureError
from toolreason.execution.base import Sandbox, Session
from toolreason.types import CellResult, Judgement, Reference, Verdict
from toolreason.verify import extract


async def judge(reference: Reference, response: str, sandbox: Sandbox | None, timeout_s: float) -> Verdict:
    """Run the last Python block of the response as the first cell and each test as a cell, `timeout_s` each."""
    if sandbox is None:
        return Verdict(Judgement.UNSCORED, reason="code needs a sandbox: make the verifier with Verifier(sandbox=...)")
    if not reference.tests:
        return Verdict(Judgement.UNSCORED, reason="the reference has no tests")
    program = extract.program(response)
    if program is None:
        return Verdict(Judgement.WRONG, reason="no answer")
    try:
        session = await sandbox.session()
        try:
            reason = await _failure(session, program, reference.tests, timeout_s)
        finally:
            await session.close()
    except InfrastructureError as error:
        return Verdict(Judgement.UNSCORED, program, f"the sandbox failed: {error}")
    return Verdict(Judgement.WRONG if reason else Judgement.CORRECT, program, reason)


async def _failure(session: Session, program: str, tests: tuple[str, ...], timeout_s: float) -> str:
    """Why it is wrong; empty when every cell ran to its end."""
    for number, cell in enumerate((program, *tests)):
        token = secrets.token_hex(8)
        result = await session.run(f"{cell}\n{token!r}\n", timeout_s=timeout_s)
        if not result.ok or result.value != repr(token):
            return f"{f'test {number} of {len(tests)}' if number else 'the program'} failed: {_why(result)}"
    return ""


def _why(result: CellResult) -> str:
    return (result.error or ("it ended early" if result.ok else result.outcome.value))[:300]
