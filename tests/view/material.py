"""Runs to look at: honest ones, and one in which everything a model can write is meant to do harm."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from pathlib import Path

from toolreason.policies.scripted import ScriptedTokenizer
from toolreason.runs import Manifest, RunWriter
from toolreason.types import (
    Cell,
    CellResult,
    Judgement,
    Outcome,
    Sampling,
    Segment,
    Source,
    StopReason,
    Trajectory,
    Verdict,
)

ENCODE = ScriptedTokenizer().encode
HOSTILE = (
    "<script>window.harmed='script'</script><img src=x onerror=\"window.harmed='img'\"><svg onload=\"window.harmed='svg'\">"
    "<a href=\"javascript:window.harmed='link'\">click</a>{{7*7}}${7*7}\x1b[2J\x1b]0;owned\x07\u202egnp.exe\u202c\u200b"
    "</pre></article><style>body{display:none}</style>&lt;b&gt;"
)


def png() -> str:
    """One red pixel, in base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = chunk(b"IHDR", b"\0\0\0\x01\0\0\0\x01\x08\x02\0\0\0")
    pixels = chunk(b"IDAT", zlib.compress(b"\0\xff\0\0"))
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + head + pixels + chunk(b"IEND", b"")).decode()


def said(source: Source, text: str, cell: Cell | None = None) -> Segment:
    ids = ENCODE(text, special=True)
    return Segment(source, text, ids, tuple(-0.1 * (n % 60) for n in range(len(ids))) if source is Source.MODEL else None, cell)


def trajectory(
    problem: str,
    *,
    sample: int = 0,
    right: bool = True,
    calls: int = 1,
    failed: int = 0,
    text: str = "I shall compute it.",
    strategy: str = "hint_infer",
) -> Trajectory:
    segments = [said(Source.PROMPT, f"What is {problem}?"), said(Source.MODEL, text)]
    if strategy == "hint_infer":
        segments.append(said(Source.HINT, "Python can tell.\n"))
    for number in range(calls):
        bad = number < failed
        result = CellResult(
            Outcome.ERROR if bad else Outcome.OK,
            "" if bad else "42\n",
            error="ZeroDivisionError: division by zero" if bad else None,
            figures=(png(), "bm8gcG5n"),
        )
        segments.append(said(Source.TOOL, "```output\n42\n```\n", Cell(f"c{number}", f"print({number} + 41)  # sum", result)))
        segments.append(said(Source.MODEL, "So \\boxed{42}."))
    verdict = Verdict(Judgement.CORRECT if right else Judgement.WRONG, "42", "" if right else "it is 43")
    return Trajectory(
        f"id-{problem}-{sample}-{strategy}",
        problem,
        strategy,
        "scripted",
        tuple(segments),
        StopReason.ANSWERED,
        sample,
        settings={"max_tokens": 64},
        verdict=verdict,
        rewards={"answer": 2.0},
        timings={"total": 1.5},
    )


def hostile() -> Trajectory:
    cell = Cell(HOSTILE, f"print({HOSTILE!r})\n{HOSTILE}", CellResult(Outcome.ERROR, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE))
    segments = (
        said(Source.PROMPT, HOSTILE),
        said(Source.MODEL, HOSTILE * 3),
        said(Source.TOOL, HOSTILE, cell),
        said(Source.MODEL, "A" * 300_000),
    )
    return Trajectory(
        HOSTILE,
        HOSTILE,
        HOSTILE,
        HOSTILE,
        segments,
        StopReason.ANSWERED,
        settings={HOSTILE: HOSTILE},
        verdict=Verdict(Judgement.WRONG, HOSTILE, HOSTILE, {HOSTILE: 0.5}),
        rewards={HOSTILE: 1.0},
        faults=(HOSTILE,),
        error=HOSTILE,
    )


def write(path: Path, rows: Sequence[Trajectory], strategy: str = "hint_infer") -> Path:
    manifest = Manifest(strategy, {"max_tokens": 64}, "scripted", Sampling(), "problems.jsonl", "abc")
    with RunWriter.open(path, manifest) as writer:
        for row in rows:
            writer.write(row)
    return path
