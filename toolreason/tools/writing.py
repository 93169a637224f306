"""What a model is asked when a tool is built, and how its answers are read (UCT, arXiv 2602.01983; the wording is ours).

Code and tests come of two independent calls: who writes the tests sees the need and the function's head, never its code.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from toolreason.errors import InputError
from toolreason.policies.base import Message
from toolreason.tools import signature, untrusted
from toolreason.tools.package import Ticket, ToolPackage

CONTEXT = 1_500  # characters of a problem that the builder sees
FEEDBACK = 1_200  # and of the reasons why the last attempt was refused
NEED = 2_000  # of what a ticket asks for
LINE = 400  # of a line that names a tool
CODE, VERDICT = "```python\n", "correct:"  # how the answers begin
_VERDICT = re.compile(r"^[^\w\n]*(correct|safe|general)[^\w\n]+(yes|no|true|false)\b", re.IGNORECASE | re.MULTILINE)
_REASON = re.compile(r"^[^\w\n]*reason[^\w\n]+(.+)$", re.IGNORECASE | re.MULTILINE)


@cache
def _wordings() -> dict[str, str]:
    text = (files("toolreason.tools") / "writing.toml").read_text(encoding="utf-8")
    return {name: str(value).strip() for name, value in tomllib.loads(text).items()}


def _filled(wording: str, /, **values: str) -> str:
    """A wording with its `{names}` filled in, in one pass: what is filled in may hold braces."""
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found.group(1), found.group()), _wordings()[wording])


def code(ticket: Ticket, reasons: Sequence[str] = ()) -> list[Message]:
    """Ask for a function. `reasons`: why the last attempt was refused."""
    return _asked(
        _filled("code", need=_need(ticket), context=untrusted.block(ticket.context, CONTEXT), feedback=_feedback(reasons))
    )


def repair(ticket: Ticket, old: ToolPackage, error: str, reasons: Sequence[str] = ()) -> list[Message]:
    """Ask for a tool's next version."""
    code, failing = untrusted.fenced(old.code), untrusted.fenced(ticket.failing)
    return _asked(_filled("repair", code=code, failing=failing, error=untrusted.line(error), feedback=_feedback(reasons)))


def suite(ticket: Ticket, written: str, reasons: Sequence[str] = ()) -> list[Message]:
    """Ask for the tests of a function, by its head. Raises InputError where `written` is no tool."""
    name = signature.read(written).name
    return _asked(_filled("tests", need=_need(ticket), header=header(written), name=name, feedback=_feedback(reasons)))


def begun(written: str) -> str:
    """How the answer with the tests of a function begins."""
    return f"{CODE}from {signature.TOOLBOX} import {signature.read(written).name}\n\n"


def critic(ticket: Ticket, package: ToolPackage) -> list[Message]:
    code, tests = untrusted.fenced(package.code), untrusted.fenced(package.tests)
    return [{"role": "user", "content": _filled("critic", need=_need(ticket), code=code, tests=tests)}]


def _asked(text: str) -> list[Message]:
    return [{"role": "system", "content": _wordings()["builder"]}, {"role": "user", "content": text}]


def _need(ticket: Ticket) -> str:
    return untrusted.block(ticket.need, NEED)


def _feedback(reasons: Sequence[str]) -> str:
    if not reasons:
        return ""
    listed = "\n".join(f"- {untrusted.line(reason)}" for reason in reasons)[:FEEDBACK]
    return f"\nThe last attempt was refused. Do it otherwise:\n{listed}\n"


def header(written: str, description: str | None = None) -> str:
    """The line that says how a tool is called and, after a colon, the first line of its description (None: of its docstring).

    Raises InputError where it is no tool.
    """
    name = signature.read(written).name
    found = next(node for node in signature.functions(signature.parse(written)) if node.name == name)
    try:
        returns = f" -> {ast.unparse(found.returns)}" if found.returns else ""
        head = f"{name}({ast.unparse(found.args)}){returns}"
    except RecursionError as error:
        raise InputError(f"the signature of {name} is nested too deep: write plain types and defaults") from error
    said = (ast.get_docstring(found) or "") if description is None else description
    return untrusted.line(f"{head}: {said.strip().partition(chr(10))[0]}", LINE)


@dataclass(frozen=True, slots=True)
class Review:
    """The critic's word. What it does not say counts as no."""

    correct: bool = False
    safe: bool = False
    general: bool = False
    reason: str = ""

    @property
    def against(self) -> tuple[str, ...]:
        """Why the tool is refused, nothing where it is not."""
        missing = [name for name in ("correct", "safe", "general") if not getattr(self, name)]
        return (f"the critic: not {', not '.join(missing)}: {self.reason or 'no reason given'}",) if missing else ()


def review(answer: str) -> Review:
    """The critic's answer, read line by line; of several verdicts the last counts."""
    verdicts = {name.lower(): word.lower() in ("yes", "true") for name, word in _VERDICT.findall(answer)}
    reasons = _REASON.findall(answer)
    return Review(**verdicts, reason=untrusted.line(reasons[-1]) if reasons else "")


def offered(packages: Sequence[ToolPackage]) -> str:
    """The tools on offer, a line each, as the task's prompt shows them. What a tool says of itself is data."""
    lines = []
    for package in packages:
        try:
            lines.append(f"- {header(package.code, package.description)}")
        except InputError:  # written by an older gate
            lines.append(untrusted.line(f"- {package.name}: {package.description}", LINE))
    return "\n".join(lines)
