"""Right and wrong trajectories of one problem, for preference training: pairs (DPO) or rows with a label (KTO).

Two sides are compared only where the prompts are the same, id by id: a preference is between two answers to one question. Model
tokens are trained. Tool tokens are not, and hint tokens are not either: we put them there, in right and in wrong ones alike, so
their credit would be noise, and in a rejected one it would unlearn what supervised fine-tuning had taught.

How pairs are chosen, problem by problem:

1. The right ones stand in an order that the seed and their ids decide.
2. Each takes, of the wrong ones that are left, one of the same strategy before another, then of the same policy, then the one whose
   number of trained tokens is nearest (the loss sums over them: pairs of unlike length teach length), then by the seed.
3. No trajectory is in two pairs, and a problem gives `pairs` of them at most.

Rows for KTO are up to `pairs` right and `pairs` wrong ones of a problem, by the seed's order. Those of a problem are spread evenly
over all rows, because KTO's trainer estimates a divergence from each prompt with its neighbour's completion, which should be an
answer to another question.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import zip_longest

from toolreason.export import tokens
from toolreason.export.base import PAIRS, LeftOut, Options, Purpose, Report, Row, check_prompt, columns
from toolreason.types import Judgement, Source, Trajectory

ENOUGH = "enough of this problem"
FROM = ("strategy", "policy", "stop")  # what a pair's row says of each side besides its id

Rank = Callable[["Side"], bytes]


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One trajectory, small: a run is held in memory until its last trajectory was read. `runs` are those of the completion."""

    told: Row
    right: bool
    prompt: array[int]
    completion: array[int]
    runs: list[Row]

    @property
    def mask(self) -> list[int]:
        return [int(run["source"] == Source.MODEL) for run in self.runs for _ in range(run["count"])]

    @property
    def trained(self) -> int:
        return sum(run["count"] for run in self.runs if run["source"] == Source.MODEL)


class Maker:
    """Makes sides. Raises LeftOut for a trajectory that is none, CapabilityError for one without ids."""

    def __init__(self, options: Options) -> None:
        self._tokens = tokens.Maker(replace(options, purpose=Purpose.SFT, pairs=None))

    def __call__(self, trajectory: Trajectory, report: Report) -> Side:
        check_prompt(trajectory)
        row = self._tokens(trajectory, Report())  # what becomes of it is counted when it is in a row
        lead, *runs = row["sources"]
        if not any(run["source"] == Source.MODEL for run in runs):
            raise LeftOut("no trained token")
        ids = array("q", row["input_ids"])
        right = trajectory.verdict is not None and trajectory.verdict.judgement is Judgement.CORRECT
        return Side(columns(trajectory), right, ids[: lead["count"]], ids[lead["count"] :], runs)


def rows(sides: Iterable[Side], options: Options, report: Report) -> Iterator[Row]:
    """The rows of all sides, when all are there; `report` counts what is in them, and what is in none and why."""
    problems: dict[str, list[Side]] = {}
    for side in sides:
        problems.setdefault(side.told["problem_id"], []).append(side)
    limit = PAIRS if options.pairs is None else options.pairs

    def rank(side: Side) -> bytes:
        return sha256(f"{options.seed}:{side.told['id']}".encode()).digest()

    if options.purpose is Purpose.DPO:
        for together in problems.values():
            for right, wrong in _pairs(together, limit, rank, report):
                yield _pair(right, wrong, report)
        return
    placed: list[tuple[float, Side]] = []
    for together in problems.values():
        taken = _both(together, limit, rank, report)
        placed += [((at + _fraction(rank(taken[0]))) / len(taken), side) for at, side in enumerate(taken)]
    yield from (_labelled(side, report) for _, side in sorted(placed, key=lambda one: one[0]))


def _pairs(sides: list[Side], limit: int, rank: Rank, report: Report) -> list[tuple[Side, Side]]:
    """The pairs of one problem."""
    comparable = _comparable(sides, report)
    wrongs = [side for side in comparable if not side.right]
    pairs: list[tuple[Side, Side]] = []
    for right in sorted((side for side in comparable if side.right), key=rank):
        partners = [wrong for wrong in wrongs if wrong.prompt == right.prompt]
        if partners and len(pairs) < limit:
            wrong = min(partners, key=lambda other: (*_unlike(right, other), rank(other)))
            wrongs.remove(wrong)
            pairs.append((right, wrong))
    alone = len(comparable) - 2 * len(pairs)
    _leave(report, ENOUGH if len(pairs) == limit else "no partner left", alone)
    return pairs


def _both(sides: list[Side], limit: int, rank: Rank, report: Report) -> list[Side]:
    """The rows of one problem, a right one and a wrong one in turn; in about half of the problems a right one is the first."""
    comparable = sorted(_comparable(sides, report), key=rank)
    if not comparable:
        return []
    first = comparable[0].right
    kinds = [[side for side in comparable if side.right is right][:limit] for right in (first, not first)]
    taken = [side for turn in zip_longest(*kinds) for side in turn if side is not None]
    _leave(report, ENOUGH, len(comparable) - len(taken))
    return taken


def _comparable(sides: list[Side], report: Report) -> list[Side]:
    """The sides that have another of the other kind with the same prompt. Counts the rest."""
    kinds = {side.right for side in sides}
    if len(kinds) < 2:
        _leave(report, "no wrong one" if True in kinds else "no right one", len(sides))
        return []
    prompts: dict[bytes, list[Side]] = {}
    for side in sides:
        prompts.setdefault(side.prompt.tobytes(), []).append(side)
    kept = [side for asked in prompts.values() if len({one.right for one in asked}) == 2 for side in asked]
    _leave(report, "another prompt", len(sides) - len(kept))
    return kept


def _unlike(right: Side, wrong: Side) -> tuple[bool, bool, int]:
    differ = [right.told[name] != wrong.told[name] for name in ("strategy", "policy")]
    return differ[0], differ[1], abs(right.trained - wrong.trained)


def _pair(right: Side, wrong: Side, report: Report) -> Row:
    _count(report, right, prompt=True)
    _count(report, wrong, prompt=False)
    row: Row = {"prompt_ids": list(right.prompt)}
    for name, side in (("chosen", right), ("rejected", wrong)):
        row |= {f"{name}_ids": list(side.completion), f"{name}_mask": side.mask, f"{name}_sources": side.runs}
    row |= {"id": f"{right.told['id']}:{wrong.told['id']}", "problem_id": right.told["problem_id"]}
    for name, side in (("chosen", right), ("rejected", wrong)):
        row |= {f"{name}_from": side.told["id"], **{f"{name}_{what}": side.told[what] for what in FROM}}
    return row


def _labelled(side: Side, report: Report) -> Row:
    _count(report, side, prompt=True)
    ids = {"prompt_ids": list(side.prompt), "completion_ids": list(side.completion), "completion_mask": side.mask}
    return ids | {"label": side.right, "sources": side.runs} | side.told


def _leave(report: Report, reason: str, count: int) -> None:
    if count:
        report.left_out[reason] += count


def _fraction(digest: bytes) -> float:
    """From 0 to below 1."""
    return int.from_bytes(digest[-4:]) / 2**32


def _count(report: Report, side: Side, *, prompt: bool) -> None:
    report.trained += side.trained
    report.tokens[Source.PROMPT.value] += len(side.prompt) if prompt else 0
    for run in side.runs:
        report.tokens[run["source"]] += run["count"]
