"""Text rows: messages where the messages are known, else the prompt and what followed it.

Tool output and hints stay inside the assistant's text, which is where they stood. So a trainer cannot tell them from the model's
words: it trains on all of the text, tool output too, and its tokenizer may cut the text into other tokens than were sampled.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from toolreason.errors import InputError
from toolreason.export.base import LeftOut, Options, Report, Row, columns, text_only
from toolreason.policies.base import Message
from toolreason.strategies import prompts
from toolreason.types import Problem, Source, StopReason, Trajectory

_TURN_END = re.compile(r"(?:<[|｜][^<>|｜\s]{1,40}[|｜]>|</s>|<(?:eos|end_of_turn)>)\s*\Z")  # noqa: RUF001 (DeepSeek's bar)
_OPENED = "<think>"


class Maker:
    """Makes text rows. A chat policy's messages are in its trajectory; for others they are those of `options.problems`.

    Raises LeftOut for a trajectory whose problem is not among them or in which the user spoke again, InputError where the problem
    is another one, and where the rows would not all have the same columns.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._messages: bool | None = None  # whether the rows so far hold messages

    def __call__(self, trajectory: Trajectory, report: Report) -> Row:
        if sum(segment.source is Source.PROMPT for segment in trajectory.segments) > 1:
            raise LeftOut("several turns of the user's")
        limit = self._options.max_tokens
        if limit is not None and len(trajectory.token_ids) > limit:
            raise LeftOut("too long")
        row = self._row(trajectory)
        if self._messages not in (None, "messages" in row):
            raise InputError(
                "some of these trajectories are a chat policy's, which hold their messages, and some are not: export them apart, "
                "or name the problems of all with --problems"
            )
        self._messages = "messages" in row
        for segment in trajectory.segments:
            if segment.token_ids:
                report.tokens[segment.source.value] += len(segment.token_ids)
        return row | columns(trajectory)

    def _row(self, trajectory: Trajectory) -> Row:
        if text_only(trajectory):
            asked = _sent(trajectory)
        elif self._options.problems is not None:
            asked = _asked(trajectory, self._options.problems)
        else:
            return {"prompt": _prompt(trajectory), "completion": trajectory.response}
        return {"messages": [*asked, {"role": "assistant", "content": said(trajectory)}]}


def said(trajectory: Trajectory) -> str:
    """The assistant's turn as a chat template takes it: without the end token that the template adds, with the `<think>` that
    the template opened in the prompt.
    """
    text = trajectory.response
    own_end = trajectory.stop in (StopReason.ANSWERED, StopReason.NO_ANSWER) and trajectory.segments[-1].source is Source.MODEL
    text = _TURN_END.sub("", text) if own_end else text
    lead = _prompt(trajectory).rpartition(_OPENED)
    return lead[1] + lead[2] + text if lead[1] and not lead[2].strip() else text


def _prompt(trajectory: Trajectory) -> str:
    return "".join(segment.text for segment in trajectory.segments if segment.source is Source.PROMPT)


def _sent(trajectory: Trajectory) -> list[Message]:
    """The messages that a chat policy sent: the JSON of its prompt segment."""
    try:
        return [{"role": turn["role"], "content": turn["content"]} for turn in json.loads(_prompt(trajectory))]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"the prompt of trajectory {trajectory.id} holds no messages, though it has no token ids either") from None


def _asked(trajectory: Trajectory, problems: Mapping[str, Problem]) -> list[Message]:
    """The messages of the problem and of the strategy's wording, both checked against the prompt that there was."""
    problem = problems.get(trajectory.problem_id)
    if problem is None:
        raise LeftOut("not among the problems")
    prompt, system = _prompt(trajectory), trajectory.settings.get("system")
    known = wordings()
    told = {name: there for name, wording in known.items() if (there := _told(wording, prompt)) is not None}
    if system is None and not told:
        raise InputError(
            f"the system prompt of trajectory {trajectory.id} ({trajectory.strategy}) is none of ours: leave --problems out, "
            "which gives prompt and completion"
        )
    name = max(told or known, key=lambda name: len(known[name]))
    there = told.get(name) if system is None else _told(system, prompt)
    messages = prompts.messages(problem, name, system if there is None else there)
    if any(message["content"].strip() not in prompt for message in messages):  # some templates strip
        raise InputError(
            f"problem {problem.id!r} is not what trajectory {trajectory.id} was asked: name the problems it was collected with"
        )
    return messages


def _told(wording: str, prompt: str) -> str | None:
    """A wording as it stands in the prompt, the tools of a library (`{tools}`) filled in; None where it does not."""
    pattern = r"[\s\S]*?".join(map(re.escape, wording.split("{tools}")))
    found = re.search(pattern, prompt)
    return found.group() if found else None


@cache
def wordings() -> dict[str, str]:
    """What the strategies tell the model before the question, by name: the data file that `prompts` reads."""
    text = (files("toolreason.strategies") / "prompts.toml").read_text(encoding="utf-8")
    return {name: str(value).strip() for name, value in tomllib.loads(text).items()}
