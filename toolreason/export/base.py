"""What an export is asked for, and what it says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal, Self

from toolreason.errors import InputError, SettingsError
from toolreason.types import Judgement, Problem, Source, Trajectory, coerce_tuples

Row = dict[str, Any]

ANY = "any"


class Purpose(StrEnum):
    """What the rows are for; it decides what is trained."""

    SFT = "sft"
    RL = "rl"
    MESSAGES = "messages"
    DPO = "dpo"
    KTO = "kto"
    OPENENV = "openenv"
    VERL = "verl"
    VERIFIERS = "verifiers"

    @classmethod
    def of(cls, name: str) -> Self:
        try:
            return cls(name)
        except ValueError:
            raise SettingsError(f"no purpose {name!r}: there are {', '.join(cls)}") from None


PAIRED = frozenset({Purpose.DPO, Purpose.KTO})  # right and wrong ones of the same problem
SCORED = frozenset({Purpose.RL, Purpose.OPENENV, Purpose.VERL, Purpose.VERIFIERS})  # with log-probabilities and a reward
PAIRS = 4  # of one problem at most


class LeftOut(Exception):
    """Why a trajectory gives no row."""


@dataclass(frozen=True, slots=True)
class Options:
    """`verdict`: which trajectories ("correct", "wrong", "unscored", "any"); None is the purpose's own: correct ones, and right and
    wrong ones where there is a reward or a pair.

    `end_tokens` are the ids with which the model ends its turn: the first is put at the end of an answered trajectory that ends
    with none of them (it was stopped at `</answer>`), and is trained. `max_tokens` bounds a row, prompt included; a longer one is
    dropped, or cut at its end with `long="truncate"`. `problems` by their ids, for messages. `aside`: what the builder of
    tools said for a trajectory that gives a row (`Trajectory.aside`) gives rows of its own, with the verdict of that trajectory.
    `pairs`: for dpo and kto, the most pairs (rows of each kind) that a problem gives; None is 4. `seed` decides which.
    """

    purpose: Purpose = Purpose.SFT
    verdict: str | None = None
    end_tokens: tuple[int, ...] = ()
    max_tokens: int | None = None
    long: Literal["drop", "truncate"] = "drop"
    problems: Mapping[str, Problem] | None = None
    aside: bool = False
    pairs: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        coerce_tuples(self, "end_tokens")
        if self.verdict not in (None, ANY, *Judgement):
            raise SettingsError(f"no verdict {self.verdict!r}: there are {', '.join(Judgement)} and {ANY}")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise SettingsError(f"max_tokens is {self.max_tokens}, it has to be at least 1")
        if any(token < 0 for token in self.end_tokens):
            raise SettingsError(f"an end token is an id of the model's vocabulary, not {min(self.end_tokens)}")
        if self.long not in ("drop", "truncate"):
            raise SettingsError(f"long is {self.long!r}: there are drop and truncate")
        if self.long == "truncate" and self.purpose is not Purpose.SFT:
            raise SettingsError("only rows for sft can be cut: a reward is for the whole rollout, and text has no tokens to cut at")
        if self.end_tokens and self.purpose is not Purpose.SFT:
            raise SettingsError(
                f"an end token is added for sft only, not for {self.purpose}: there every trained token was sampled, or it is text"
            )
        if self.problems is not None and self.purpose is not Purpose.MESSAGES:
            raise SettingsError("problems are for messages only: token rows hold the prompt as it was given")
        if self.problems is not None and self.aside:
            raise SettingsError(
                "what a builder was asked is in no problem: leave problems out to have aside rows, or the other way"
            )
        self._check_pairs()

    def _check_pairs(self) -> None:
        if self.purpose not in PAIRED:
            if self.pairs is not None:
                raise SettingsError(f"pairs are counted for dpo and kto only, not for {self.purpose}")
            return
        if self.pairs is not None and self.pairs < 1:
            raise SettingsError(f"pairs is {self.pairs}, it has to be at least 1")
        if self.verdict is not None:
            raise SettingsError(f"rows for {self.purpose} are of right and of wrong ones: leave verdict out")
        if self.aside:
            raise SettingsError("a builder of tools is asked something else each time, so nothing compares: leave aside out")

    @property
    def judgements(self) -> frozenset[Judgement]:
        if self.verdict == ANY:
            return frozenset(Judgement)
        if self.verdict is not None:
            return frozenset({Judgement(self.verdict)})
        both = self.purpose in PAIRED | SCORED
        return frozenset({Judgement.CORRECT, Judgement.WRONG} if both else {Judgement.CORRECT})


@dataclass(slots=True)
class Report:
    """What came of an export. `tokens` by source (`end`: added end tokens), `trained` of them; `unended` are answered rows that
    stop at `</answer>` without an end token. `aside` are calls of the builder of tools that became no rows.
    """

    read: int = 0
    rows: int = 0
    truncated: int = 0
    unended: int = 0
    trained: int = 0
    aside: int = 0
    tokens: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def check(self) -> None:
        """Raise InputError where there is nothing to keep."""
        if self.rows:
            return
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.most_common()) or "none was there"
        hint = "; --verdict any takes them whatever their verdict" if {"wrong", "unscored"} & self.left_out.keys() else ""
        raise InputError(f"no row is left of {self.read} trajectories ({reasons}){hint}")

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "tokens": dict(self.tokens), "left_out": dict(self.left_out.most_common())}


def columns(trajectory: Trajectory) -> Row:
    """What every row says of where it comes from."""
    return {
        "id": trajectory.id,
        "problem_id": trajectory.problem_id,
        "sample": trajectory.sample,
        "strategy": trajectory.strategy,
        "policy": trajectory.policy,
        "stop": trajectory.stop.value,
        "verdict": None if trajectory.verdict is None else trajectory.verdict.judgement.value,
    }


def text_only(trajectory: Trajectory) -> bool:
    """Whether the policy gave text without ids. Ids without text are possible: a part of a character."""
    return any(segment.text and not segment.token_ids for segment in trajectory.segments)


def check_prompt(trajectory: Trajectory) -> None:
    """Raise LeftOut where tokens stand before the prompt, or there is none: formats with a prompt of its own cannot say that."""
    first = next((segment.source for segment in trajectory.segments if segment.token_ids), Source.PROMPT)
    if first is not Source.PROMPT:
        raise LeftOut("no prompt")


TRAINED = {Purpose.SFT: frozenset({Source.MODEL, Source.HINT}), Purpose.RL: frozenset({Source.MODEL})}
