"""How functions are called (ARTIST, arXiv 2505.01441): <reasoning>…</reasoning>, <tool>…</tool>, <tool_result>…</tool_result>.

In `<tool>` stands JSON: a list of objects with `name` and `arguments`, or one such object.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from toolreason import formats
from toolreason.functions import cells
from toolreason.types import CellResult, Segment, Source

TAGS = ("reasoning", "tool")
_CALL = re.compile(r"<tool>((?:(?!<tool>).)*?)</tool>\s*\Z", re.DOTALL)
_STRICT = re.compile(
    r"\s*<reasoning>(?:(?!</?reasoning>|</?tool>).)*</reasoning>\s*(<tool>(?:(?!</?tool>).)*</tool>\s*)?", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Functions:
    """A `formats.Format`. `call` gives the words between the tags as they are: reading them is the environment's part."""

    name: str = "functions"
    stops: tuple[str, ...] = ("</tool>",)

    def call(self, tail: str) -> str | None:
        found = _CALL.search(tail)
        return found.group(1) if found else None

    def result(self, result: CellResult, tail: str) -> str:
        text = result.stdout.rstrip("\n") if result.ok else formats.feedback(replace(result, value=None))
        text = re.sub(r"<(/?)tool_result>", r"<\1 tool_result>", text)  # a result cannot close its own tag
        return f"\n<tool_result>\n{text}\n</tool_result>\n"

    def answered(self, text: str) -> bool:
        """What is asked for is done by calls: a turn that ends without one is an answer."""
        return True

    def faults(self, segments: Sequence[Segment]) -> tuple[str, ...]:
        found: list[str] = []
        for words in messages(segments):
            found += [formats.INVENTED_OUTPUT] * words.count("<tool_result>")
            found += [formats.UNCLOSED_CALL] * (words.rfind("<tool>") > words.rfind("</tool>"))
        for segment in segments:
            if segment.cell is not None:
                found += [status for status in cells.statuses(segment.cell) if status in cells.FAULTS]
        return tuple(found)


def messages(segments: Sequence[Segment]) -> list[str]:
    """What the model said at a time: between the prompt, the results and the user's turns."""
    said, words = [], ""
    for segment in segments:
        if segment.source in (Source.PROMPT, Source.TOOL):
            said += [words] if words else []
            words = ""
        else:
            words += segment.text
    return [*said, words] if words else said


def share_of_tags(segments: Sequence[Segment]) -> float:
    """The share of the tag pairs, `TAGS`, that stand complete somewhere in what the model said."""
    said = "".join(messages(segments))
    return sum(re.search(rf"<{tag}>.*?</{tag}>", said, re.DOTALL) is not None for tag in TAGS) / len(TAGS)


def strict(segments: Sequence[Segment]) -> bool:
    """Whether each message is one pair of `<reasoning>` and then one of `<tool>`, or words without tags that end a turn."""
    said = messages(segments)
    return bool(said) and all(_tidy(words) for words in said)


def _tidy(words: str) -> bool:
    found = _STRICT.match(words)
    if found is None:
        return False
    rest = words[found.end() :]
    tagged = re.search(r"</?(?:reasoning|tool|tool_result)>", rest) is not None
    return not tagged and (found.group(1) is None or not rest.strip())
