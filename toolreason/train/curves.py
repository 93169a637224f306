"""A training's `metrics.jsonl` as curves: rewards by part, accuracy, calls, length, entropy, failing calls, losses, time.

What was not logged has no panel. Several trainings are drawn into the same panels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from toolreason import charts
from toolreason.charts import Curve, Panel
from toolreason.errors import InputError
from toolreason.stats import wilson
from toolreason.train import sft_files

Lines = Sequence[Mapping[str, Any]]
FILE = "curves.svg"
PART, MEAN = "rewards/", "/mean"


class Kind(NamedTuple):
    """A panel: its title, what is drawn in it (key of a line: its name there), and whether these are shares."""

    title: str
    keys: Mapping[str, str]
    share: bool = False


KINDS = (
    Kind("reward", {"reward": "training"}),
    Kind("right", {"rollout/accuracy": "training", "eval_rollout/accuracy": "held out", "eval_accuracy": "held out"}, share=True),
    Kind(
        "rollouts with a call",
        {"rollout/with_calls": "training", "eval_rollout/with_calls": "held out", "eval_tool_use": "held out"},
        share=True,
    ),
    Kind("calls a rollout", {"rollout/calls": "training", "eval_rollout/calls": "held out"}),
    Kind(
        "model tokens a rollout",
        {"rollout/tokens/model": "training", "eval_rollout/tokens/model": "held out", "eval_tokens": "held out"},
    ),
    Kind("calls that failed", {"rollout/tool_errors": "all", "rollout/tool_errors_in_right": "in right rollouts"}, share=True),
    Kind("entropy, nats a token", {"entropy": "training"}),
    Kind("rollouts that are trained on", {"rollout/trained": "training"}, share=True),
    Kind("sampler against trainer, nats a token", {"sampling/sampling_logp_difference/mean": "mean difference"}),
    Kind(
        "loss",
        {"loss": "training", "eval_loss": "held out", "eval_loss_hint": "held out, hints", "eval_loss_model": "held out, model"},
    ),
    Kind("gradient norm", {"grad_norm": "training"}),
    Kind("seconds a step", {"step_time": "all", "rollout/seconds": "rollouts"}),
)
SEEN = {"eval_rollout/accuracy": "eval_rollout/scored", "eval_accuracy": "eval_scored", "eval_tool_use": "eval_rollouts"}


def draw(trainings: Sequence[Path | str], file: Path) -> list[str]:
    """Draw these training directories into `file` (SVG); the titles of its panels.

    Raises InputError for a directory without metrics, or a file that cannot be written, SetupError without matplotlib.
    """
    charts.check()
    read = {}
    for path in map(Path, trainings):
        read[path.name if len(trainings) > 1 else ""] = sft_files.read_metrics(path)
        if not read[path.name if len(trainings) > 1 else ""]:
            raise InputError(f"{path} has no {sft_files.METRICS} with a line: give a directory that `toolreason train` made")
    shown = panels(read)
    charts.panels(shown, file, xlabel="step")
    return [panel.title for panel in shown]


def panels(read: Mapping[str, Lines]) -> list[Panel]:
    """The panels of these trainings, by name; one has none. The parts of the reward come after the reward."""
    parts = sorted(
        {key for lines in read.values() for line in lines for key in line if key.startswith(PART) and key.endswith(MEAN)}
    )
    names = {key: key.removeprefix(PART).removesuffix(MEAN) for key in parts}
    kinds = [KINDS[0], Kind("parts of the reward, without their weights", names), *KINDS[1:]]
    made = []
    for kind in kinds:
        curves = [
            curve
            for run, lines in read.items()
            for key, name in kind.keys.items()
            if (curve := _curve(lines, key, ", ".join(filter(None, (run, name)))))
        ]
        if curves:
            made.append(Panel(kind.title, tuple(curves), kind.share))
    return made


def _curve(lines: Lines, key: str, name: str) -> Curve | None:
    """None where it was never logged. Held-out shares have Wilson's intervals, by how many rollouts they are of."""
    found = [line for line in lines if line.get(key) is not None]
    if not found:
        return None
    points = tuple((float(line["step"]), float(line[key])) for line in found)
    counted = SEEN.get(key)
    band: tuple[tuple[float, float], ...] = ()
    if counted is not None and all(line.get(counted) for line in found):
        band = tuple(wilson(round(line[key] * line[counted]), round(line[counted])) for line in found)
    return Curve(name, points, band, noisy=not key.startswith("eval_"))


def cost(lines: Lines) -> dict[str, float]:
    """Where the time of RL's steps went, as shares: rollouts, the part of it that waited for tools, and the update.

    Rollouts wait at once; the tools' part is the share of all their waiting that was for tools.
    """
    steps = [line for line in lines if line.get("step_time") and line.get("rollout/seconds") is not None]
    total = sum(line["step_time"] for line in steps)
    if not total:
        return {}
    rollouts = sum(line["rollout/seconds"] for line in steps)
    tools, waited = (
        sum(sum(line.get(key, 0.0) for key in keys) for line in steps)
        for keys in (("rollout/tool_s",), ("rollout/tool_s", "rollout/sample_s"))
    )
    return {
        "step_s": total / len(steps),
        "rollouts": rollouts / total,
        "tools": rollouts / total * tools / waited if waited else 0.0,
        "update": 1 - rollouts / total,
    }


def held_out(lines: Lines) -> list[dict[str, Any]]:
    """What RL's evaluations came to: step, accuracy with Wilson's interval, how many rollouts count, calls."""
    found = []
    for line in lines:
        if line.get("eval_rollout/accuracy") is not None and line.get("eval_rollout/scored"):
            right, scored = line["eval_rollout/accuracy"], round(line["eval_rollout/scored"])
            low, high = wilson(round(right * scored), scored)
            shares = {"accuracy": right, "low": low, "high": high, "scored": scored}
            found.append({"step": line["step"], **shares, "calls": line.get("eval_rollout/calls")})
    return found
