"""Hints and the sandboxed interpreter for `create_agent` (LangChain 1): START's idea for models that are talked to in messages.

A chat model's own text cannot be continued, so a hint is a short message from the user. It comes where the model would end its
turn without having run anything (START, section 3.1: before the model stops), or with the question.
"""

from __future__ import annotations

import random
from typing import Annotated, Any, Literal, NotRequired

from langchain.agents.middleware.types import AgentMiddleware, AgentState, PrivateStateAttr, hook_config
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.runtime import Runtime

from toolreason import hints as library
from toolreason.adapters.langchain import PythonTool
from toolreason.errors import SettingsError


class HintState(AgentState[Any]):
    """`hinted`: how many hints the conversation has had since its last question."""

    hinted: NotRequired[Annotated[int, PrivateStateAttr]]


class HintedInterpreter(AgentMiddleware[HintState, Any, Any]):
    """`create_agent(model, middleware=[HintedInterpreter()])`: the tool `python`, and a hint to use it.

    hint: "end", where the model would end without having run anything; "start", with the question; "none": the tool alone.
    most: hints a question. `hints`: a file of your own (`toolreason.hints`), `kind` one of its kinds, `seed` draws the wording.
    `python` is the tool (default: `PythonTool()` over Docker); close it, or the middleware, at the end.
    """

    state_schema = HintState

    def __init__(
        self,
        python: PythonTool | None = None,
        *,
        hint: Literal["start", "end", "none"] = "end",
        most: int = 1,
        kind: str | None = None,
        hints: str | None = None,
        domain: str = "math",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if hint not in ("start", "end", "none"):
            raise SettingsError(f"no place {hint!r} for a hint: there are start, end and none")
        if most < 1:
            raise SettingsError(f"most is {most}: hints a question, 1 or more; without hints, hint='none'")
        self.python = python or PythonTool()
        self.tools = [self.python]
        self._hint, self._most, self._kind, self._domain, self._seed = hint, most, kind, domain, seed
        self._library = library.library(hints)
        if hint != "none":
            self._text(0)  # what is wrong with kind or file is told now

    def close(self) -> None:
        """End the tool's sessions and its sandbox. Safe to call twice."""
        self.python.close()

    def before_agent(self, state: HintState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """A question begins: its hints are counted anew, and one goes with it if they go with questions."""
        if self._hint != "start":
            return {"hinted": 0}
        return {"hinted": 1, "messages": [HumanMessage(self._text(0))]}

    @hook_config(can_jump_to=["model"])
    def after_model(self, state: HintState, runtime: Runtime[Any]) -> dict[str, Any] | None:
        """A model that would end without having run anything gets a hint, and its turn again."""
        given = state.get("hinted", 0)
        last = state["messages"][-1]
        if self._hint != "end" or given >= self._most or not isinstance(last, AIMessage) or last.tool_calls or _ran(state):
            return None
        return {"hinted": given + 1, "messages": [HumanMessage(self._text(given))], "jump_to": "model"}

    def _text(self, number: int) -> str:
        """The sentence of a hint, without the fence that it opens in a text of the model's own."""
        draw = random.Random(f"{self._seed}:{number}")
        text = self._library.choose(self._hint, draw, domain=self._domain, kind=self._kind, wording=None, program=None)
        return text.partition(library.FENCE)[0].strip().rstrip(":") + "."


def _ran(state: HintState) -> bool:
    """Whether a tool has answered since the last question."""
    for message in reversed(state["messages"]):
        if isinstance(message, ToolMessage):
            return True
        if isinstance(message, HumanMessage):
            return False
    return False
