"""A tool as it is kept: code with tests, a typed signature, and where it came from (UCT, arXiv 2602.01983; the fields are ours)."""

from __future__ import annotations

import json
import keyword
import re
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any

from toolreason.errors import InputError
from toolreason.types import coerce_enum, coerce_tuples

NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class Status(StrEnum):
    CANDIDATE = "candidate"  # made, and not yet through the gate
    ADMITTED = "admitted"
    DEPRECATED = "deprecated"  # no longer offered; its versions stay
    BROKEN = "broken"  # failed in use, to be repaired


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a tool is asked for. A repair ticket names the tool it `repairs`, as `name@version`, and the call that failed."""

    need: str
    context: str = ""
    problem_id: str = ""
    repairs: str = ""
    failing: str = ""


@dataclass(frozen=True, slots=True)
class ToolPackage:
    """One version of a tool. A change is a new version; nothing is ever overwritten.

    `name` is the function that `code`, a module, defines for others. `tests` is a module of functions `test_*`, which import it by
    `from toolbox import NAME`. `parameters` is the JSON schema of its arguments, an object. `requirements` are modules that it
    imports beyond Python's own library. `parents` are the versions, `name@version`, that this one was made from; `author` is
    "human" or the policy that wrote it.
    """

    name: str
    description: str
    code: str
    tests: str
    parameters: dict[str, Any] = field(default_factory=dict, hash=False)
    category: str = "general"
    requirements: tuple[str, ...] = ()
    version: int = 1
    parents: tuple[str, ...] = ()
    ticket: Ticket | None = None
    author: str = "human"
    status: Status = Status.CANDIDATE
    reason: str = ""  # why it has this status
    created: str = ""  # ISO 8601, UTC

    def __post_init__(self) -> None:
        coerce_enum(self, "status", Status)
        coerce_tuples(self, "requirements", "parents")
        check_name(self.name)
        if self.version < 1:
            raise InputError(f"{self.name}: version {self.version} is below 1")

    @property
    def identity(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def hash(self) -> str:
        """Names the content: what it does, and what is said of it."""
        content = [self.name, self.description, self.code, self.tests, self.parameters, list(self.requirements)]
        return sha256(json.dumps(content, sort_keys=True).encode("utf-8", "backslashreplace")).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Use:
    """One call of a tool by an agent. `tokens` are those that the call and its result took, `latency_s` wall time."""

    tool: str  # name@version
    problem_id: str
    ok: bool
    latency_s: float = 0.0
    tokens: int = 0


def check_name(name: str) -> None:
    """Raises InputError for a name that is no plain lower-case identifier: it becomes a function, a file and a key."""
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise InputError(
            f"{name[:80]!r} is no name of a tool: use lower-case letters, digits and _, 64 at most, as in count_primes"
        )
