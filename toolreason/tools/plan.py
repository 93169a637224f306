"""What a consolidation means to do, as data: steps, each of which changes one tool, can be checked against the library, and
undone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from toolreason.errors import InputError
from toolreason.tools.events import unpack_package
from toolreason.tools.health import Health
from toolreason.tools.package import Status, ToolPackage
from toolreason.types import coerce_enum, coerce_tuples

FORMAT = 1


class Action(StrEnum):
    MERGE = "merge"  # a new version that stands for several tools
    CLASSIFY = "classify"  # a new version in another category
    DEPRECATE = "deprecate"


class Progress(StrEnum):
    """How far a step went, as far as the file knows: what counts is what the library has."""

    PLANNED = "planned"
    STARTED = "started"
    DONE = "done"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True)
class Step:
    """One change of `tool`, whose head is `version` with `status`, because of `old_reason`, before it.

    A merge and a classification bring `package`, the next version; `members` are the tools, as name@version, that a merge stands
    for, `tool` first. A deprecation sets `reason`; `into` names the tool that stands in for it, if one does, and `unused` that it
    is for want of use.
    """

    action: Action
    tool: str
    version: int
    status: Status
    reason: str
    old_reason: str = ""
    package: ToolPackage | None = None
    members: tuple[str, ...] = ()
    into: str = ""
    unused: bool = False
    progress: Progress = Progress.PLANNED

    def __post_init__(self) -> None:
        coerce_enum(self, "action", Action)
        coerce_enum(self, "status", Status)
        coerce_enum(self, "progress", Progress)
        coerce_tuples(self, "members")
        if (self.package is None) != (self.action is Action.DEPRECATE):
            raise InputError(f"a step that is to {self.action} {self.tool} has {'no ' if self.package is None else 'a '}package")

    @property
    def what(self) -> str:
        """In words."""
        if self.action is Action.MERGE:
            return f"stands for {', '.join(self.members[1:])} too: a new version with the tests of all"
        if self.action is Action.CLASSIFY and self.package:
            return f"goes into the category {self.package.category}"
        return "is deprecated"

    @property
    def inverse(self) -> dict[str, Any]:
        """What takes it back: a method of the library, with its arguments."""
        if self.action is Action.DEPRECATE:
            old = {"status": self.status.value, "reason": self.old_reason}
            return {"call": "set_status", "name": self.tool, "version": self.version, **old}
        return {"call": "rollback", "name": self.tool, "version": self.version}


@dataclass(frozen=True, slots=True)
class Left:
    """Tools that are alike and stay apart, and why."""

    tools: tuple[str, ...]
    reason: str

    def __post_init__(self) -> None:
        coerce_tuples(self, "tools")


@dataclass(frozen=True, slots=True)
class Plan:
    """`before` is the library's health as found, `after` what it is, or, where nothing was applied, would be. `library` says
    where it lies, without passwords. `tokens` are what a policy took to write merged tools.
    """

    steps: tuple[Step, ...] = ()
    left: tuple[Left, ...] = ()
    before: Health | None = None
    after: Health | None = None
    library: str = ""
    made: str = ""  # ISO 8601, UTC
    tokens: int = 0
    format: int = field(default=FORMAT)

    def __post_init__(self) -> None:
        coerce_tuples(self, "steps", "left")

    @property
    def done(self) -> int:
        """How many steps are done, as far as the file knows."""
        return sum(step.progress is Progress.DONE for step in self.steps)

    def with_step(self, number: int, progress: Progress) -> Plan:
        steps = [*self.steps]
        steps[number] = replace(steps[number], progress=progress)
        return replace(self, steps=tuple(steps))


def to_json(plan: Plan) -> dict[str, Any]:
    """With `what` and `inverse` of each step, for people."""
    content = asdict(plan)
    for step, row in zip(plan.steps, content["steps"], strict=True):
        row |= {"what": step.what, "inverse": step.inverse}
    return content


def dumps(plan: Plan) -> str:
    return json.dumps(to_json(plan), indent=2) + "\n"


def read(file: Path) -> Plan:
    """The plan in a file. Raises InputError where there is none that can be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise InputError(f"{file} is a plan of format {content['format']}, and this release reads {FORMAT}")
        steps = [Step(**_known(Step, row) | {"package": _package(row.get("package"))}) for row in content["steps"]]
        left = [Left(**_known(Left, row)) for row in content["left"]]
        health = {key: Health(**content[key]) if content.get(key) else None for key in ("before", "after")}
        return Plan(**_known(Plan, content) | {"steps": steps, "left": left} | health)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{file} is no plan that `toolreason tools consolidate` wrote ({error!r})") from error


def _package(content: Any) -> ToolPackage | None:
    return None if content is None else unpack_package(content)


def _known(kind: Any, content: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name in kind.__dataclass_fields__}


def projected(heads: Iterable[ToolPackage], steps: Iterable[Step]) -> list[ToolPackage]:
    """The heads as the steps would leave them."""
    by_name = {one.name: one for one in heads}
    for step in steps:
        if step.package is not None:
            by_name[step.tool] = replace(step.package, status=Status.ADMITTED)
        else:
            by_name[step.tool] = replace(by_name[step.tool], status=Status.DEPRECATED, reason=step.reason)
    return list(by_name.values())
