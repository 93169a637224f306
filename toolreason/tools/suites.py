"""Test files put together: what passed before stands beside what is new."""

from __future__ import annotations

import ast

from toolreason.tools import signature
from toolreason.tools.gate_tests import test_functions


def join(old: str, new: str) -> str:
    """Both test files as one. Tests of the new one whose names are taken get a number. Raises InputError where one is no Python."""
    there = signature.parse(old, "the test file")
    added = signature.parse(new, "the test file")
    taken = {one.name for one in test_functions(there)} | {one.name for one in test_functions(added)}
    seen = {one.name for one in test_functions(there)}
    for test in test_functions(added):
        if test.name in seen:
            test.name = next(name for number in range(2, 10_000) if (name := f"{test.name}_{number}") not in taken)
            taken.add(test.name)
        seen.add(test.name)
    kept = {ast.dump(node) for node in there.body}
    news = [node for node in added.body if ast.dump(node) not in kept]
    if not news:
        return signature.tidy(old)
    text = "\n\n".join(ast.unparse(node) for node in news)
    return signature.tidy(f"{signature.tidy(old)}\n\n{text}")


def case(name: str, call: str, number: int) -> str:
    """A test that this call, which found the tool `name` faulty, is answered, or refused by an error that says so."""
    return (
        f"from {signature.TOOLBOX} import {name}\n\n\n"
        f"def test_repair_{number}() -> None:\n"
        f"    try:\n        {call}\n"
        "    except (ValueError, TypeError) as error:\n        assert str(error)\n"
    )
