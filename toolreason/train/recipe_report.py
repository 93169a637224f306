"""What came of a recipe: what was learnt from, how training went, and every model beside the first one on fresh problems."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from toolreason.compare import rows
from toolreason.compare.report import Against, against
from toolreason.compare.tables import Grid, against_row, markdown_table, rate_text
from toolreason.durable import replace_file
from toolreason.render import percent
from toolreason.stats import Rate
from toolreason.train.recipe import BASE, CONTROL, Recipe

REPORT, MARKDOWN = "report.json", "report.md"
Results = Mapping[str, Mapping[str, Any]]


def make(recipe: Recipe, seconds: Mapping[str, float], results: Results) -> dict[str, Any]:
    """The report, plain data. Fresh problems are paired by problem and sample; p by exact tests, corrected by Holm."""
    names = {f"fresh-{model}": model for model in recipe.models}
    if recipe.settings.control != "none":
        names |= {f"fresh-{model}-plain": f"{model}, no tools offered" for model in (BASE, CONTROL)}
    found = {
        told: [row for row in rows.read(recipe.run(name), wanted=lambda key: True) if not row.aborted]
        for name, told in names.items()
    }
    return {
        "settings": asdict(recipe.settings),
        "seconds": dict(seconds),
        "sets": {name: _set(results[f"curate-{name}"]) for name in recipe.models if name != BASE},
        "trainings": {name: _training(results[f"train-{name}"]) for name in recipe.models if name != BASE},
        "fresh": [_fresh(told, found[told]) for told in names.values()],
        "against_base": [asdict(one) for one in against(found, BASE)],
        "out": str(recipe.out),
    }


def _set(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: result[name] for name in ("rows", "problems", "tool_share", "tokens")}


def _training(result: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: result[name] for name in ("steps", "loss", "held_out_loss", "duration_s", "peak_memory_mb", "device", "precision")
    }


def _fresh(name: str, found: list[rows.Row]) -> dict[str, Any]:
    right, used = Rate.of(row.right for row in found), Rate.of(row.calls > 0 for row in found)
    return {
        "model": name,
        "rollouts": len(found),
        "right": asdict(right),
        "tool_use": asdict(used),
        "calls": sum(row.calls for row in found) / max(1, len(found)),
        "tokens": sum(row.model for row in found) / max(1, len(found)),
    }


def keep(out: Path, report: Mapping[str, Any]) -> None:
    replace_file(out / REPORT, json.dumps(report, indent=2) + "\n")
    replace_file(out / MARKDOWN, markdown(report))


def grids(report: Mapping[str, Any]) -> list[Grid]:
    """The tables of the report."""
    fresh = tuple(
        (
            one["model"],
            rate_text(Rate(**one["right"])),
            rate_text(Rate(**one["tool_use"])),
            f"{one['calls']:.2f}",
            f"{one['tokens']:.0f}",
        )
        for one in report["fresh"]
    )
    pairs = tuple(against_row(Against(**one)) for one in report["against_base"])
    trained = tuple(
        (
            name,
            str(report["sets"][name]["rows"]),
            str(report["sets"][name]["problems"]),
            percent(report["sets"][name]["tool_share"]),
            str(one["steps"]),
            _loss(one["held_out_loss"]),
            f"{one['duration_s']:.0f}",
        )
        for name, one in report["trainings"].items()
    )
    return [
        Grid("Fresh problems, no hints", ("model", "right (95 %)", "with a call (95 %)", "calls", "model tokens"), fresh),
        Grid(f"Against {BASE}", ("model", "points (95 %)", "pairs", "only this right", "only base right", "p", "p, Holm"), pairs),
        Grid("Trained", ("model", "rows", "problems", "with a call", "steps", "held-out loss", "seconds"), trained),
        Grid("Stages", ("stage", "seconds"), tuple((name, f"{took:.0f}") for name, took in report["seconds"].items())),
    ]


def _loss(losses: Mapping[str, Any]) -> str:
    return f"{losses['before']['all']:.3f} to {losses['after']['all']:.3f}" if losses else "-"


def markdown(report: Mapping[str, Any]) -> str:
    one = report["settings"]
    head = f"# Hint-RFT of {one['model']}\n\nFrom {one['problems']}, seed {one['seed']}; every setting is in {REPORT}.\n\n"
    return head + "\n\n".join(f"## {grid.title}\n\n{markdown_table(grid)}" for grid in grids(report)) + "\n"
