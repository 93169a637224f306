"""How a call is written and how its result is fed back.

    fenced   START: a ```python block; the result is an ```output block; the answer stands in \\boxed{}
    tagged   ARTIST: <python>…</python>, <output>…</output>, <answer>…</answer>

A format reads only the *tail*: the text since the last result. Everything before it has been dealt with, and a result, which is
untrusted text, can therefore never be read as a call. Calls inside `<think>` are calls like any other.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from toolreason.errors import SettingsError
from toolreason.types import CellResult, Outcome, Segment, Source
from toolreason.verify import extract

INVENTED_OUTPUT = "invented_output"  # the model wrote a result itself
UNCLOSED_CALL = "unclosed_call"  # the rollout ended inside a call
PYTHON = ("python", "py", "python3")
PRINT_MISSING = "[the code ran and printed nothing: print() what you want to see]"


class Format(Protocol):
    """`stops`: where generation has to stop so that a call can be run; a stop string may stand elsewhere, `call` decides."""

    @property
    def name(self) -> str: ...

    @property
    def stops(self) -> tuple[str, ...]: ...

    def call(self, tail: str) -> str | None:
        """The code of the call that ends the tail, or None."""
        ...

    def result(self, result: CellResult, tail: str) -> str:
        """The text to insert after a call that ended `tail`."""
        ...

    def answered(self, text: str) -> bool:
        """Whether a final answer stands in the model's own text, as the verifier reads it: code holds none."""
        ...

    def faults(self, segments: Sequence[Segment]) -> tuple[str, ...]:
        """The format faults in the model's own text, by name, one entry per occurrence."""
        ...


LIMITED = {
    Outcome.CPU: "much CPU time",
    Outcome.MEMORY: "much memory",
    Outcome.PROCESSES: "many processes or threads",
    Outcome.OPEN_FILES: "many open files",
    Outcome.FILE_SIZE: "large a file",
    Outcome.DISK: "much disk space or too many files",
    Outcome.OUTPUT: "much output",
}


def feedback(result: CellResult) -> str:
    """What the model gets to read of a result: output and value, or what went wrong. ARTIST, section 3: "print missing"."""
    printed = result.stdout.rstrip("\n")
    shown = "\n".join(part for part in (printed, result.value or "") if part)
    match result.outcome:
        case Outcome.OK:
            return shown or PRINT_MISSING
        case Outcome.ERROR:
            trouble = result.traceback.rstrip("\n") or result.error or "error"
        case Outcome.TIMEOUT:
            trouble = f"[stopped after {result.duration_s:.0f} s: it took too long; nothing of it was kept]"
        case Outcome.CRASHED:
            trouble = "[the interpreter crashed; nothing of this code was kept]"
        case Outcome.REFUSED:
            trouble = f"[not run: a person refused it: {result.error}]"
        case limit:
            trouble = f"[stopped: it used too {LIMITED[limit]}; nothing of it was kept]"
    return f"{shown}\n{trouble}" if shown else trouble


def tail(segments: Sequence[Segment]) -> str:
    """The text since the last result (or since the prompt)."""
    parts: list[str] = []
    for segment in reversed(segments):
        if segment.source in (Source.TOOL, Source.PROMPT):
            break
        parts.append(segment.text)
    return "".join(reversed(parts))


@dataclass(frozen=True, slots=True)
class Fenced:
    """START's format. A block closes at a line that is only a fence, so generation stops at a fence with a line end after it."""

    name: str = "fenced"
    stops: tuple[str, ...] = ("```\n",)

    def call(self, tail: str) -> str | None:
        return closing_block(tail, *PYTHON)

    def result(self, result: CellResult, tail: str) -> str:
        text = feedback(result)
        longest = max((len(run) for run in re.findall("`{3,}", text)), default=2)
        fence = "`" * max(3, longest + 1)  # output that holds a fence cannot close ours
        lead = "" if tail.endswith("\n") else "\n"
        return f"{lead}{fence}output\n{text}\n{fence}\n"

    def answered(self, text: str) -> bool:
        return extract.answer(text) is not None

    def faults(self, segments: Sequence[Segment]) -> tuple[str, ...]:
        invented = sum(len(_OUTPUT_FENCE.findall(s.text)) for s in segments if s.source is Source.MODEL)
        block = _last_block(tail(segments))
        unclosed = block is not None and block.python and not block.closed
        return (INVENTED_OUTPUT,) * invented + (UNCLOSED_CALL,) * unclosed


