"""What a curation can be told. All of it is ours: the paper gives no numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from toolreason.errors import SettingsError


@dataclass(frozen=True, slots=True)
class CurateSettings:
    """`per_problem` rows at most. A filter's limit is the largest value that stays; shares are in 0..1.

    plain_answered     the plain rollout must have ended with an answer: a wrong one, not one that ran out of tokens
    min_cells          fewer executed cells, and the trace falls (None: 1 for hint-rft, 0 for rft)
    max_failing_cells  more cells that did not end `ok`, and the trace falls; `last_cell_ok`: nor may the last one be among them;
                       `drop_failed_again`: nor may a program that failed be run again as it was
    max_repeated       share of the `ngram`-word runs of the model's prose that were there before
    max_same_line      how often one line of prose may stand there; `max_same_cell`: how often one program may run
    max_tokens         tokens after the prompt
    drop_leaked        the answer first appears in the text of an error
    max_other_script   share of letters of scripts that the question does not use
    max_faults         format faults (`invented_output`, `unclosed_call`)
    min_score          as `toolreason.curate.score` computes it
    fences, conjunctions, after_answer   the three modifications
    tool_share         the share of traces that ran a cell among all rows that are kept (None: whatever the scores give)
    """

    per_problem: int = 4
    seed: int = 0
    plain_answered: bool = True
    min_cells: int | None = None
    max_failing_cells: int = 2
    last_cell_ok: bool = True
    drop_failed_again: bool = True
    max_repeated: float = 0.3
    ngram: int = 6
    max_same_line: int = 4
    max_same_cell: int = 2
    max_tokens: int = 4096
    drop_leaked: bool = True
    max_other_script: float = 0.02
    max_faults: int = 0
    min_score: float = 0.0
    fences: bool = True
    conjunctions: bool = True
    after_answer: bool = True
    tool_share: float | None = None

    def __post_init__(self) -> None:
        for name in ("per_problem", "ngram", "max_same_line", "max_same_cell", "max_tokens"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} {getattr(self, name)} has to be 1 or more")
        for name in ("min_cells", "max_failing_cells", "max_faults"):
            if (getattr(self, name) or 0) < 0:
                raise SettingsError(f"{name} {getattr(self, name)} has to be 0 or more")
        for name in ("max_repeated", "max_other_script", "min_score", "tool_share"):
            if not 0 <= (getattr(self, name) or 0) <= 1:
                raise SettingsError(f"{name} {getattr(self, name)} is outside 0 to 1")


def as_dict(settings: CurateSettings) -> dict[str, Any]:
    return asdict(settings)
