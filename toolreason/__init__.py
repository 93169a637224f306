"""A language model reasons with tools it runs in a sandbox, and every token is kept exactly as it was sampled.

    import toolreason
    print(toolreason.solve("What is 2**64 mod 97?").response)

Heavy parts load when they are first used: importing this package loads no torch, vllm, transformers or docker.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from toolreason.types import (
    Cell,
    CellResult,
    Judgement,
    Outcome,
    Problem,
    Reference,
    ReferenceKind,
    Sampling,
    Segment,
    Source,
    StopReason,
    Trajectory,
    Verdict,
)

if TYPE_CHECKING:
    from toolreason import runs
    from toolreason.adapters.node import reasoner
    from toolreason.execution import SessionBook, open_sandbox
    from toolreason.policies import open_policy
    from toolreason.rollouts import rollout, solve
    from toolreason.verify import Verifier

__version__ = "0.1.0"

__all__ = [
    "Cell",
    "CellResult",
    "Judgement",
    "Outcome",
    "Problem",
    "Reference",
    "ReferenceKind",
    "Sampling",
    "Segment",
    "SessionBook",
    "Source",
    "StopReason",
    "Trajectory",
    "Verdict",
    "Verifier",
    "open_policy",
    "open_sandbox",
    "reasoner",
    "rollout",
    "runs",
    "solve",
]

_LATE = {
    "SessionBook": "toolreason.execution",
    "Verifier": "toolreason.verify",
    "open_policy": "toolreason.policies",
    "open_sandbox": "toolreason.execution",
    "reasoner": "toolreason.adapters.node",
    "rollout": "toolreason.rollouts",
    "solve": "toolreason.rollouts",
}


def __getattr__(name: str) -> Any:
    if name == "runs":
        return import_module("toolreason.runs")
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
