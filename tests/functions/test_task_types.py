"""Tasks of function calling are nouns as all others: frozen, and the same after JSON and strict msgpack."""

from __future__ import annotations

import dataclasses

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from toolreason import types
from toolreason.types import Judgement, Problem, ReferenceKind, Verdict, from_json, to_json

from .bank import PROBLEM

ALLOWED = [noun for noun in vars(types).values() if dataclasses.is_dataclass(noun)] + [ReferenceKind, Judgement]
VERDICT = Verdict(Judgement.WRONG, reason="after turn 1", parts={"state": 0.5})


def test_a_task_round_trips_through_json_and_strict_msgpack() -> None:
    assert from_json(Problem, to_json(PROBLEM)) == PROBLEM
    serde = JsonPlusSerializer(allowed_msgpack_modules=ALLOWED, pickle_fallback=False)
    again = serde.loads_typed(serde.dumps_typed(PROBLEM))
    assert again == PROBLEM
    assert hash(again) == hash(PROBLEM)  # tuples came back as tuples, and rollouts of one task share a cell's text


def test_a_verdict_keeps_its_parts_and_one_of_before_has_none() -> None:
    serde = JsonPlusSerializer(allowed_msgpack_modules=ALLOWED, pickle_fallback=False)
    assert from_json(Verdict, to_json(VERDICT)) == serde.loads_typed(serde.dumps_typed(VERDICT)) == VERDICT
    assert from_json(Verdict, '{"judgement": "correct", "answer": "4", "reason": ""}').parts == {}
    hash(VERDICT)
