"""Rows for verifiers 0.4: the record of a `Trace` (schema version 1), which its `WireTrace.model_validate` reads.

Each segment is a node of the message graph, one after the other: the tokens that it adds, which of them the model drew (`mask`,
all or none), and their log-probabilities. A trace has one branch; its `token_ids`, `sampled_mask` and `logprobs` are the
trajectory's. Hints are messages of the assistant that nobody drew (`sampled` is false), so they are context. The prompt is one
message: its text as the engine was given it, with the special tokens of the chat template.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

from toolreason.export import tokens
from toolreason.export.base import Options, Purpose, Report, Row, check_prompt
from toolreason.export.openenv import CUT_OFF
from toolreason.types import Segment, Source, Trajectory

VERSION = 1  # of the trace schema
ROLES = {Source.PROMPT: "user", Source.MODEL: "assistant", Source.HINT: "assistant", Source.TOOL: "tool"}


class Maker:
    """Raises LeftOut for a trajectory without a prompt, and what the maker of token rows raises."""

    def __init__(self, options: Options) -> None:
        self._tokens = tokens.Maker(replace(options, purpose=Purpose.RL))

    def __call__(self, trajectory: Trajectory, report: Report) -> Row:
        check_prompt(trajectory)
        parts = merged(trajectory)
        row = self._tokens(trajectory, report)
        told = {name: row[name] for name in row if name not in ("input_ids", "labels", "logprobs", "reward")}
        return {
            "version": VERSION,
            "task": {"type": "toolreason", "key": trajectory.problem_id, "data": {"id": trajectory.problem_id}},
            "agent": {"name": trajectory.strategy, "config": {"model": trajectory.policy}},
            "nodes": [_node(index, part) for index, part in enumerate(parts)],
            "calls": _calls(trajectory, parts),
            "rewards": {"correct": {"score": row["reward"], "weight": 1.0}},
            "is_completed": True,
            "ok": True,
            "stop_condition": trajectory.stop.value,
        } | told


def merged(trajectory: Trajectory) -> list[Segment]:
    """The segments that hold something; what the model said in one go is one, even where it was cut in between."""
    found: list[Segment] = []
    held = (segment for segment in trajectory.segments if segment.text or segment.token_ids)
    for source, group in groupby(held, key=lambda segment: segment.source):
        parts = list(group)
        if source is Source.TOOL:
            found += parts
            continue
        text = "".join(part.text for part in parts)
        ids = tuple(token for part in parts for token in part.token_ids)
        drawn = tuple(value for part in parts for value in part.logprobs or ())
        found.append(Segment(source, text, ids, drawn if len(drawn) == len(ids) and source is Source.MODEL else None))
    return found


def _node(index: int, part: Segment) -> Row:
    sampled = part.source is Source.MODEL
    call_id = part.cell.call_id if part.cell else None
    return {
        "parent": index - 1 if index else None,
        "message": {"role": ROLES[part.source], "content": part.text, "tool_call_id": call_id},
        "sampled": sampled,
        "token_ids": list(part.token_ids),
        "mask": [sampled] * len(part.token_ids),
        "logprobs": list(part.logprobs or ()),
    }


def _calls(trajectory: Trajectory, parts: list[Segment]) -> list[Row]:
    """One call of the engine for each message that the model drew."""
    calls: list[Row] = []
    before = 0
    for index, part in enumerate(parts):
        if part.source is Source.MODEL:
            cut_off = index == len(parts) - 1 and trajectory.stop in CUT_OFF
            calls.append(
                {
                    "node": index,
                    "model": trajectory.policy,
                    "sampling": {"temperature": trajectory.sampling.temperature, "top_p": trajectory.sampling.top_p},
                    "finish_reason": "length" if cut_off else "stop",
                    "usage": {"prompt_tokens": before, "completion_tokens": len(part.token_ids)},
                }
            )
        before += len(part.token_ids)
    return calls
