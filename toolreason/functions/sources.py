"""Where the Python source of an environment's classes comes from. It is text on the host, and run in the sandbox only."""

from __future__ import annotations

from dataclasses import dataclass

from toolreason.errors import ProblemError
from toolreason.types import Environment


@dataclass(frozen=True, slots=True)
class EnvironmentSource:
    """`files` are written into the session's work folder, by path; `main` is the module among them that has the classes.

    Where that module has a function `make(name, config)`, it makes the objects; else a class is called with its config's entries.
    """

    files: dict[str, str]
    main: str


def of(environment: Environment) -> EnvironmentSource:
    """The source of this environment. Raises ProblemError where there is none, SetupError where its package is not there."""
    kind, _, path = environment.package.partition(":")
    if kind == "bfcl" and path:
        from toolreason.functions import bfcl

        return bfcl.source(path, environment.classes)
    if environment.package or not environment.code.strip():
        raise ProblemError("an environment has `code`, or the `package` bfcl:PATH in which it is")
    return EnvironmentSource({"environment_code.py": environment.code}, "environment_code")
