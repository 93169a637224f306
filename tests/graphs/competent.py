"""A scripted policy that builds and uses tools as a good model would: what it says depends on what it is asked, not on a count."""

from __future__ import annotations

from dataclasses import dataclass, field

from toolreason.policies.scripted import ScriptedPolicy

CODE = '''```python
def count_multiples(factor: int, most: int) -> int:
    """How many multiples of `factor` there are from 1 to `most`."""
    return most // factor
```'''
TESTS = """```python
from toolbox import count_multiples

def test_threes() -> None:
    assert count_multiples(3, 10) == 3

def test_none() -> None:
    assert count_multiples(7, 6) == 0

def test_edge() -> None:
    assert count_multiples(5, 5) == 1
```"""
YES = "correct: yes\nsafe: yes\ngeneral: yes\nreason: it is one line"
TICKET = "There is no such function yet.\n```tool\nhow many multiples of a factor there are from 1 to a most\n```\n"
USE = "I use it.\n```python\nfrom toolbox import count_multiples\nprint(count_multiples({factor}, {most}))\n```\n"


@dataclass
class Competent:
    """`code`, `tests`, `critic`: what the builder says, the last of them again and again. `cell` is the cell that uses the tool."""

    code: list[str] = field(default_factory=lambda: [CODE])
    tests: list[str] = field(default_factory=lambda: [TESTS])
    critic: list[str] = field(default_factory=lambda: [YES])
    repair: list[str] = field(default_factory=list)
    cell: str = USE.format(factor=7, most=100)
    asked: list[str] = field(default_factory=list)  # what it was asked for, in order

    def policy(self) -> ScriptedPolicy:
        return ScriptedPolicy(self.reply, context_length=32_768)

    def reply(self, prompt: str, index: int) -> str:
        for kind, mark in (
            ("repair", "This tool failed in use"),
            ("code", "Write one Python function"),
            ("tests", "Write tests that show"),
            ("critic", "Review a tool"),
        ):
            if mark in prompt:
                said: list[str] = getattr(self, kind)
                self.asked.append(kind)
                return said[min(self.asked.count(kind), len(said)) - 1]
        self.asked.append("task")
        head, _, told = prompt.partition("<|im_start|>assistant\n")
        if "```output" in told and "from toolbox import" not in told.split("```output")[-1]:
            return "So the answer is \\boxed{14}."
        if "count_multiples" in head or "Ready: from toolbox" in told:
            return self.cell
        return TICKET
