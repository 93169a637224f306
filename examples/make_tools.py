"""An agent that makes its own tool (UCT): it asks for one, another loop writes and tests it, and the next problem uses it.

Needs a container engine and the image (`toolreason sandbox build`). What the model says is scripted here, since it takes a larger
model than is at hand everywhere: put `await open_policy("vllm:http://localhost:8000")` in its place.
"""

import asyncio

from toolreason import Problem, SessionBook, open_sandbox, rollout
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.strategies.uct import UctSettings
from toolreason.tools.library import open_library
from toolreason.tools.workshop import Workshop

TICKET = "A function for this is missing.\n```tool\nthe sum of the decimal digits of a whole number\n```\n"
CODE = '''```python
def digit_sum(number: int) -> int:
    """The sum of the decimal digits of `number`."""
    return sum(map(int, str(abs(number))))
```'''
TESTS = """```python
from toolbox import digit_sum

def test_some() -> None:
    assert digit_sum(123) == 6

def test_zero() -> None:
    assert digit_sum(0) == 0

def test_negative() -> None:
    assert digit_sum(-45) == 9
```"""
REVIEW = "correct: yes\nsafe: yes\ngeneral: yes\nreason: any whole number works"
CALL = "```python\nfrom toolbox import digit_sum\nprint(digit_sum({}))\n```\n"
SAID = [
    *(TICKET, CODE, TESTS, REVIEW, CALL.format("2**100"), "So it is \\boxed{115}."),
    *(CALL.format("3**100"), "So it is \\boxed{153}."),
]


async def main() -> None:
    policy = ScriptedPolicy(SAID)
    async with open_library("memory") as library, open_sandbox("docker", density="shared") as sandbox:
        workshop, book = Workshop(library, sandbox), SessionBook(sandbox)
        for number, question in enumerate(("digit sum of 2**100?", "digit sum of 3**100?")):
            problem = Problem(f"p{number}", f"What is the {question}")
            done = await rollout(problem, strategy="uct", policy=policy, sessions=book, settings=UctSettings(), workshop=workshop)
            assert done.tooling is not None
            print(f"{problem.question} {done.cells[-1].result.stdout.strip()}")
            print(f"    offered {done.tooling.offered}, made {done.tooling.made}, used {done.tooling.used}")
            print(f"    {done.tokens()} tokens, and {sum(one.tokens() for one in done.aside)} of the builder\n")
        tool, usage = await library.get("digit_sum"), await library.usage("digit_sum")
        print(f"{tool.identity} is {tool.status}: {tool.reason}; used on {usage.problems} problems, {usage.reuse} of them others")


if __name__ == "__main__":
    asyncio.run(main())
