"""What the user says after the model has ended its turn: by the model's own chat template, and to the token."""

from __future__ import annotations

import json

from toolreason.errors import CapabilityError, ProblemError
from toolreason.policies.base import Message, Policy
from toolreason.types import FunctionTask, UserTurn

MARK = "q7k"  # stands for the assistant's words when the template is asked what comes after them
TOLD = "These functions can be called from now on:"


def message(turn: UserTurn) -> Message:
    """The user's message in a later turn, with the functions that it tells of."""
    functions = f"{TOLD}\n{documentation(turn)}\n\n" if turn.functions else ""
    return {"role": "user", "content": functions + turn.message}


def documentation(turn: UserTurn) -> str:
    """The functions that this turn tells of, one a line."""
    return "\n".join(turn.functions)


def check(task: FunctionTask, question: str) -> None:
    """Raise ProblemError unless the task's first turn is the question and every later one says something."""
    if not task.turns or task.turns[0].message != question:
        raise ProblemError("the message of a task's first turn is the problem's question")
    if not all(turn.message.strip() for turn in task.turns):
        raise ProblemError("every turn of a task has a message")


def following(policy: Policy, said: Message) -> tuple[int, ...]:
    """The ids from the end of the model's words, its end token first, over the user's message to where the model speaks again.

    They are read off the template's rendering of a short conversation: what follows an assistant's words depends on nothing before
    them. Encoded once, on their own. Raises CapabilityError where the template leaves the assistant's words out.
    """
    mark = MARK
    while mark in said["content"]:
        mark += MARK
    opening: list[Message] = [{"role": "user", "content": "-"}, {"role": "assistant", "content": mark}]
    _, found, after = policy.prompt([*opening, said]).text.partition(mark)
    if not found:
        raise CapabilityError(
            f"the chat template of {policy.name} does not show what an assistant said before, so a user cannot go on after it: "
            "choose a model whose template takes conversations"
        )
    return policy.encode(after, special=True)


def schema(name: str, description: str, parameters: dict[str, object]) -> str:
    """The documentation of a function, as a task holds it. `parameters` is a JSON schema."""
    return json.dumps({"name": name, "description": description, "parameters": parameters}, ensure_ascii=False)
