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
from toolreason.tools import signature
from toolreason.tools.package import Ticket, ToolPackage

CONTEXT = 1_500  # characters of a problem that the builder sees
FEEDBACK = 1_200  # and of the reasons why the last attempt was refused
_VERDICT = re.compile(r"^\W*(correct|safe|general)\W+(yes|no|true|false)\b", re.IGNORECASE | re.MULTILINE)
_REASON = re.compile(r"^\W*reason\W+(.+)$", re.IGNORECASE | re.MULTILINE)


@cache
def _wordings() -> dict[str, str]:
    text = (files("toolreason.tools") / "writing.toml").read_text(encoding="utf-8")
    return {name: str(value).strip() for name, value in tomllib.loads(text).items()}


def _filled(wording: str, /, **values: str) -> str:
    """A wording with its `{names}` filled in, in one pass: what is filled in may hold braces."""
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found.group(1), found.group()), _wordings()[wording])


def code(ticket: Ticket, reasons: Sequence[str] = ()) -> list[Message]:
    """Ask for a function. `reasons`: why the last attempt was refused."""
    text = _filled("code", need=ticket.need, context=ticket.context[:CONTEXT], feedback=_feedback(reasons))
    return _asked(text)


def repair(ticket: Ticket, old: ToolPackage, error: str, reasons: Sequence[str] = ()) -> list[Message]:
    """Ask for a tool's next version."""
    text = _filled("repair", code=old.code.rstrip(), failing=ticket.failing, error=error, feedback=_feedback(reasons))
    return _asked(text)


def suite(ticket: Ticket, written: str, reasons: Sequence[str] = ()) -> list[Message]:
    """Ask for the tests of a function, by its head. Raises InputError where `written` is no tool."""
    name = signature.read(written).name
    return _asked(_filled("tests", need=ticket.need, header=header(written), name=name, feedback=_feedback(reasons)))


def critic(ticket: Ticket, package: ToolPackage) -> list[Message]:
    text = _filled("critic", need=ticket.need, code=package.code.rstrip(), tests=package.tests.rstrip())
    return [{"role": "user", "content": text}]


def _asked(text: str) -> list[Message]:
    return [{"role": "system", "content": _wordings()["builder"]}, {"role": "user", "content": text}]


def _feedback(reasons: Sequence[str]) -> str:
    if not reasons:
        return ""
    listed = "\n".join(f"- {reason}" for reason in reasons)[:FEEDBACK]
    return f"\nThe last attempt was refused. Do it otherwise:\n{listed}\n"


def header(written: str) -> str:
    """The line that says how a tool is called, with its docstring's first line. Raises InputError where it is no tool."""
    name = signature.read(written).name
    found = next(node for node in signature.functions(signature.parse(written)) if node.name == name)
    returns = f" -> {ast.unparse(found.returns)}" if found.returns else ""
    said = (ast.get_docstring(found) or "").strip().partition("\n")[0]
    return f"{name}({ast.unparse(found.args)}){returns}: {said}"


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
    return Review(**verdicts, reason=reasons[-1].strip()[:300] if reasons else "")


def offered(packages: Sequence[ToolPackage]) -> str:
    """The tools on offer, a line each, as the task's prompt shows them. What a tool says of itself is data."""
    lines = []
    for package in packages:
        try:
            lines.append(f"- {header(package.code)}")
        except InputError:  # written by an older gate
            lines.append(f"- {package.name}: {package.description}")
    return "\n".join(lines)
