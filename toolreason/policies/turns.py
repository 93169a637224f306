"""What a chat model is sent: the conversation that a row of segments stands for, with pictures as LangChain's content blocks.

It follows from the segments alone. A turn of the prompt with the key `pictures`, be they none, was made for a model that sees: such
a model is shown the figures of results too. Pictures of the problem are kept by path and hash, and read when they are sent.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from toolreason import attachments
from toolreason.errors import InputError, PolicyError
from toolreason.policies.base import Message, Picture
from toolreason.types import Segment, Source

Prefix = Literal["assistant", "user"]
Content = str | list[str | dict[str, Any]]  # a text, or blocks: the text first, then pictures

FIGURES = "The figures of this result:"


def prompt_text(messages: Sequence[Message], *, vision: bool) -> str:
    """The canonical JSON of these messages; with `vision` each turn of the user's has its pictures, the others have none."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        turns.append({"role": message["role"], "content": message["content"]})
        if vision and message["role"] == "user":
            turns[-1]["pictures"] = message.get("pictures", [])
    return json.dumps(turns, ensure_ascii=False, separators=(",", ":"))


def turns(segments: Sequence[Segment], prefix: Prefix) -> list[tuple[str, Content]]:
    """(role, content) of each turn; neighbouring texts of the assistant's are joined.

    Raises PolicyError for a prompt that `prompt_text` did not make, InputError for a picture that is not what it was.
    """
    joined: list[tuple[str, Content]] = []
    for role, content in _turns(segments, prefix):
        if joined and isinstance(content, str):
            before, text = joined[-1]
            if before == role == "assistant" and isinstance(text, str):
                joined[-1] = (role, text + content)
                continue
        joined.append((role, content))
    return joined


def _turns(segments: Sequence[Segment], prefix: Prefix) -> Iterator[tuple[str, Content]]:
    sees = False
    for segment in segments:
        if segment.source is Source.PROMPT:
            for role, content, pictures in _prompt_turns(segment.text):
                sees = sees or pictures is not None
                yield role, _blocks(content, map(_picture, pictures)) if pictures else content
            continue
        figures = segment.cell.result.figures if sees and segment.cell is not None else ()
        if prefix == "user" and segment.source is not Source.MODEL:
            if segment.text or figures:
                yield "user", _blocks(segment.text, map(_figure, figures)) if figures else segment.text
            continue
        if segment.text:
            yield "assistant", segment.text
        if figures:  # no provider takes a picture in a turn of the assistant's
            yield "user", _blocks(FIGURES, map(_figure, figures))


def _prompt_turns(text: str) -> list[tuple[str, str, list[Picture] | None]]:
    try:
        return [(turn["role"], turn["content"], turn.get("pictures")) for turn in json.loads(text)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PolicyError(f"this prompt was not made by a chat policy: {text[:80]!r}") from error


def _blocks(text: str, pictures: Iterator[dict[str, Any]]) -> Content:
    return [*([{"type": "text", "text": text}] if text else []), *pictures]


def _picture(picture: Picture) -> dict[str, Any]:
    (found,) = attachments.read([picture["path"]])
    if found.sha256 != picture["sha256"]:
        raise InputError(f"the picture {found.path} has changed since this rollout began: put it back, or begin anew")
    return _image(base64.b64encode(found.data).decode(), picture["mime_type"])


def _figure(png: str) -> dict[str, Any]:
    return _image(png, "image/png")


def _image(data: str, mime_type: str) -> dict[str, Any]:
    """LangChain's standard block of an image."""
    return {"type": "image", "base64": data, "mime_type": mime_type}
