"""The messages that open a rollout; the wording is data, in `prompts.toml`."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files

from toolreason.policies.base import Message
from toolreason.types import Problem


@cache
def _wordings() -> dict[str, str]:
    text = (files("toolreason.strategies") / "prompts.toml").read_text(encoding="utf-8")
    return {name: str(value).strip() for name, value in tomllib.loads(text).items()}


def messages(problem: Problem, wording: str, system: str | None = None) -> list[Message]:
    """System prompt and question. `system` replaces the wording; an empty one leaves the system message out."""
    instructions = _wordings()[wording] if system is None else system
    question: Message = {"role": "user", "content": _question(problem)}
    return [{"role": "system", "content": instructions}, question] if instructions else [question]


def _question(problem: Problem) -> str:
    options = "\n".join(f"({chr(ord('A') + i)}) {choice}" for i, choice in enumerate(problem.reference.choices))
    return f"{problem.question}\n\n{options}\nAnswer with the letter." if options else problem.question
