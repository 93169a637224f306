"""A row of segments, cut and continued to the token: what was sampled is appended, a hint or a result goes in, and only the end of
the last segment is ever taken back, by whole tokens.
"""

from __future__ import annotations

from dataclasses import replace

from toolreason import tokens
from toolreason.graphs.state import RolloutState
from toolreason.policies.base import Completion, Finish, Policy
from toolreason.types import Cell, Segment, Source, StopReason, TakenBack


def history(segments: list[Segment]) -> tuple[int, ...]:
    """The last few ids: what a decoder may have to look at."""
    ids = [token for segment in segments[-2:] for token in segment.token_ids]
    return tuple(ids[-tokens.CONTEXT :])


def spoken(policy: Policy, segments: list[Segment], completion: Completion) -> Segment:
    """The model segment, its text as it reads after what stood before."""
    segment = completion.segment()
    if not policy.exact:
        return segment
    return replace(segment, text=tokens.text_after(policy.decode, history(segments), segment.token_ids))


def end_characters(policy: Policy, segment: Segment, completion: Completion) -> int:
    if completion.finish is not Finish.END or not completion.token_ids:
        return 0
    return len(segment.text) - len(tokens.drop_last(policy.decode, segment).text)


def without_end(state: RolloutState, policy: Policy) -> list[Segment]:
    """The segments without the end token with which the model may have ended its turn."""
    return take_back(state, policy, len(state["segments"][-1].text) - state.get("end_characters", 0))


def take_back(state: RolloutState, policy: Policy, cut_at: int | None) -> list[Segment]:
    """The segments, the last one without an end token and cut at this character, on a token boundary."""
    segments = list(state["segments"])
    if cut_at is None or segments[-1].source is not Source.MODEL:  # a model that ended without a word has nothing to take back
        return segments
    kept = segments.pop()
    if state.get("finish") is Finish.END and kept.token_ids:
        kept = tokens.drop_last(policy.decode, kept)
    kept = tokens.cut(policy.decode, kept, cut_at)
    return [*segments, kept] if kept.text or kept.token_ids else segments


def taken_back(state: RolloutState, kept: list[Segment], ended: StopReason | None = None) -> list[TakenBack]:
    """What was taken back so far, and now."""
    before, last = state.get("taken_back", []), state["segments"][-1]
    if last.source is not Source.MODEL:  # it ended without a word
        lost = Segment(Source.MODEL, "")
    else:
        lost = tokens.rest(last, kept[-1]) if len(kept) == len(state["segments"]) else last
    if lost.token_ids or lost.text or ended is not None:
        return [*before, TakenBack(len(kept), lost, ended)]
    return before


def lead(last: Segment, wanted: str | None) -> str:
    """What goes between this segment and a hint: `wanted`, or what makes a paragraph of it; blanks only where there are none."""
    if last.source is Source.PROMPT:
        return wanted or ""
    if wanted is not None and not wanted.isspace():
        return wanted.removeprefix("\n") if last.text.endswith("\n") else wanted
    if wanted is not None:
        return "" if last.text[-1:].isspace() else wanted
    return "\n\n"[len(last.text[-2:]) - len(last.text[-2:].rstrip("\n")) :]


def inserted(
    policy: Policy, segments: list[Segment], text: str, source: Source, cell: Cell | None = None, lead: str = ""
) -> Segment:
    """A hint or a result: encoded once, on its own; its text is what its ids read as after what stood before. `lead` is ours and
    may spell special tokens (`<think>`), which stay text in a result or in a hint of the user's.
    """
    ids: tuple[int, ...] = ()
    if policy.exact:
        marked = lead.strip() != ""
        ids = (*policy.encode(lead, special=True), *policy.encode(text)) if marked else policy.encode(lead + text)
        text = tokens.text_after(policy.decode, history(segments), ids)
    return Segment(source, text, ids, cell=cell)
