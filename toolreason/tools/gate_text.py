"""The gate's rules for texts: sizes, characters that hide, and descriptions that talk to the model and not of the tool."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from toolreason.errors import InputError
from toolreason.tools import signature
from toolreason.tools.gate import Finding, lists

if TYPE_CHECKING:
    from toolreason.tools.gate import GateSettings
    from toolreason.tools.package import ToolPackage

CATEGORY = re.compile(r"[a-z0-9][a-z0-9 _-]{0,39}")
PATTERNS = {
    reason: re.compile("|".join(f"(?:{one})" for one in patterns), re.IGNORECASE | re.DOTALL | re.MULTILINE)
    for reason, patterns in lists()["talk"].items()
}


def findings(package: ToolPackage, settings: GateSettings) -> Iterator[Finding]:
    texts = {"the code": package.code, "tests: the file": package.tests, "the description": package.description}
    most = (settings.most_code, settings.most_tests, settings.most_description)
    for (what, text), limit in zip(texts.items(), most, strict=True):
        if len(text) > limit:
            yield Finding("size", f"{what} has {len(text)} characters: {limit} at most")
        yield from _characters(what, text)
    if not package.description.strip():
        yield Finding("description", "there is no description: give the function a docstring, or --description")
    if package.name in lists()["names"]["reserved"] or package.name.startswith("test_"):
        yield Finding("name", f"{package.name} has a meaning of its own for pytest: choose another name")
    if not CATEGORY.fullmatch(package.category):
        yield Finding("category", "a category has lower-case letters, digits, blanks, - and _, 40 at most")
    if len(package.code) <= settings.most_code:
        yield from _talk(package)


def _characters(what: str, text: str) -> Iterator[Finding]:
    for number, line in enumerate(text.split("\n"), 1):
        for char in line:
            if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") and char != "\t":
                sign = f"U+{ord(char):04X}"
                yield Finding("characters", f"{what} holds the invisible character {sign}: write it as an escape, or not", number)
                break


def _talk(package: ToolPackage) -> Iterator[Finding]:
    """What a model reads of a tool before it is called: description, docstring, schema."""
    for what, text in (("description", package.description), ("docstring", _docstring(package)), ("schema", _schema(package))):
        for reason in reasons(text):
            yield Finding("description", f"the {what} is refused: {reason}; say only what the tool computes")


def reasons(text: str) -> list[str]:
    """Why a text may not stand where a model reads what a tool is for. It is a filter of plain cases, no proof of harmlessness."""
    plain = unicodedata.normalize("NFKC", text)
    flat = re.sub(r"\s+", " ", plain)
    return [reason for reason, pattern in PATTERNS.items() if pattern.search(plain) or pattern.search(flat)]


def _docstring(package: ToolPackage) -> str:
    try:
        return signature.read(package.code).description
    except InputError:
        return ""


def _schema(package: ToolPackage) -> str:
    """The texts in the schema, a line each: names of parameters, defaults, choices."""
    found: list[str] = []
    waiting: list[Any] = [package.parameters]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, str):
            found.append(one)
    return "\n".join(found)
