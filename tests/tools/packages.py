"""Small tools for tests of the library."""

from __future__ import annotations

from typing import Any

from toolreason.tools.package import Status, ToolPackage


def tool(name: str, description: str = "", *, body: str = "return n", **more: Any) -> ToolPackage:
    """A package whose content differs by name, description and body."""
    code = f"def {name}(n: int) -> int:\n    {body}\n"
    parameters = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    return ToolPackage(name, description or f"What {name} does.", code, "", parameters, **more)


def admitted(name: str, description: str = "", **more: Any) -> ToolPackage:
    return tool(name, description, status=Status.ADMITTED, **more)