@dataclass(frozen=True, slots=True)
class Tagged:
    """ARTIST's math format (arXiv 2505.01441, section 3)."""

    name: str = "tagged"
    stops: tuple[str, ...] = ("</python>", "</answer>")

    def call(self, tail: str) -> str | None:
        found = _PYTHON_TAG.search(tail)
        return _unfence(found.group(1)) if found else None

    def result(self, result: CellResult, tail: str) -> str:
        text = re.sub(r"<(/?)output>", r"<\1 output>", feedback(result))  # output cannot close its own tag
        return f"\n<output>\n{text}\n</output>\n"

    def answered(self, text: str) -> bool:
        return extract.answer(text) is not None

    def faults(self, segments: Sequence[Segment]) -> tuple[str, ...]:
        invented = sum(s.text.count("<output>") for s in segments if s.source is Source.MODEL)
        rest = tail(segments)
        unclosed = rest.rfind("<python>") > rest.rfind("</python>")
        return (INVENTED_OUTPUT,) * invented + (UNCLOSED_CALL,) * unclosed


_OUTPUT_FENCE = re.compile(r"^\s{0,3}`{3,}\s*output\b", re.MULTILINE)
_PYTHON_TAG = re.compile(r"<python>((?:(?!<python>).)*?)</python>\s*\Z", re.DOTALL)
_FENCE_LINE = re.compile(r"^([ \t]*)(`{3,})[ \t]*([^`\n]*)$")
_FORMATS: dict[str, Format] = {"fenced": Fenced(), "tagged": Tagged()}


def get(name: str) -> Format:
    if name not in _FORMATS:
        raise SettingsError(f"no format {name!r}; there are: {', '.join(sorted(_FORMATS))}")
    return _FORMATS[name]


def closing_block(tail: str, *languages: str) -> str | None:
    """What stands in the closed block with which the tail ends, if it is of one of these languages."""
    block = _last_block(tail)
    return block.code if block and block.closed and block.language in languages and not tail[block.end :].strip() else None


@dataclass(frozen=True, slots=True)
class _Block:
    language: str
    code: str
    closed: bool
    end: int  # the character after its closing fence

    @property
    def python(self) -> bool:
        return self.language in PYTHON


def _last_block(text: str) -> _Block | None:
    """The last fenced block of the text, by CommonMark's rules (a closing fence is bare and at least as long as the opening one),
    at any indent: models put blocks into lists."""
    block: _Block | None = None
    indent, fence, info, position = 0, "", "", 0
    code: list[str] = []
    for line in text.splitlines(keepends=True):
        position += len(line)
        found = _FENCE_LINE.match(line.rstrip("\r\n"))
        if found and not fence:
            indent, fence, info, code = len(found.group(1)), found.group(2), found.group(3).strip().lower(), []
        elif found and len(found.group(2)) >= len(fence) and not found.group(3).strip():
            block = _Block(info.split(" ")[0], "".join(code), True, position)
            fence = ""
        else:
            code.append(_outdent(line, indent))
    return _Block(info.split(" ")[0], "".join(code), False, len(text)) if fence else block


def _outdent(line: str, indent: int) -> str:
    """A line of a block whose opening fence is indented (in a list, say) has that many blanks too many."""
    return line[min(indent, len(line) - len(line.lstrip(" "))) :]


def _unfence(code: str) -> str:
    """Models often put a fence inside the tag: the code is what stands in it. A bare fence elsewhere may be part of the code."""
    plain = textwrap.dedent(code).strip()
    block = _last_block(plain + "\n")
    return block.code if block and block.closed and (block.python or plain.startswith("```")) else plain
