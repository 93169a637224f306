"""The modifications: one style of fence, no doubled conjunctions, nothing after a second final answer.

START (section 3.2) names the stage; what is modified follows the issue. A row that cannot be modified on token boundaries, or whose
answer would be another one afterwards, is left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from toolreason.curate import text
from toolreason.curate.edits import Codec, Unaligned, remove, remove_shifted, rewrite
from toolreason.curate.settings import CurateSettings
from toolreason.curate.steps import Fall, Row, Step
from toolreason.types import Segment, Source, Trajectory
from toolreason.verify import extract, normalise

Segments = tuple[Segment, ...]
Edited = tuple[Segments, list[str]]

_PYTHON = {"py", "python", "python3"}
_OPENING = re.compile(r"[ \t]*(`{3,})([^\n]*)")
_WORDS = "Wait|Hmm|Alternatively|Actually|However|But|So|Then|Therefore|Thus|Now|Also"
_DOUBLED = re.compile(rf"\b({_WORDS})(?P<gap>[,.!…]*\s+)(?=(?i:\1)\b)")
_ANSWER = re.compile(r"\\(?:boxed|fbox)\s*\{|<answer>")
_BRACE = re.compile(r"\\[\s\S]|[{}]")
_CLOSING = re.compile(r"[ \t]*(?:\\\]|\$\$|\\end\{[a-z*]+\}|</answer>)[ \t]*(?:\n|\Z)")


def fences(segments: Segments, codec: Codec) -> Edited:
    """What opens a block of Python (`py`, `python3`, `Python`, anything after it) becomes `python`: tokens go where that does it,
    else the tokens of that line are encoded anew.
    """
    edits = list[str]()
    for start, end, line in reversed(_other_openings(segments)):  # from the end: earlier positions stay
        try:
            segments = _only_python(segments, start, end, line, codec)
        except Unaligned:
            segments = rewrite(segments, start, end, "python", codec)
        edits.append(f"fence: {line.strip() or '(none)'} -> python")
    return segments, edits


def _other_openings(segments: Segments) -> list[tuple[int, int, str]]:
    """Where something other than `python` follows the fence of a Python block."""
    found = list[tuple[int, int, str]]()
    for begin, run in text.own_runs(segments):
        for fence in extract.fences(run):
            opening = _OPENING.match(run, fence.start)
            if opening and fence.language in _PYTHON and opening[2] != "python":
                found.append((begin + opening.start(2), begin + opening.end(2), opening[2]))
    return found


def _only_python(segments: Segments, start: int, end: int, line: str, codec: Codec) -> Segments:
    at = line.find("python")
    if at < 0:
        raise Unaligned(line)
    if end > start + at + 6:
        segments = remove(segments, start + at + 6, end, codec.decode)
    return remove(segments, start, start + at, codec.decode) if at else segments


def conjunctions(segments: Segments, codec: Codec) -> Edited:
    """`Wait, Wait,` becomes `Wait,`; where the second one begins a hint, the model's own goes."""
    edits = list[str]()
    while found := _DOUBLED.search(text.prose(segments)):
        second = found.end() + len(found[1])
        spans = [(found.end(1), second)]  # the second one; the first, if they are spelt alike: with what follows it, or bare
        if "".join(segment.text for segment in segments)[found.end() : second] == found[1]:
            spans += [(found.start(), found.end()), (found.start(), found.end(1) + len(found["gap"].rstrip()))]
        spans.sort(key=lambda span: not _in_model(segments, *span))  # a hint stays whole where it can
        segments = _first_that_fits(segments, spans, codec)
        edits.append(f"doubled: {found[1]}")
    return segments, edits


def _in_model(segments: Segments, start: int, end: int) -> bool:
    pieces = zip(segments, text.starts(segments), strict=True)
    return any(begin <= start and end <= begin + len(segment.text) and segment.source is Source.MODEL for segment, begin in pieces)


def _first_that_fits(segments: Segments, spans: Sequence[tuple[int, int]], codec: Codec) -> Segments:
    for span in spans:
        try:
            return remove_shifted(segments, *span, codec.decode)
        except Unaligned:
            continue
    raise Unaligned("a doubled conjunction")


