"""What came of a training: rows, losses before and after, evaluations, time, and what it was made with."""

from __future__ import annotations

import contextlib
import json
import platform
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolreason.durable import replace_file
from toolreason.train.sft_data import RowReport
from toolreason.train.sft_files import REPORT, Manifest, Metrics

FORMAT = 1
Line = Mapping[str, Any]


def make(
    manifest: Manifest,
    rows: RowReport,
    metrics: Metrics,
    steps: int,
    where: str,
    written: dict[str, str],
    rolled_out: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The report of a run that is at its end. `written`: the directories of the result, by what they hold; `rolled_out`: what the
    evaluations were of.
    """
    losses = [line["loss"] for line in metrics.lines if "loss" in line]
    held_out = [line for line in metrics.lines if "eval_loss" in line]
    return {
        "format": FORMAT,
        "kind": manifest.kind,
        "model": {"name": manifest.model, "hash": manifest.model_hash},
        "data": {"paths": list(manifest.data), "hash": manifest.data_hash, **rows.to_dict()},
        "settings": manifest.settings,
        "steps": steps,
        "loss": {"first": losses[0], "last": losses[-1]} if losses else {},
        "held_out_loss": {"before": _losses(held_out[0]), "after": _losses(held_out[-1])} if held_out else {},
        "rolled_out": rolled_out or {},
        "evaluations": evaluations(metrics.lines),
        "duration_s": round(metrics.elapsed_s, 1),
        "peak_memory_mb": _peak_mb(where),
        "device": _device(where),
        "precision": manifest.precision,
        "processes": manifest.processes,
        "versions": {**manifest.versions, "python": platform.python_version()},
        "started": manifest.started,
        "out": written,
    }


def keep(out: Path, report: Mapping[str, Any]) -> None:
    replace_file(out / REPORT, json.dumps(report, indent=2) + "\n")


def read(out: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((out / REPORT).read_text(encoding="utf-8"))
    return report


def evaluations(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the rollouts measured, by step; `failed` where they could not be done."""
    measured = (line for line in lines if "eval_rollouts" in line or "eval_failed" in line)
    return [
        {"step": line["step"]}
        | {
            key.removeprefix("eval_"): value
            for key, value in line.items()
            if key.startswith("eval_") and not key.startswith("eval_loss")
        }
        for line in measured
    ]


def _losses(line: Line) -> dict[str, float]:
    found = {key.removeprefix("eval_loss"): value for key, value in line.items() if key.startswith("eval_loss")}
    return {"step": line["step"], **{key.lstrip("_") or "all": value for key, value in found.items()}}


def _peak_mb(where: str) -> int:
    import torch

    if where == "cuda":
        return int(torch.cuda.max_memory_allocated() / 1e6)
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


def _device(where: str) -> str:
    import torch

    with contextlib.suppress(RuntimeError, AssertionError):
        return str(torch.cuda.get_device_name()) if where == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    return where
