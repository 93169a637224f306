"""A rollout told apart, as it streams or when it has ended: reasoning, text, calls, results.

    reasoning   between <think> and </think>, and what a tool's builder reported
    text        all other prose, of the model or of a hint, without the tags of a format and without the model's end token
    call        code that was run; a block that never was stays text
    result      what it gave, as the model read it

Nothing is in two parts. A rollout that is streamed and the same one read afterwards give the same parts, unless something was taken
back that had been streamed: a stream cannot unsay it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from toolreason.formats import PYTHON, feedback
from toolreason.types import Source, Trajectory

Kind = Literal["reasoning", "text", "call", "result"]

_FENCE = re.compile(rf"^[ \t]*`{{3,}}[ \t]*(?:{'|'.join(PYTHON)})[ \t]*\n", re.MULTILINE | re.IGNORECASE)
_CLOSED = re.compile(r"^[ \t]*`{3,}[ \t]*$", re.MULTILINE)
_TAGS = ("<think>", "</think>", "<python>", "</python>", "<answer>", "</answer>")
_TAG = re.compile("|".join(map(re.escape, _TAGS)))
_END = re.compile(r"(?:<\|[\w-]{1,32}\|>|<\uff5c[^\uff5c<>]{1,32}\uff5c>|</s>|<end_of_turn>)+\s*\Z")
_MAYBE_END = re.compile(r"<[|\uff5c/]?[\w\u2581|\uff5c-]{0,34}\Z")
_MAYBE_FENCE = re.compile(r"^[ \t]*(?:`{0,2}|`{3,}[ \t]*\w{0,8}[ \t]*)\Z", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Part:
    """`text` is the prose, the code, or the result; `call_id` belongs to calls and results, `outcome` to results."""

    kind: Kind
    text: str
    call_id: str = ""
    outcome: str = ""


class Splitter:
    """Takes the events of a rollout's stream (`graphs.events.Event`), gives the parts as soon as they are sure.

    A call comes whole, when it is run. `finish` gives what was held back to the end.
    """

    def __init__(self) -> None:
        self._held = ""  # prose that may yet turn out to be something else
        self._block = ""  # a block from its opening on, that may yet be run
        self._line = True  # whether what is held stands at the beginning of a line, where alone a fence can
        self._thinking = self._result = False

    def feed(self, event: Mapping[str, Any]) -> Iterator[Part]:
        match event["kind"]:
            case "text" if event.get("source") == Source.TOOL:
                if not self._result:  # no cell's
                    yield from self._rest()
                    yield Part("reasoning", event["text"])
                self._result = False
            case "text":
                yield from self._prose(event["text"])
            case "call":
                yield from self._plain(self._held)
                self._held, self._block, self._line = "", "", True
                yield Part("call", event["code"], event["call_id"])
            case "result":
                self._result = True
                yield Part("result", event.get("text", ""), event["call_id"], event["outcome"])
            case "cut":
                self._take_back(event["characters"])

    def finish(self) -> Iterator[Part]:
        """The rest, without the model's end token."""
        rest = _END.sub("", self._held + self._block)
        self._held = self._block = ""
        yield from self._plain(rest)

    def _rest(self) -> Iterator[Part]:
        rest, self._held, self._block = self._held + self._block, "", ""
        yield from self._plain(rest)

    def _take_back(self, characters: int) -> None:
        for name in ("_block", "_held"):
            text = getattr(self, name)
            setattr(self, name, text[: max(0, len(text) - characters)])
            characters = max(0, characters - len(text))

    def _prose(self, text: str) -> Iterator[Part]:
        if self._block:
            self._block += text
            opened = _opening(self._block)
            if opened is None or not (closed := _close(self._block, opened)) or not self._block[closed:].strip():
                return
            said, text, self._block = self._block[:closed], self._block[closed:], ""  # more came after it: it was not run
            yield from self._plain(said)
        text, self._held = self._held + text, ""
        found = _FENCE.search(text, 0 if self._line else 1)
        tag = text.find("<python>")
        at = min((place for place in (found.start() if found else -1, tag) if place >= 0), default=-1)
        if at >= 0:
            yield from self._plain(text[:at])
            block, self._block = text[at:], ""
            opened = _opening(block)
            assert opened is not None
            self._block = block[:opened]
            yield from self._prose(block[opened:])
            return
        keep = _uncertain(text, self._line)
        self._held = text[len(text) - keep :]
        yield from self._plain(text[: len(text) - keep])

    def _plain(self, text: str) -> Iterator[Part]:
        """Prose without tags; those of thinking turn it on and off."""
        self._line = text.endswith("\n") if text else self._line
        position = 0
        for found in [*_TAG.finditer(text), None]:
            piece = text[position : found.start() if found else len(text)]
            if piece:
                yield Part("reasoning" if self._thinking else "text", piece)
            if found:
                position = found.end()
                self._thinking = {"<think>": True, "</think>": False}.get(found.group(), self._thinking)


def _opening(block: str) -> int | None:
    """Where the code of a block begins."""
    if block.startswith("<python>"):
        return len("<python>")
    found = _FENCE.match(block)
    return found.end() if found else None


def _close(block: str, opened: int) -> int:
    """The character after the end of the block; 0 while it is open."""
    if block.startswith("<python>"):
        end = block.find("</python>", opened)
        return end + len("</python>") if end >= 0 else 0
    found = _CLOSED.search(block, opened)
    return min(found.end() + 1, len(block)) if found and found.end() < len(block) else 0


def _uncertain(text: str, line: bool) -> int:
    """How many characters at the end may become a fence, a tag or the model's end token. `line`: the text begins one."""
    keep = max((size for tag in _TAGS for size in range(1, len(tag)) if text.endswith(tag[:size])), default=0)
    for found in (_MAYBE_FENCE.search(text, 0 if line else 1), _MAYBE_END.search(text), _END.search(text)):
        if found:
            keep = max(keep, len(text) - found.start())
    return keep


def events(trajectory: Trajectory) -> Iterator[dict[str, Any]]:
    """What a stream of this rollout would have carried, without what was taken back."""
    for segment in trajectory.segments:
        if segment.source is Source.PROMPT:
            continue
        if segment.cell is not None:
            cell = segment.cell
            yield {"kind": "call", "call_id": cell.call_id, "code": cell.code}
            outcome = cell.result.outcome.value
            yield {"kind": "result", "call_id": cell.call_id, "outcome": outcome, "text": feedback(cell.result)}
        yield {"kind": "text", "source": segment.source.value, "text": segment.text}


def parts(trajectory: Trajectory) -> list[Part]:
    """The parts of a rollout that has ended, neighbours of one kind joined."""
    splitter = Splitter()
    found = [part for event in events(trajectory) for part in splitter.feed(event)]
    return joined([*found, *splitter.finish()])


def joined(found: Iterable[Part]) -> list[Part]:
    """Neighbouring pieces of prose as one."""
    whole: list[Part] = []
    for part in found:
        if whole and part.kind == whole[-1].kind and part.kind in ("reasoning", "text"):
            whole[-1] = Part(part.kind, whole[-1].text + part.text)
        else:
            whole.append(part)
    return whole


def prose(found: Iterable[Part]) -> str:
    """What a reader of the answer sees."""
    return "".join(part.text for part in found if part.kind == "text").strip()
