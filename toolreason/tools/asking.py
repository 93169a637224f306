"""One question to a policy, and what it said: how the builder and the critic of tools speak with a model (UCT, arXiv 2602.01983).

The call is kept as a trajectory of its own, token by token, so that what it cost is counted and what it said can be trained on.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import replace

from toolreason import tokens, tracing
from toolreason.policies.base import Completion, Finish, Message, Policy
from toolreason.types import Sampling, Segment, Source, StopReason, Trajectory
from toolreason.verify import extract

STOPS = {
    Finish.END: StopReason.ANSWERED,
    Finish.STOP: StopReason.ANSWERED,
    Finish.LENGTH: StopReason.LENGTH,
    Finish.CONTEXT: StopReason.CONTEXT_FULL,
}


BEGINNING = 3  # characters of a lead by which it is seen that the model wrote it itself


async def ask(
    policy: Policy,
    messages: Sequence[Message],
    *,
    purpose: str,
    problem_id: str = "",
    sampling: Sampling | None = None,
    lead: str = "",
    max_tokens: int = 1024,
    seed: int = 0,
) -> Trajectory:
    """One prompt, one completion. `purpose` is kept as the trajectory's strategy. Raises PolicyError.

    `lead` is how the answer begins: small models keep to a form that they find begun. It is a hint segment; a text-only policy,
    which cannot be made to go on, does without.
    """
    sampling = replace(sampling or Sampling(), top_logprobs=0)
    started = time.perf_counter()
    prompt = policy.prompt(messages)
    before = [prompt]
    if lead and policy.exact:
        before.append(Segment(Source.HINT, lead, policy.encode(lead)))
    completion = await tracing.sample(policy, before, sampling, max_tokens=max_tokens, seed=seed)
    return Trajectory(
        id=uuid.uuid4().hex,
        problem_id=problem_id,
        strategy=purpose,
        policy=policy.name,
        sampling=sampling,
        segments=(*before, _spoken(policy, before, completion)),
        stop=STOPS[completion.finish],
        timings={"total": time.perf_counter() - started},
    )


def _spoken(policy: Policy, before: Sequence[Segment], completion: Completion) -> Segment:
    """What was sampled, its text as it reads after what stood before."""
    spoken = completion.segment()
    if not policy.exact:
        return spoken
    ids = tuple(token for segment in before for token in segment.token_ids)
    return replace(spoken, text=tokens.text_after(policy.decode, ids[-tokens.CONTEXT :], spoken.token_ids))


def said(trajectory: Trajectory) -> str:
    """The answer, with the lead unless the model began anew, without the tokens that end a turn."""
    lead, own = (
        "".join(segment.text for segment in trajectory.segments if segment.source is source)
        for source in (Source.HINT, Source.MODEL)
    )
    anew = own.lstrip().lower().startswith(lead[:BEGINNING].lower())
    if lead.startswith("```"):  # perhaps after some words
        first = next(iter(extract.fences(own)), None)
        anew = first is not None and first.language != ""
    return extract.plain(own if anew else lead + own)


def code_block(text: str) -> str | None:
    """The code of the first closed Python block; None where there is none. Later ones show how it is used."""
    blocks = [one for one in extract.fences(text) if one.closed and one.body.strip()]
    return next((one.body for one in blocks if one.language.startswith("py")), next((one.body for one in blocks), None))
