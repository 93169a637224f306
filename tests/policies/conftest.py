"""The policies under test, each with what the conformance suite must know about it."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported by any test module

import pytest

from toolreason.policies.base import Message

QUESTION: list[Message] = [{"role": "user", "content": "Count from one to ten, one number a line."}]


@pytest.fixture
def question() -> list[Message]:
    return QUESTION
