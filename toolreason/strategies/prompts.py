"""The messages that open a rollout; the wording is data, in `prompts.toml` and `attachments.toml`."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files

from toolreason import attachments
from toolreason.attachments import Attachment
from toolreason.policies.base import Message
from toolreason.tools import core
from toolreason.types import Problem

NO_CODE = ("plain",)  # the wordings after which no code is run
SEEN = ("image/png", "image/jpeg", "image/gif", "image/webp")  # what models that see take; other pictures are for code


@cache
def _wordings(file: str = "prompts.toml") -> dict[str, str]:
    text = (files("toolreason.strategies") / file).read_text(encoding="utf-8")
    return {name: str(value).strip() for name, value in tomllib.loads(text).items()}


def messages(problem: Problem, wording: str, system: str | None = None) -> list[Message]:
    """System prompt, what was said before, and the question. `system` replaces the wording; an empty one leaves it out. A system
    message of the conversation stands before it, in one message: templates take one, at the beginning.

    Attachments are named in the question, with how to look at them by code where the strategy runs any; its pictures go along for
    a policy that sees. Raises ProblemError for an attachment that cannot be read.
    """
    own = _wordings()[wording] if system is None else system
    instructions = "\n\n".join([*(turn.text for turn in problem.history if turn.role == "system"), *([own] if own else [])])
    said: list[Message] = [{"role": turn.role, "content": turn.text} for turn in problem.history if turn.role != "system"]
    question: Message = {"role": "user", "content": _question(problem)}
    if problem.attachments:
        found = attachments.read(problem.attachments)
        question["content"] += "\n\n" + _files(found, in_session=wording not in NO_CODE)
        question["pictures"] = [
            {"path": one.path, "sha256": one.sha256, "mime_type": one.kind.mime} for one in found if one.kind.mime in SEEN
        ]
    return [*([Message(role="system", content=instructions)] if instructions else []), *said, question]


def _question(problem: Problem) -> str:
    options = "\n".join(f"({chr(ord('A') + i)}) {choice}" for i, choice in enumerate(problem.reference.choices))
    return f"{problem.question}\n\n{options}\nAnswer with the letter." if options else problem.question


def _files(found: tuple[Attachment, ...], *, in_session: bool) -> str:
    """What there is, and how code finds it."""
    told = _wordings("attachments.toml")
    text = told["named"].replace("{files}", "\n".join(f"- {one.name}: {one.described}" for one in found))
    if not in_session:
        return text
    pictures = any(one.kind.picture for one in found)
    lines = "\n".join(f"- {call}: {does}" for call, does in core.functions(pictures=pictures))
    text += "\n" + told["in_session"].replace("{example}", found[0].name).replace("{functions}", lines)
    return f"{text}\n{told['measures']}" if pictures else text
