"""Rows for verl: the fields of one sample of its rollout batch (a `DataProto`), as verl 0.9 names them, before padding.

A batch pads `prompts` on the left, `responses` and what goes with it on the right, and joins the two sides of `input_ids`,
`attention_mask` and `position_ids` anew.
"""

from __future__ import annotations

from dataclasses import replace

from toolreason.export import tokens
from toolreason.export.base import Options, Purpose, Report, Row, check_prompt
from toolreason.types import Source, Trajectory


class Maker:
    """Raises LeftOut for a trajectory without a prompt, and what the maker of token rows raises."""

    def __init__(self, options: Options) -> None:
        self._tokens = tokens.Maker(replace(options, purpose=Purpose.RL))

    def __call__(self, trajectory: Trajectory, report: Report) -> Row:
        check_prompt(trajectory)
        row = self._tokens(trajectory, report)
        ids, labels, logprobs, reward = (row.pop(name) for name in ("input_ids", "labels", "logprobs", "reward"))
        begin = row["sources"][0]["count"]
        size, length = len(ids), len(ids) - begin
        turns = [run for run in row["sources"] if run["source"] != Source.HINT]
        return {
            "prompts": ids[:begin],
            "responses": ids[begin:],
            "response_mask": [int(label != tokens.IGNORED) for label in labels[begin:]],
            "input_ids": ids,
            "attention_mask": [1] * size,
            "position_ids": list(range(size)),
            "rollout_log_probs": logprobs[begin:],
            "rm_scores": [0.0] * (length - 1) + [reward],
            "reward_score": reward,
            "uid": trajectory.problem_id,
            "num_turns": len(turns),
        } | row
