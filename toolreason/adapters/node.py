"""A reasoner as one node of somebody's LangGraph agent: `graph.add_node("reason", reasoner(...))`."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any, Self

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import merge_configs

from toolreason import tracing
from toolreason.adapters import messages
from toolreason.adapters.background import background
from toolreason.adapters.live import DEFAULT_POLICY, Live, planned
from toolreason.errors import InputError, SettingsError
from toolreason.execution.base import Sandbox
from toolreason.graphs.state import RolloutContext
from toolreason.policies.base import Policy
from toolreason.rollouts import compiled, steps_of
from toolreason.strategies.base import Settings, Strategy, as_dict
from toolreason.types import Problem, Sampling, Trajectory

Read = Callable[[Any], Problem | str]
Write = Callable[[Trajectory], Mapping[str, Any]]


class Reasoner(Runnable[Any, dict[str, Any]]):
    """See `reasoner`. Policy and sandbox are opened at the first call, and closed by `aclose`, `close` or leaving `async with`."""

    def __init__(
        self,
        strategy: Strategy[Any],
        settings: Settings,
        policy: Policy | str,
        sandbox: Sandbox | str | None,
        sampling: Sampling,
        read: Read | None,
        write: Write | None,
        review: bool,
    ) -> None:
        self.strategy, self.settings, self.sampling, self.review = strategy, settings, sampling, review
        self.name = strategy.name
        self.graph = compiled(strategy, settings)
        self._live, self._read, self._write = Live(policy, sandbox, settings), read, write

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> dict[str, Any]:
        """The state's update. Raises PolicyError and SandboxError where these fail again and again, so that a retry policy of the
        graph around it applies; what the model's code does is never an error.
        """
        problem, write = self._problem(input)
        parts = await self._live.parts()
        given = (config or {}).get("configurable") or {}
        place = given.get("checkpoint_ns") or uuid.uuid4().hex  # a task's own: taken up again, it has the same key
        key = uuid.uuid5(uuid.NAMESPACE_OID, f"{given.get('thread_id')}:{place}").hex
        context = RolloutContext(parts.policy, parts.sessions, self.sampling, parts.workshop, self.review)
        mine = merge_configs(config, RunnableConfig(recursion_limit=steps_of(self.settings)))
        try:
            with tracing.rollout(self.strategy.name, parts.policy.name, self.sampling, as_dict(self.settings), key) as span:
                done = await self.graph.ainvoke({"problem": problem, "key": key}, mine, context=context)
                tracing.ended(span, done["trajectory"])
        finally:  # a session that waits for a person is given back too: its cells are run again when it goes on
            if parts.sessions is not None:
                await parts.sessions.release(key)
        return dict(write(done["trajectory"]))

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> dict[str, Any]:
        """The same for graphs that are not async, in an event loop of its own. A checkpointer has to be one that can be used from
        an event loop too (in memory, or an async one).
        """
        return background().run(self.ainvoke(input, config, **kwargs))

    def _problem(self, state: Any) -> tuple[Problem, Write]:
        """What is asked, and how the answer is written. Raises InputError where the state holds no question."""
        if self._read is not None:
            asked = self._read(state)
            problem = Problem(uuid.uuid4().hex, asked) if isinstance(asked, str) else asked
            return problem, self._write or (lambda done: {"trajectory": done})
        if (problem := _get(state, "problem")) is not None:
            return problem, self._write or (lambda done: {"trajectory": done})
        if said := _get(state, "messages"):
            return messages.problem(said), self._write or (lambda done: {"messages": [messages.message(done)]})
        raise InputError(
            "the state has neither a `problem` nor `messages`: tell the reasoner where the question is, "
            "reasoner(..., read=lambda state: state['question'], write=lambda trajectory: {'answer': trajectory.response})"
        )

    async def aclose(self) -> None:
        """Give back what was opened in this event loop. Safe to call twice."""
        await self._live.aclose()

    def close(self) -> None:
        """Give back what `invoke` has opened. Safe to call twice."""
        background().run(self.aclose())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def reasoner(
    strategy: str | Strategy[Any] = "hint_infer",
    *,
    policy: Policy | str = DEFAULT_POLICY,
    sandbox: Sandbox | str | None = "docker",
    settings: Settings | Mapping[str, Any] | None = None,
    sampling: Sampling | None = None,
    read: Read | None = None,
    write: Write | None = None,
    review: bool = False,
) -> Reasoner:
    """A strategy as a node: `graph.add_node("reason", reasoner("hint_infer", policy="vllm:http://localhost:8000"))`.

    By shared keys: a state with a `problem` gets a `trajectory`; one with `messages` has its last message answered in the light of
    those before it, by an AIMessage whose content are standard blocks and from which `adapters.messages.trajectory` reads the
    trajectory. Any other state: `read` takes a question or a Problem from it, `write` makes its update of a trajectory.

    `policy` and `sandbox` are names, as the commands take them (the sandbox also "shared", or None for strategies that run no
    code), or objects of yours, which stay open. `settings`: the strategy's, or its keys and values. With `review` a person decides
    on each cell before it runs (`graphs.review`; the graph needs a checkpointer). Streams of the graph around it carry the
    rollout's events with `subgraphs=True, stream_mode="custom"`. Raises SettingsError for a wrong setting, now.
    """
    plan, chosen = planned(strategy, settings)
    if write is not None and read is None:
        raise SettingsError("write without read: say with read where the question is")
    return Reasoner(plan, chosen, policy, sandbox, sampling or Sampling(), read, write, review)


def _get(state: Any, key: str) -> Any:
    return state.get(key) if isinstance(state, Mapping) else getattr(state, key, None)
