"""One trajectory as plain data for the page: segments with their sources, code as highlighted pieces, and what trains on it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from pygments.lexers.python import PythonLexer
from pygments.token import STANDARD_TYPES

from toolreason import export, failures
from toolreason.errors import CapabilityError, SettingsError, ToolreasonError
from toolreason.export import Purpose, Report
from toolreason.export.base import TRAINED
from toolreason.types import Cell, Segment, Trajectory, Verdict
from toolreason.view.harmless import harmless, shortened

LONGEST = 20_000  # characters of a text that are shown; the page says how many more there are
CODE, FIGURES, FIGURE_BYTES = 20_000, 20, 8 << 20
TOKENS = 20_000  # tokens of a trajectory in its strip
PNG = b"\x89PNG\r\n\x1a\n"
PURPOSES = (Purpose.SFT, Purpose.RL)
Decode = Callable[[Sequence[int]], str]


def detail(one: Trajectory) -> dict[str, Any]:
    """All there is to see of it but the tokens. Every text is harmless, and none is longer than the page can bear."""
    return {
        "id": harmless(one.id),
        "problem": harmless(one.problem_id),
        "sample": one.sample,
        "strategy": harmless(one.strategy),
        "policy": harmless(one.policy),
        "stop": one.stop.value,
        "error": harmless(one.error and one.error[:LONGEST]),
        "verdict": _verdict(one.verdict),
        "rounds": [_verdict(verdict) for verdict in one.round_verdicts],
        "rewards": harmless(one.rewards),
        "timings": harmless(one.timings),
        "settings": harmless({name: str(value)[:500] for name, value in one.settings.items()}),
        "sampling": {name: getattr(one.sampling, name) for name in ("temperature", "top_p", "top_k", "seed")},
        "faults": harmless(one.faults),
        "failures": harmless(
            [f"{failures.MODES[mode]}: {found.kind}" for mode, all_of_it in failures.modes(one).items() for found in all_of_it]
        ),
        "tooling": None if one.tooling is None else harmless(_tooling(one)),
        "training": training(one),
        "segments": [segment(part) for part in one.segments],
        "taken_back": [{"after": part.after, **segment(part.segment)} for part in one.taken_back],
        "aside": [
            {
                "strategy": harmless(part.strategy),
                "policy": harmless(part.policy),
                "segments": [segment(said) for said in part.segments],
            }
            for part in one.aside
        ],
    }


def segment(part: Segment) -> dict[str, Any]:
    text, more = shortened(part.text, LONGEST)
    logprobs = part.logprobs or ()
    return {
        "source": part.source.value,
        "text": text,
        "more": more,
        "tokens": len(part.token_ids),
        "logprob": sum(logprobs) / len(logprobs) if logprobs else None,
        "cell": None if part.cell is None else cell(part.cell),
    }


def cell(one: Cell) -> dict[str, Any]:
    """Code and result. A figure is shown where it is a PNG of a size that can be borne."""
    result = one.result
    texts = {name: shortened(getattr(result, name) or "", LONGEST) for name in ("stdout", "stderr", "value", "error", "traceback")}
    figures = [figure for figure in result.figures[:FIGURES] if _png(figure)]
    return {
        "call_id": harmless(one.call_id),
        "code": highlighted(one.code[:CODE]),
        "more": max(0, len(one.code) - CODE),
        "outcome": result.outcome.value,
        "ok": result.ok,
        "seconds": result.duration_s,
        "dropped": result.dropped,
        "figures": figures,
        "not_shown": len(result.figures) - len(figures),
        **{name: text for name, (text, _) in texts.items()},
        "cut": {name: more for name, (_, more) in texts.items() if more},
    }


def highlighted(code: str) -> list[list[str]]:
    """Pieces of the code in order, each with the class of its kind: joined they are the code, harmless."""
    pieces: list[list[str]] = []
    for kind, text in PythonLexer(stripnl=False, ensurenl=False).get_tokens(code):
        style = STANDARD_TYPES.get(kind, "")
        if pieces and pieces[-1][0] == style:
            pieces[-1][1] += harmless(text)
        else:
            pieces.append([style, harmless(text)])
    return pieces


def training(one: Trajectory) -> dict[str, str]:
    """By purpose, why this trajectory gives no row for it; empty where it gives one."""
    found = {}
    for purpose in PURPOSES:
        report = Report()
        try:
            made = list(export.rows([one], purpose, report=report))
            found[purpose.value] = "" if made else harmless("; ".join(report.left_out) or "no row")
        except (CapabilityError, SettingsError):
            found[purpose.value] = "text without token ids"
    return found


def tokens(one: Trajectory, decode: Decode | None) -> dict[str, Any]:
    """The strip: a list a segment of [id, text or null, log-probability or null], and which purposes train on the segment."""
    left = TOKENS
    strip = []
    for part in one.segments:
        ids = part.token_ids[:left]
        left -= len(ids)
        texts: Sequence[str | None] = [None] * len(ids) if decode is None else [_piece(decode, token) for token in ids]
        logprobs: Sequence[float | None] = part.logprobs or [None] * len(ids)
        trained = {purpose.value: part.source in TRAINED[purpose] for purpose in PURPOSES}
        strip.append(
            {
                "source": part.source.value,
                "trained": trained,
                "tokens": [list(row) for row in zip(ids, texts, logprobs, strict=False)],
            }
        )
    left_out = len(one.token_ids) - (TOKENS - left)
    return {"segments": strip, "readable": decode is not None, "left_out": left_out}


def _piece(decode: Decode, token: int) -> str | None:
    """A token's text; none where it is but a part of a character."""
    text = decode([token])
    return None if "\ufffd" in text else harmless(text)


@lru_cache(maxsize=8)
def decoder(policy: str, tokenizer: str | None) -> Decode | None:
    """How the policy's tokens are read; None where its tokenizer is not here. Nothing is fetched for it."""
    from toolreason.curate.tokenizer import open_codec

    try:
        return open_codec(policy, tokenizer, local=True).decode
    except (ToolreasonError, ImportError, OSError, ValueError):
        return None


def _verdict(verdict: Verdict | None) -> dict[str, Any] | None:
    if verdict is None:
        return None
    told = {"judgement": verdict.judgement.value, "answer": verdict.answer, "reason": verdict.reason, "parts": verdict.parts}
    return {name: harmless(value[:2000] if isinstance(value, str) else value) for name, value in told.items()}


def _tooling(one: Trajectory) -> dict[str, list[str]]:
    assert one.tooling is not None
    names = ("offered", "made", "repaired", "refused", "used", "failed")
    return {name: list(getattr(one.tooling, name)) for name in names}


def _png(figure: str) -> bool:
    if len(figure) > FIGURE_BYTES:
        return False
    try:
        return base64.b64decode(figure, validate=True).startswith(PNG)
    except (binascii.Error, ValueError):
        return False
