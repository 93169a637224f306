"""Test files put together: what passed before stands beside what is new."""

from __future__ import annotations

from toolreason.errors import InputError
from toolreason.tools import signature, unions


def join(name: str, old: str, new: str) -> str:
    """Both test files of the tool `name` as one. What the new one defines under a name that is taken (a test, a helper, the tool
    itself) gets another, so that the old tests mean what they meant. Raises InputError where one is no Python.
    """
    try:
        return unions.union(name, old, [(name, new)])
    except RecursionError as error:
        raise InputError("the tests are nested too deep: write them with plain statements") from error


def case(name: str, call: str, number: int) -> str:
    """A test that this call, which found the tool `name` faulty, is answered, or refused by an error that says so."""
    return (
        f"from {signature.TOOLBOX} import {name}\n\n\n"
        f"def test_repair_{number}() -> None:\n"
        f"    try:\n        {call}\n"
        "    except (ValueError, TypeError) as error:\n        assert str(error)\n"
    )
