r"""Find what the model says in the end, in its own words.

Callers pass only text of `MODEL` and `HINT` segments: what a tool printed is no answer, and neither is the prompt. Code is
no answer either, so everything inside fenced blocks is blanked out before an answer is looked for. All scans are linear.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from toolreason.types import Segment, Source

_SPECIAL = re.compile(r"<[|｜][^<>|｜\s]{1,40}[|｜]>|</?s>|<(?:eos|bos|pad|end_of_turn|start_of_turn)>")  # noqa: RUF001 (DeepSeek's bar)
_FENCE = re.compile(r"^[ \t]*(?P<mark>`{3,}|~{3,})[ \t]*(?P<language>[\w+.-]*)[^\n]*$", re.MULTILINE)
_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[\s\S]|[{}]")
_ANSWER_TAG = re.compile(r"<answer>((?:(?!</?answer>)[\s\S])*)</answer>")
_ANSWER_LINE = re.compile(r"(?i:\banswer\b)(?:\s*(?i:is)\b)?[\s*_:$]*(?:\\(?:text|mathrm|boxed)\s*\{)?\(?([A-Z])\b(?![-'/])")
_PYTHON = {"python", "python3", "py", "tool_code"}  # not "tool": a build ticket of `uct`


@dataclass(frozen=True, slots=True)
class Fence:
    """A fenced block: its language tag, its body, and where the whole block lies in the text."""

    language: str
    body: str
    start: int
    end: int
    closed: bool


def own_text(segments: Iterable[Segment]) -> str:
    """The text of the model and of hints. A block that a tool's output interrupts ends there."""
    text, interrupted = "", False
    for segment in segments:
        if segment.source is Source.TOOL:
            interrupted = True
        elif segment.source in (Source.MODEL, Source.HINT):
            if interrupted and text:
                text += f"\n{mark}\n" if (mark := open_mark(text)) else "\n"
            text, interrupted = text + segment.text, False
    return text


def open_mark(text: str) -> str:
    """The mark that closes the block in which the text ends; empty where it ends in none."""
    last = next(reversed(fences(text)), None)
    opening = _FENCE.match(text, last.start) if last and not last.closed else None
    return opening["mark"] if opening else ""


def fences(text: str) -> list[Fence]:
    """All fenced blocks, in order. A block that is never closed reaches to the end."""
    found: list[Fence] = []
    opening: re.Match[str] | None = None
    for match in _FENCE.finditer(text):
        if opening is None:
            opening = match
        elif match["mark"].startswith(opening["mark"]) and match.group().strip() == match["mark"]:
            found.append(
                Fence(opening["language"].lower(), text[opening.end() + 1 : match.start()], opening.start(), match.end(), True)
            )
            opening = None
    if opening is not None:
        found.append(_fence(text, opening, None))
    return found


def _fence(text: str, opening: re.Match[str], closing: re.Match[str] | None) -> Fence:
    body_end, end = (closing.start(), closing.end()) if closing else (len(text), len(text))
    return Fence(opening["language"].lower(), text[opening.end() + 1 : body_end], opening.start(), end, closing is not None)


def plain(response: str) -> str:
    """The response without special tokens."""
    return _SPECIAL.sub("", response)


def prose(response: str) -> str:
    """The response without special tokens and with its fenced blocks blanked out."""
    text = plain(response)
    parts, at = [], 0
    for fence in fences(text):
        parts.append(text[at : fence.start])
        at = fence.end
    return "\n".join([*parts, text[at:]])


def boxes(text: str) -> list[str]:
    r"""The contents of all balanced `\boxed{...}` and `\fbox{...}`, in the order in which they close."""
    return [text[start:end] for start, end in _spans(text)]


def _spans(text: str) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    open_braces: list[int | None] = []  # the start of a box's content, None for any other brace
    for match in _BRACES.finditer(text):
        token = match.group()
        if token == "}":
            start = open_braces.pop() if open_braces else None
            if start is not None:
                found.append((start, match.start()))
        elif token == "{":
            open_braces.append(None)
        elif token.endswith("{") and len(token) > 2:
            open_braces.append(match.end())
    return found


def answer(response: str) -> str | None:
    r"""The final answer: the last `<answer>...</answer>`, else the last balanced `\boxed{...}`. None where there is none.

    A box inside the answer, or inside another box, is opened. An empty last answer is no answer.
    """
    text = prose(response)
    tagged = _ANSWER_TAG.findall(text)
    if tagged and tagged[-1].strip():
        return _last_box(tagged[-1]) if boxes(tagged[-1]) else tagged[-1].strip()
    return _last_box(text)


def _last_box(text: str) -> str | None:
    """What the last box holds, in the innermost box inside it."""
    spans = _spans(text)
    if not spans:
        return None
    start, end = spans.pop()
    for inner_start, inner_end in reversed(spans):
        if inner_start >= start:
            start, end = inner_start, inner_end
    return text[start:end].strip() or None


def choice(response: str, choices: Sequence[str] = ()) -> str | None:
    """The letter chosen, upper case, in the final answer or, failing that, in the last line like `Answer: (B)`.

    An answer that repeats the text of one option counts as its letter. None where no single option is named.
    """
    found = answer(response)
    if found is not None:
        return letter(found, choices)
    lines = _ANSWER_LINE.findall(prose(response))
    return letter(lines[-1], choices) if lines else None


def letter(text: str, choices: Sequence[str] = ()) -> str | None:
    """`B`, `(B)`, `b.`, `B) blue`, `\\text{B}` and the option's own text are all `B`."""
    plain = re.sub(r"\\(?:text|mathrm|mathbf|textbf|mbox)\s*\{([^{}]*)\}", r"\1", text).strip().strip("$*_` \n")
    if re.fullmatch(r"\(?[A-Z]\)?[.:]?", plain):  # before the options' texts: an option may itself be a letter
        alone = plain.strip("().:")
        if ord(alone) - ord("A") < (len(choices) or 26):
            return alone
    for index, option in enumerate(choices):
        if _squeeze(plain) == _squeeze(option):
            return chr(ord("A") + index)
    match = re.match(r"(?i:option|choice)?\s*\(?([A-Za-z])(?:\)|[.:](?=\s|$)|$)\s*(.*)$", plain, re.DOTALL)
    if match is None:
        return None
    found, rest = match[1].upper(), match[2].strip()
    limit = len(choices) or 26
    if ord(found) - ord("A") >= limit or (rest and re.search(r"\b(?:or|and)\b\s*\(?[A-Z]\b", rest)):
        return None
    return found


def _squeeze(text: str) -> str:
    return re.sub(r"[\s$]+", " ", text).strip().rstrip(".").casefold()


def program(response: str) -> str | None:
    """The last closed fenced block of Python (of no language, where none says Python). None where there is none."""
    closed = [fence for fence in fences(plain(response)) if fence.closed and fence.body.strip()]
    python = [fence for fence in closed if fence.language in _PYTHON] or [fence for fence in closed if not fence.language]
    return python[-1].body if python else None
