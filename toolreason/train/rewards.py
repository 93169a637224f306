"""Rewards: small functions of a finished, judged trajectory, each logged alone, weighed and added (ARTIST, arXiv 2505.01441).

    answer           2 for a right answer, 0 for a wrong one
    accuracy         1 for a right answer, 0 for a wrong one
    format_relaxed   0.125 for each of the four pairs of tags that is there: think, python, output, answer
    format_strict    0.5 if all four are there and in order
    tool_success     calls that ran well / calls; 0 without a call

With ARTIST's numbers a wrong answer with neat tags around `print(1)` scores as much as a bare right one: look at the parts. A
rollout that was aborted, or that the verifier could not judge, has no reward at all, whatever its format: it is no member of its
group, neither good nor bad.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

from toolreason import scaling
from toolreason.errors import SettingsError
from toolreason.types import Judgement, Source, StopReason, Trajectory

Reward = Callable[[Trajectory], float | None]
"""None: not applicable to this trajectory. It is then left out of its sum."""

Parts = dict[str, float | None]

TAGS = ("think", "python", "output", "answer")
_TAG = re.compile(r"<(/?)(think|python|output|answer)>")
_ORDER = re.compile(r"Tt(?:Tt|PpOo)*Aa")  # thinking first, each call with its output, one answer at the end


def accuracy(trajectory: Trajectory) -> float | None:
    """Of the whole text, which is what is trained on: the verdict may be that on an earlier round."""
    verdict = scaling.whole(trajectory).verdict
    if verdict is None or verdict.judgement is Judgement.UNSCORED or trajectory.stop is StopReason.ABORTED:
        return None
    return float(verdict.judgement is Judgement.CORRECT)


def answer(trajectory: Trajectory) -> float | None:
    right = accuracy(trajectory)
    return None if right is None else 2 * right


def format_relaxed(trajectory: Trajectory) -> float | None:
    written = tags(trajectory)
    if written is None:
        return None
    return sum(0.125 for tag in TAGS if 0 < written.count(tag[0].upper()) == written.count(tag[0]))


def format_strict(trajectory: Trajectory) -> float | None:
    written = tags(trajectory)
    if written is None:
        return None
    return 0.5 if _ORDER.fullmatch(written) and "Pp" in written else 0.0


def tool_success(trajectory: Trajectory) -> float | None:
    cells = trajectory.cells
    return sum(cell.result.ok for cell in cells) / len(cells) if cells else 0.0


def tags(trajectory: Trajectory) -> str | None:
    """The tags in order, one letter each: `TtPpOoAa` is think, python, output, answer, small letters close. None where the rollout
    was not to write tags.

    A pair of output tags is what a tool wrote; those that a model makes up are nothing, and neither is a tag that a tool printed.
    """
    if trajectory.settings.get("format") != "tagged":
        return None
    text = ""
    for segment in trajectory.segments:
        if segment.source is Source.PROMPT:
            text += "<think>" if segment.text.rstrip().endswith("<think>") else ""  # some templates open it
        elif segment.source is Source.TOOL:
            text += "<output></output>"
        else:
            text += re.sub("</?output>", "", segment.text)
    return "".join(name[0] if closing else name[0].upper() for closing, name in _TAG.findall(text))


REWARDS: dict[str, Reward] = {
    "answer": answer,
    "accuracy": accuracy,
    "format_relaxed": format_relaxed,
    "format_strict": format_strict,
    "tool_success": tool_success,
}
"""By name. Put your own here, or name it `package.module:function`."""

_FUNCTIONS = ("state", "function", "format_relaxed", "format_strict")

PRESETS: dict[str, dict[str, float]] = {
    "artist": {"answer": 1.0, "format_relaxed": 1.0, "format_strict": 1.0, "tool_success": 1.0},
    "outcome": {"accuracy": 1.0},
    "functions": {f"toolreason.train.function_rewards:{part}": 1.0 for part in _FUNCTIONS},
}
"""`functions` is the paper's for function calling: see `function_rewards`."""


def weights(preset: str, changes: Sequence[str] = ()) -> dict[str, float]:
    """The weights of a preset, with `name=weight` changes: another weight, one part more, or (weight 0) one less.

    Raises SettingsError for an unknown preset or part, and where nothing is left.
    """
    if preset not in PRESETS:
        raise SettingsError(f"no rewards {preset!r}: there are {', '.join(PRESETS)}")
    chosen = dict(PRESETS[preset])
    for change in changes:
        name, equals, value = change.rpartition("=")
        if not equals:
            raise SettingsError(f"{change!r} is no name=weight, e.g. tool_success=0.5")
        chosen[name] = _number(change, value)
        find(name)
    chosen = {name: weight for name, weight in chosen.items() if weight}
    if not chosen:
        raise SettingsError("every reward has the weight 0: nothing would be learned")
    return chosen


def _number(change: str, value: str) -> float:
    try:
        weight = float(value)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise SettingsError(f"{change!r}: {value!r} is no number")
    return weight


def find(name: str) -> Reward:
    """The reward of this name. Raises SettingsError."""
    if name in REWARDS:
        return REWARDS[name]
    module, colon, function = name.partition(":")
    if colon:
        try:
            found: Reward = getattr(import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise SettingsError(f"no reward {name!r}: {error}") from error
        return found
    raise SettingsError(f"no reward {name!r}: there are {', '.join(REWARDS)}, and yours as package.module:function")


def score(trajectory: Trajectory, chosen: Mapping[str, float]) -> Parts:
    """Each part, before its weight. All are None where the rollout was aborted or could not be judged."""
    if accuracy(trajectory) is None:
        return dict.fromkeys(chosen)
    return {name: find(name)(trajectory) for name in chosen}


def total(parts: Parts, chosen: Mapping[str, float]) -> float | None:
    """The weighed sum, as the trainer makes it: a part that does not apply adds nothing; None where none applies."""
    there = [chosen[name] * value for name, value in parts.items() if value is not None]
    return sum(there) if there else None
