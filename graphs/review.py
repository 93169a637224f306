"""A person looks at a cell before it runs: a LangGraph interrupt, in the words that LangChain's human-in-the-loop middleware uses.

    asks      {"action_requests": [{"name": "python", "args": {"code": ...}, ...}], "review_configs": [...]}
    answers   Command(resume={"decisions": [{"type": "approve"}]})
              ... {"type": "edit", "edited_action": {"name": "python", "args": {"code": ...}}}
              ... {"type": "reject", "message": "why"}

The graph needs a checkpointer. Nothing runs while it waits, and an answer that is none of these is asked for again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from langgraph.types import interrupt

TOOL = "python"
ALLOWED = ["approve", "edit", "reject"]


class Decision(NamedTuple):
    """`code` is what may run (None: nothing), `message` why not."""

    code: str | None
    message: str = ""


def ask(code: str, call_id: str) -> Decision:
    """The decision on this code. The first time, and after an answer that cannot be read, it raises LangGraph's interrupt."""
    wrong: dict[str, str] = {}
    while True:
        answer = interrupt(
            {
                "action_requests": [{"name": TOOL, "args": {"code": code}, "description": "Run this Python in the sandbox?"}],
                "review_configs": [{"action_name": TOOL, "allowed_decisions": ALLOWED}],
                "call_id": call_id,
                **wrong,
            }
        )
        if (decision := _read(answer, code)) is not None:
            return decision
        wrong = {
            "error": f'{answer!r:.200} is no decision: resume with {{"decisions": [{{"type": "approve"}}]}}, or edit, or reject'
        }


def _read(answer: Any, code: str) -> Decision | None:
    match answer:
        case {"decisions": [{"type": "approve"}]}:
            return Decision(code)
        case {"decisions": [{"type": "edit", "edited_action": {"args": {"code": str(edited)}}}]}:
            return Decision(edited)
        case {"decisions": [{"type": "reject"} as rejected]}:
            return Decision(None, str(rejected.get("message") or "no reason given"))
    return None
