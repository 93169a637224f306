"""Embed: a reasoner that runs code is one node of your own LangGraph agent.

python examples/embed.py [POLICY]
"""

import asyncio
import sys

from langgraph.graph import START, MessagesState, StateGraph

from toolreason import reasoner
from toolreason.adapters import messages

POLICY = sys.argv[1] if len(sys.argv) > 1 else "transformers:qwen2.5-coder-0.5b-instruct"


def report(state: MessagesState) -> MessagesState:
    """Whatever else the agent does: here it says what the reasoner ran."""
    done = messages.trajectory(state["messages"][-1])
    return {"messages": [("user", f"It stopped because {done.stop}, after {len(done.cells)} cells, {len(done.token_ids)} tokens.")]}


async def main() -> None:
    async with reasoner("hint_infer", policy=POLICY) as reason:
        agent = StateGraph(MessagesState)
        agent.add_node("reason", reason)
        agent.add_node("report", report)
        agent.add_edge(START, "reason")
        agent.add_edge("reason", "report")

        question = ("user", "What is the sum of all primes below 1000?")
        done = await agent.compile().ainvoke({"messages": [question]})
        for message in done["messages"]:
            print(f"{message.type}: {message.text}")


asyncio.run(main())
