"""Rows for OpenEnv 0.10: `TrainingTrace.from_entries(row["entries"])`, one entry for each time the model was asked to go on.

An entry's prompt is everything that stood before: the prompt, what the model had said, hints, tool output. Its completion is what
the model drew then. `loss_mask` covers both, 0 on the prompt and 1 on the completion. So the ids of a trajectory are there once for
each of its turns: the format wants it so. What came after the model's last token is in no entry.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from toolreason.export import tokens
from toolreason.export.base import LeftOut, Options, Purpose, Report, Row, check_prompt
from toolreason.types import Source, StopReason, Trajectory

ROUNDING = 1e-3  # an engine's log-probability of a sure token may come out a little above 0
CUT_OFF = frozenset({StopReason.LENGTH, StopReason.CONTEXT_FULL})


class Maker:
    """Raises LeftOut for what OpenEnv would refuse, and what the maker of token rows raises."""

    def __init__(self, options: Options) -> None:
        self._tokens = tokens.Maker(replace(options, purpose=Purpose.RL))

    def __call__(self, trajectory: Trajectory, report: Report) -> Row:
        _check(trajectory)
        row = self._tokens(trajectory, report)
        ids, logprobs = row.pop("input_ids"), row.pop("logprobs")
        del row["labels"]
        entries = []
        for index, (start, end) in enumerate(turns(row["sources"])):
            last = end == len(ids)
            entries.append(
                {
                    "prompt_token_ids": ids[:start],
                    "completion_token_ids": ids[start:end],
                    "per_token_logps": [min(value, 0.0) for value in logprobs[start:end]],
                    "loss_mask": [0] * start + [1] * (end - start),
                    "metadata": {
                        "node_id": f"{trajectory.id}:{index}",
                        "index": index,
                        "model": trajectory.policy,
                        "finish_reason": "length" if last and trajectory.stop in CUT_OFF else "stop",
                        "sampling_params": sampling(trajectory),
                    },
                }
            )
        return {"entries": entries} | row


def turns(sources: list[Row]) -> Iterator[tuple[int, int]]:
    """Where each run of the model's own tokens begins and ends."""
    at = 0
    for run in sources:
        if run["source"] == Source.MODEL:
            yield at, at + run["count"]
        at += run["count"]


def sampling(trajectory: Trajectory) -> Row:
    """How the tokens were drawn. The log-probabilities are those before temperature and top-p."""
    drawn = trajectory.sampling
    return {"temperature": drawn.temperature, "top_p": drawn.top_p, "top_k": drawn.top_k, "seed": drawn.seed}


def _check(trajectory: Trajectory) -> None:
    check_prompt(trajectory)
    if any(value > ROUNDING for segment in trajectory.segments for value in segment.logprobs or ()):
        raise LeftOut("positive log-probabilities")