def after_answer(segments: Segments, codec: Codec) -> Edited:
    """What follows the line in which the final answer stands for the second time goes. The end token stays.

    In a trace that thinks in `<think>`, only what follows the thinking counts.
    """
    whole = "".join(segment.text for segment in segments)
    again = _second_answer(text.prose(segments))
    if again is None:
        return segments, []
    ending = _end_token(segments, codec)
    end = len(whole) - len(ending)
    place = min(_line_end(whole, again), end)
    if not whole[place:end].strip():
        return segments, []
    for start in (place, *([place + 1] if whole[place : place + 1] == "\n" else [])):
        try:
            return remove(segments, start, end, codec.decode), [f"after the second answer: {end - start} characters"]
        except Unaligned:
            continue
    raise Unaligned(whole[place:end])


def _second_answer(prose: str) -> int | None:
    """Where the final answer ends for the second time; None where it does not."""
    found = [(_meaning(content), end) for content, end in _answers(prose, prose.rfind("</think>") + 1)]
    same = [end for content, end in found if content == found[-1][0]]
    return same[1] if len(same) > 1 else None


def _meaning(answer: str) -> object:
    """Equal for the same number, whatever its spelling; else for the same text."""
    plain = normalise.clean(answer)
    return normalise.quantity(plain) or plain


def _answers(prose: str, start: int) -> list[tuple[str, int]]:
    """What the boxes and answer tags hold, outermost only, and where each ends."""
    found, at = list[tuple[str, int]](), start
    while opening := _ANSWER.search(prose, at):
        at = opening.end()
        end = prose.find("</answer>", at) if opening[0] == "<answer>" else _closing_brace(prose, at)
        if end < 0:
            break  # never closed: nothing behind it can be told
        content = prose[at:end]
        found.append((extract.answer(content) or content, end + (len("</answer>") if opening[0] == "<answer>" else 1)))
        at = end
    return found


def _closing_brace(prose: str, at: int) -> int:
    depth = 1
    for brace in _BRACE.finditer(prose, at):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)  # an escaped brace is none
        if depth == 0:
            return brace.start()
    return -1


def _line_end(whole: str, at: int) -> int:
    """The end of this line, and of a next one that only closes a formula."""
    end = whole.find("\n", at)
    if end < 0:
        return len(whole)
    closing = _CLOSING.match(whole, end + 1)
    return closing.end() - closing[0].endswith("\n") if closing else end


def _end_token(segments: Segments, codec: Codec) -> str:
    """The text of the end token with which the model ended its turn, if it did."""
    last = segments[-1]
    ended = last.source is Source.MODEL and last.token_ids and last.token_ids[-1] in codec.end_ids
    return codec.decode(last.token_ids[-1:]) if ended else ""


MODIFICATIONS: dict[str, Callable[[Segments, Codec], Edited]] = {
    "after_answer": after_answer,
    "fences": fences,
    "conjunctions": conjunctions,
}


def exact(one: Trajectory, codec: Codec) -> bool:
    """Whether the ids are there and read as the text."""
    ids = one.token_ids
    try:
        return bool(ids) and codec.decode(ids) == one.text
    except (IndexError, OverflowError, TypeError, ValueError):  # ids that this tokenizer does not have
        return False


def modified(row: Row, codec: Codec, settings: CurateSettings) -> Row | Fall:
    """The row with all modifications, told in `edits`.

    Its ids read as its text and its answer is the same, or it falls. What was taken back and the rounds are dropped from a modified
    trajectory: they were told by places that have moved.
    """
    one, edits = row.trajectory, list[str]()
    segments = one.segments
    for name, change in MODIFICATIONS.items():
        if getattr(settings, name):
            try:
                segments, told = change(segments, codec)
            except Unaligned as error:
                return Fall(f"{name}: not on token boundaries", str(error))
            edits += told
    if not edits:
        return row
    changed = replace(one, segments=segments, taken_back=(), round_verdicts=())
    if not exact(changed, codec):
        return Fall("modified tokens do not read as the text", "; ".join(edits))
    if _answer(changed.segments) != _answer(one.segments):
        return Fall("the answer would be another one", "; ".join(edits))
    return replace(row, trajectory=changed, edits=tuple(edits))


def _answer(segments: Segments) -> tuple[str | None, str | None]:
    own = extract.own_text(segments)
    found = extract.answer(own)
    return found, extract.program(own) if found is None else None


def modify(rows: Sequence[Row], codec: Codec, settings: CurateSettings) -> tuple[list[Row], Step]:
    """All rows modified; those that cannot be fall."""
    step, left = Step("modification"), list[Row]()
    for row in rows:
        done = modified(row, codec, settings)
        if isinstance(done, Fall):
            step.drop(row, done)
            continue
        step.stay(done)
        left.append(done)
        for edit in done.edits:
            name = edit.partition(":")[0]
            step.changed[name] += 1
            step.show(done, Fall(f"changed: {name}", edit))
    return left, step
