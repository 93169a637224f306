"""Embed: a reasoner that runs code is one node of your own LangGraph agent.

python examples/embed.py [POLICY]
"""

import asyncio
import sys

from langgraph.graph import START, StateGraph

from toolreason import Problem, SessionBook, open_policy, open_sandbox
from toolreason.graphs import RolloutContext, RolloutState, hint_infer

POLICY = sys.argv[1] if len(sys.argv) > 1 else "transformers:qwen2.5-coder-0.5b-instruct"


class State(RolloutState, total=False):
    """The agent's own state: the rollout's keys, and whatever else the agent needs."""

    report: str


def report(state: State) -> State:
    trajectory = state["trajectory"]
    return {"report": f"stopped because {trajectory.stop}, after {len(trajectory.cells)} cells:\n{trajectory.response}"}


async def main() -> None:
    agent = StateGraph(State, RolloutContext)
    agent.add_node("reason", hint_infer.build().compile())
    agent.add_node("report", report)
    agent.add_edge(START, "reason")
    agent.add_edge("reason", "report")

    policy = await open_policy(POLICY)
    try:
        async with open_sandbox("docker") as sandbox:
            context = RolloutContext(policy, SessionBook(sandbox))
            problem = Problem("p1", "What is the sum of all primes below 1000?")
            print((await agent.compile().ainvoke({"problem": problem}, context=context))["report"])
    finally:
        await policy.aclose()


asyncio.run(main())
