"""/v1/completions in its own words: a raw prompt, as text or as ids, and what the policy says after it."""

from __future__ import annotations

import time
import uuid
from typing import Any

from toolreason.errors import InputError
from toolreason.policies.base import Completion, Finish, Policy
from toolreason.serve import openai_wire as wire
from toolreason.types import Segment, Source


def prompt(policy: Policy, given: str | list[Any]) -> Segment:
    """The prompt that was given, in the policy's ids. Raises InputError for several prompts at a time."""
    if isinstance(given, list) and len(given) == 1 and isinstance(given[0], str):
        given = given[0]
    if isinstance(given, list) and not all(isinstance(token, int) for token in given):
        raise InputError("one prompt at a time: a text, or a list of token ids")
    ids = policy.encode(given, special=True) if isinstance(given, str) else tuple(map(int, given))
    return Segment(Source.PROMPT, policy.decode(ids), ids)


def completion(model: str, asked: Segment, done: Completion) -> dict[str, Any]:
    """What was drawn, without the stop string and what ran over it; all its ids are there."""
    text = done.text[: done.text.index(done.stop)] if done.stop else done.text
    end = "length" if done.finish in (Finish.LENGTH, Finish.CONTEXT) else "stop"
    own = {wire.OWN: {"token_ids": list(done.token_ids)}}
    read, drawn = len(asked.token_ids), len(done.token_ids)
    return {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "text": text, "finish_reason": end, "logprobs": None, **own}],
        "usage": {"prompt_tokens": read, "completion_tokens": drawn, "total_tokens": read + drawn},
    }
