"""One question to a policy, and what it said: how the builder and the critic of tools speak with a model (UCT, arXiv 2602.01983).

The call is kept as a trajectory of its own, token by token, so that what it cost is counted and what it said can be trained on.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import replace

from toolreason import tokens
from toolreason.policies.base import Completion, Finish, Message, Policy
from toolreason.types import Sampling, Segment, Source, StopReason, Trajectory
from toolreason.verify import extract

STOPS = {
    Finish.END: StopReason.ANSWERED,
    Finish.STOP: StopReason.ANSWERED,
    Finish.LENGTH: StopReason.LENGTH,
    Finish.CONTEXT: StopReason.CONTEXT_FULL,
}


async def ask(
    policy: Policy,
    messages: Sequence[Message],
    *,
    purpose: str,
    problem_id: str = "",
    sampling: Sampling | None = None,
    max_tokens: int = 1024,
    seed: int = 0,
) -> Trajectory:
    """One prompt, one completion. `purpose` is kept as the trajectory's strategy. Raises PolicyError."""
    sampling = replace(sampling or Sampling(), top_logprobs=0)
    started = time.perf_counter()
    prompt = policy.prompt(messages)
    completion = await policy.sample([prompt], sampling, max_tokens=max_tokens, seed=seed)
    return Trajectory(
        id=uuid.uuid4().hex,
        problem_id=problem_id,
        strategy=purpose,
        policy=policy.name,
        sampling=sampling,
        segments=(prompt, _spoken(policy, prompt, completion)),
        stop=STOPS[completion.finish],
        timings={"total": time.perf_counter() - started},
    )


def _spoken(policy: Policy, prompt: Segment, completion: Completion) -> Segment:
    """What was sampled, its text as it reads after the prompt."""
    spoken = completion.segment()
    if not policy.exact:
        return spoken
    return replace(spoken, text=tokens.text_after(policy.decode, prompt.token_ids[-tokens.CONTEXT :], spoken.token_ids))


def said(trajectory: Trajectory) -> str:
    """The model's own words, without the tokens that end a turn."""
    return extract.plain("".join(segment.text for segment in trajectory.segments if segment.source is Source.MODEL))


def code_block(text: str) -> str | None:
    """The code of the last closed Python block; None where there is none."""
    return extract.program(text)
