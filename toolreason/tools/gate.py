"""The static gate: what a tool must be before any of it runs (UCT's critic reads after this; the rules are ours).

Pure: text in, findings out, nothing is executed. It keeps honest tools tidy and turns away what is plainly not one. It is no
boundary: names can be reached in ways no reader of source sees. The sandbox is the boundary.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from toolreason.errors import InputError
from toolreason.tools import signature
from toolreason.tools.package import ToolPackage


@cache
def lists() -> dict[str, dict[str, Any]]:
    """gate.toml: by section and key a set of words, in `talk` a list of patterns."""
    text = (resources.files("toolreason.tools") / "gate.toml").read_text(encoding="utf-8")
    read: dict[str, dict[str, Any]] = tomllib.loads(text)
    return {
        section: {key: frozenset(value.split()) if isinstance(value, str) else value for key, value in entries.items()}
        for section, entries in read.items()
    }


def _imports() -> frozenset[str]:
    return frozenset().union(*lists()["imports"].values())


@dataclass(frozen=True, slots=True)
class GateSettings:
    """`imports` are the top-level modules a tool may import, `calls` the built-in names it may not use; sizes are characters."""

    imports: frozenset[str] = field(default_factory=_imports)
    calls: frozenset[str] = field(default_factory=lambda: frozenset(lists()["names"]["calls"]))
    most_code: int = 20_000
    most_tests: int = 20_000
    most_description: int = 1_000
    least_tests: int = 2
    most_tests_functions: int = 50


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a tool is refused. `line` is of the code, or of the tests where `message` begins with "tests:"; 0: of no line."""

    rule: str
    message: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.message} [{self.rule}]" + (f", line {self.line}" if self.line else "")


@dataclass(frozen=True, slots=True)
class GateReport:
    ok: bool
    findings: tuple[Finding, ...] = field(default=())


def check(package: ToolPackage, *, answer: str | Iterable[str] | None = None, settings: GateSettings | None = None) -> GateReport:
    """Everything that speaks against `package`. `answer` is the gold answer, or all of them, of the problem it was made for."""
    from toolreason.tools import gate_answer, gate_code, gate_tests, gate_text

    settings = settings or GateSettings()
    found = [*gate_text.findings(package, settings)]
    if not any(one.rule == "size" for one in found):  # what is too long is not read
        found += gate_code.findings(package.code, package.name, settings)
        found += gate_tests.findings(package.tests, package.name, settings)
        found += _declared(package)
        answers = [answer] if isinstance(answer, str) else list(answer or ())
        found += gate_answer.findings(package, answers)
    found = list(dict.fromkeys(found))
    return GateReport(not found, tuple(found))


def _declared(package: ToolPackage) -> list[Finding]:
    """What the package says of its code must be what the code says."""
    try:
        read = signature.read(package.code, package.name)
    except InputError:
        return []  # gate_code says it
    found = []
    if package.parameters != read.parameters:
        found.append(Finding("signature", "the parameters are not those of the code: leave them to signature.package()"))
    if set(package.requirements) != set(read.requirements):
        found.append(Finding("signature", f"the code imports {', '.join(read.requirements) or 'nothing'} beyond Python's library"))
    return found
