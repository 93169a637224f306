"""Token rows: the ids of a trajectory as they are, and which of them are trained."""

from __future__ import annotations

from toolreason.errors import CapabilityError
from toolreason.export.base import TRAINED, LeftOut, Options, Purpose, Report, Row, columns, text_only
from toolreason.types import Judgement, Source, StopReason, Trajectory

IGNORED = -100  # the label that torch's cross entropy, and so every trainer, leaves out
END = "end"  # the source of an end token that the export put there
REWARDS = {Judgement.CORRECT: 1.0, Judgement.WRONG: 0.0}


class Maker:
    """Makes token rows. `labels[i]` is `input_ids[i]` where that token is trained and -100 where not: never shifted.

    Raises LeftOut for a trajectory that gives no row, CapabilityError for one without ids.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._trained = TRAINED[options.purpose]

    def __call__(self, trajectory: Trajectory, report: Report) -> Row:
        if text_only(trajectory):
            raise CapabilityError(
                f"trajectory {trajectory.id} of {trajectory.policy} is text without token ids, so no token of it can be masked: "
                "export it with --for messages, or collect with an exact policy (vllm:URL or transformers:MODEL)"
            )
        row = self._row(trajectory)
        if self._options.purpose is Purpose.RL:
            row |= self._reward(trajectory)
        ended = self._end(trajectory, row)
        cut = self._fit(row)
        trained = sum(label != IGNORED for label in row["labels"])
        if not trained:
            raise LeftOut("no trained token")
        for run in row["sources"]:
            report.tokens[run["source"]] += run["count"]
        report.trained += trained
        report.truncated += cut
        report.unended += not ended
        return row | columns(trajectory)

    def _row(self, trajectory: Trajectory) -> Row:
        labels: list[int] = []
        runs: list[Row] = []
        for segment in trajectory.segments:
            labels += segment.token_ids if segment.source in self._trained else [IGNORED] * len(segment.token_ids)
            _extend(runs, segment.source.value, len(segment.token_ids))
        return {"input_ids": list(trajectory.token_ids), "labels": labels, "sources": runs}

    def _reward(self, trajectory: Trajectory) -> Row:
        """The outcome reward, and the log-probabilities under which the model's tokens were drawn (0 where nothing was drawn)."""
        if trajectory.verdict is None or trajectory.verdict.judgement not in REWARDS:
            raise LeftOut("unscored")
        logprobs: list[float] = []
        for segment in trajectory.segments:
            if segment.source is Source.MODEL and segment.token_ids and segment.logprobs is None:
                raise LeftOut("no log-probabilities")
            logprobs += segment.logprobs or [0.0] * len(segment.token_ids)
        return {"logprobs": logprobs, "reward": REWARDS[trajectory.verdict.judgement]}

    def _end(self, trajectory: Trajectory, row: Row) -> bool:
        """Where we stopped the model at its answer, put the end token there that it would have written.

        False where there is one to put and we are not told which.
        """
        ends, ids = self._options.end_tokens, row["input_ids"]
        if trajectory.stop is not StopReason.ANSWERED or not ids:
            return True
        if ends and ids[-1] not in ends:
            ids.append(ends[0])
            row["labels"].append(ends[0])
            _extend(row["sources"], END, 1)
        return bool(ends) or not trajectory.segments[-1].text.rstrip().endswith("</answer>")

    def _fit(self, row: Row) -> bool:
        """Whether the row was cut to its limit. Raises LeftOut where it is too long and may not be cut."""
        limit = self._options.max_tokens
        if limit is None or len(row["input_ids"]) <= limit:
            return False
        if self._options.long == "drop":
            raise LeftOut("too long")
        kept: list[Row] = []
        for run in row["sources"]:
            _extend(kept, run["source"], min(run["count"], limit - sum(before["count"] for before in kept)))
        row |= {"input_ids": row["input_ids"][:limit], "labels": row["labels"][:limit], "sources": kept}
        return True


def _extend(runs: list[Row], source: str, count: int) -> None:
    """One more run; a neighbour of the same source grows."""
    if runs and runs[-1]["source"] == source:
        runs[-1]["count"] += count
    elif count:
        runs.append({"source": source, "count": count})
