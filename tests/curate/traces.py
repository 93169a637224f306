"""Small traces by hand, exact under the scripted tokenizer."""

from __future__ import annotations

from typing import Any

from toolreason.curate.steps import Row
from toolreason.curate.tokenizer import ScriptedCodec
from toolreason.policies.scripted import END, ScriptedTokenizer, logprob
from toolreason.types import Cell, CellResult, Judgement, Outcome, Segment, Source, StopReason, Trajectory, Verdict

CODEC = ScriptedCodec()
TOKENIZER = ScriptedTokenizer()
HINT_TEXT = "\n\nWait, maybe using Python here is a good idea:\n```python\n"


def prompt(question: str = "What is 6 * 7?") -> Segment:
    ids = TOKENIZER.encode(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n", special=True)
    return Segment(Source.PROMPT, TOKENIZER.decode(ids), ids)


def model(text: str) -> Segment:
    ids = TOKENIZER.encode(text, special=True)
    logprobs = tuple(map(logprob, ids))
    return Segment(Source.MODEL, TOKENIZER.decode(ids), ids, logprobs, certainties=tuple(-one for one in logprobs))


def hint(text: str = HINT_TEXT) -> Segment:
    return Segment(Source.HINT, text, TOKENIZER.encode(text))


def tool(code: str, stdout: str = "", *, error: str | None = None, outcome: Outcome | None = None) -> Segment:
    how = outcome or (Outcome.ERROR if error else Outcome.OK)
    result = CellResult(how, stdout, error=error, traceback=f"Traceback:\n  line 1\n{error}\n" if error else "")
    text = f"```output\n{stdout}{error or ''}\n```\n"
    return Segment(Source.TOOL, text, TOKENIZER.encode(text), cell=Cell("c", code, result))


def trace(*segments: Segment, id_: str = "t", problem: str = "p", right: bool | None = True, **more: Any) -> Trajectory:
    judgement = {True: Judgement.CORRECT, False: Judgement.WRONG, None: Judgement.UNSCORED}[right]
    values: dict[str, Any] = {"stop": StopReason.ANSWERED, "verdict": Verdict(judgement, more.pop("answer", "42"))}
    return Trajectory(id_, problem, "hint_infer", "scripted", (prompt(), *segments), **(values | more))


def solved(code: str = "print(6*7)", *, id_: str = "t", problem: str = "p", right: bool | None = True, **more: Any) -> Trajectory:
    """A hinted trace: hint, code, its output, the answer."""
    ending = model(rf"So the answer is \boxed{{42}}.{END}")
    return trace(
        model("Let me think."),
        hint(),
        model(f"{code}\n```\n"),
        tool(code, "42\n"),
        ending,
        id_=id_,
        problem=problem,
        right=right,
        **more,
    )


def row(one: Trajectory, **more: Any) -> Row:
    return Row(one, "run", **more)
