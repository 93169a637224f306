"""The steps of a curation in a row: keep, tokens, filters, modification, score, selection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from toolreason.curate import balance, keep, modify, score, select
from toolreason.curate.edits import Codec
from toolreason.curate.filters import FILTERS, Filter
from toolreason.curate.settings import CurateSettings
from toolreason.curate.steps import Fall, Row, Step, sieve
from toolreason.curate.text import identity
from toolreason.errors import InputError
from toolreason.scaling import whole
from toolreason.stats import scored
from toolreason.types import Source, StopReason, Trajectory

HINT_RFT, RFT = "hint-rft", "rft"


@dataclass(frozen=True, slots=True)
class Curation:
    """What a curation gives: its rows, and what became of the others."""

    stage: str
    settings: CurateSettings
    rows: list[Row]
    steps: list[Step]
    balance: dict[str, Any]

    @property
    def trajectories(self) -> list[Trajectory]:
        """The rows as trajectories. Samples are numbered anew: those of several runs may have the same numbers."""
        numbers: Counter[str] = Counter()
        out = list[Trajectory]()
        for row in self.rows:
            out.append(replace(row.trajectory, sample=numbers[row.trajectory.problem_id]))
            numbers[row.trajectory.problem_id] += 1
        return out


def hint_rft(plain: Iterable[Trajectory], hinted: Iterable[Row], codec: Codec, settings: CurateSettings) -> Curation:
    """START's first set: of problems that plain reasoning got wrong, the hinted traces that are right."""
    settings = replace(settings, min_cells=1 if settings.min_cells is None else settings.min_cells)
    states = keep.plain_states(plain, settings)
    return _curate(HINT_RFT, hinted, partial(keep.hint_rft, plain=states), codec, settings)


def rft(rows: Iterable[Row], codec: Codec, settings: CurateSettings) -> Curation:
    """START's second set: what START-0 sampled and got right."""
    return _curate(RFT, rows, keep.right, codec, settings)


def response(one: Trajectory, settings: CurateSettings) -> tuple[str, balance.Response] | None:
    """A trajectory as B-STaR counts it; None where it has no verdict that counts."""
    right = scored(one)
    if right is None or one.stop is StopReason.ABORTED:
        return None
    return one.problem_id, balance.Response(right, score.total(score.parts(one, settings)), identity(one))


def _curate(
    stage: str, rows: Iterable[Row], judge: Callable[[Row], Fall | None], codec: Codec, settings: CurateSettings
) -> Curation:
    responses = list[tuple[str, balance.Response]]()

    def watched() -> Iterator[Row]:
        """One row in memory at a time until the first step has judged it."""
        for one in rows:
            row = replace(one, trajectory=whole(one.trajectory))
            if counted := response(row.trajectory, settings):
                responses.append(counted)
            yield row

    left, step = sieve("keep rule", watched(), judge)
    steps = [step]
    left, step = _with_tokens(left, codec)
    steps.append(step)
    for name, judged in FILTERS.items():
        left, step = sieve(f"filter: {name}", left, _with(judged, settings))
        steps.append(step)
    left, step = modify.modify(left, codec, settings)
    steps.append(step)
    left, step = sieve("filters again", left, partial(_again, settings=settings))
    steps.append(step)
    left, step = sieve("score", (score.scored(row, settings) for row in left), partial(_good_enough, settings=settings))
    steps.append(step)
    left, step = select.select(left, settings)
    measured = balance.measures(balance.grouped(responses), target=settings.per_problem, threshold=settings.min_score)
    return Curation(stage, settings, left, [*steps, step], measured)


def _with(judged: Filter, settings: CurateSettings) -> Callable[[Row], Fall | None]:
    return lambda row: judged(row, settings)


def _again(row: Row, settings: CurateSettings) -> Fall | None:
    """The filters over a row that was modified: what went may have been its cells."""
    falls = (judged(row, settings) for judged in FILTERS.values()) if row.edits else ()
    return next((fall for fall in falls if fall), None)


def _good_enough(row: Row, settings: CurateSettings) -> Fall | None:
    return Fall("below min_score", f"{row.score:.3f}") if row.score < settings.min_score else None


def _with_tokens(rows: list[Row], codec: Codec) -> tuple[list[Row], Step]:
    """Only rows whose ids read as their text. Raises InputError where that is none of them: it is another model's tokenizer."""

    def judge(row: Row) -> Fall | None:
        if not row.trajectory.token_ids:
            return Fall("no token ids: a text-only policy", row.trajectory.policy)
        return None if modify.exact(row.trajectory, codec) else Fall("the ids do not read as the text")

    left, step = sieve("exact tokens", rows, judge)
    if rows and not left and step.fell["the ids do not read as the text"]:
        raise InputError(
            f"no trace's ids read as its text with this tokenizer: it is not that of {rows[0].trajectory.policy}. "
            "Give the model's own with --tokenizer NAME_OR_DIR"
        )
    return left, step


def token_counts(trajectories: Iterable[Trajectory]) -> dict[str, int]:
    """Tokens by source."""
    found: Counter[str] = Counter()
    for one in trajectories:
        for segment in one.segments:
            found[segment.source.value] += len(segment.token_ids)
    return {source.value: found[source.value] for source in Source}


def hint_kinds(trajectories: Iterable[Trajectory], kinds: Mapping[str, str]) -> dict[str, int]:
    """How many hints of each kind: `kinds` by the hint's sentence. One that is in no library counts as `other`."""
    found: Counter[str] = Counter()
    for one in trajectories:
        for segment in one.segments:
            if segment.source is Source.HINT:
                sentence = segment.text.partition("```")[0].strip()
                found[kinds.get(sentence, "other")] += 1
    return dict(found.most_common())
