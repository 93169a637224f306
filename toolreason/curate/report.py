"""What a curation tells of itself: `report.json`, `report.md` and the dataset card. The same inputs give the same bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from toolreason.curate.pipeline import Curation, hint_kinds, token_counts
from toolreason.curate.score import WEIGHTS
from toolreason.curate.select import tool_share
from toolreason.curate.settings import as_dict
from toolreason.render import visible
from toolreason.runs import Manifest

NO_TRAINING = "what was right once is partly luck: measure a gain on fresh samples and other problems"


@dataclass(frozen=True, slots=True)
class SourceRun:
    """A run that went in. `hashes` are SHA-256 by file name."""

    path: str
    role: str  # plain, hinted or sampled
    manifest: Manifest
    hashes: dict[str, str]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a curation comes from."""

    runs: Sequence[SourceRun]
    problems: str  # the file or source of the problems
    problems_hash: str
    tokenizer: str
    version: str
    notes: Sequence[str] = ()

    @property
    def policies(self) -> list[str]:
        """Of the runs that rows come from."""
        return sorted({run.manifest.policy for run in self.runs if run.role != "plain"})


def report(made: Curation, origin: Origin) -> dict[str, Any]:
    """The report as plain data."""
    trajectories = made.trajectories
    return {
        "stage": made.stage,
        "version": origin.version,
        "rows": len(made.rows),
        "problems": len({one.problem_id for one in trajectories}),
        "tool_share": tool_share(made.rows),
        "calls": sum(len(one.cells) for one in trajectories),
        "tokens": token_counts(trajectories),
        "hints": hint_kinds(trajectories, _kinds()),
        "modified": sum(bool(row.edits) for row in made.rows),
        "score": _spread([row.score for row in made.rows]),
        "steps": [step.to_dict() for step in made.steps],
        "balance": made.balance,
        "settings": as_dict(made.settings),
        "score_weights": WEIGHTS,
        "problems_source": origin.problems,
        "problems_hash": origin.problems_hash,
        "tokenizer": origin.tokenizer,
        "runs": [_run(run) for run in origin.runs],
        "notes": list(origin.notes),
    }


def sidecar(made: Curation) -> str:
    """`rows.jsonl`: for each trajectory where it comes from, its score with parts, and what was modified."""
    lines = []
    for row, one in zip(made.rows, made.trajectories, strict=True):
        line = {"id": one.id, "problem_id": one.problem_id, "sample": one.sample, "run": row.run}
        line |= {"sample_there": row.trajectory.sample, "score": row.score, "parts": row.parts, "modifications": list(row.edits)}
        lines.append(json.dumps(line) + "\n")
    return "".join(lines)


def markdown(told: dict[str, Any]) -> str:
    """`report.md`."""
    return "\n".join(_lines(told)) + "\n"


def card(told: dict[str, Any]) -> str:
    """`card.md`: a dataset card with YAML front matter (values are JSON, which is YAML too). The licence is yours to fill in."""
    policies = sorted({run["policy"] for run in told["runs"] if run["role"] != "plain"})
    front = {
        "license": "FILL-IN",
        "task_categories": ["text-generation"],
        "tags": ["toolreason", told["stage"], "tool-use", "reasoning"],
        "model": policies,
        "toolreason_version": told["version"],
        "source_runs": [{key: run[key] for key in ("path", "role", "hashes")} for run in told["runs"]],
        "problems": {"source": told["problems_source"], "hash": told["problems_hash"]},
        "size": {"rows": told["rows"], "problems": told["problems"], "tokens": told["tokens"]},
    }
    lines = ["---", *(f"{key}: {json.dumps(value, ensure_ascii=True)}" for key, value in front.items()), "---", ""]
    lines += [f"# {told['rows']} traces for {_what(told['stage'])}", ""]
    lines += [f"Sampled with {', '.join(map(_code, policies))}, curated by toolreason {told['version']}.", ""]
    lines += ["| run | role | strategy | sampling | settings |", "|---|---|---|---|---|"]
    for run in told["runs"]:
        sampling, settings = (json.dumps(run[key], ensure_ascii=True) for key in ("sampling", "settings"))
        lines.append(f"| {' | '.join(map(_code, (run['path'], run['role'], run['strategy'], sampling, settings)))} |")
    lines += ["", f"Problems: {_code(told['problems_source'])}, content {_code(told['problems_hash'])}."]
    lines += ["", f"Curation settings: {_code(json.dumps(told['settings']))}. What fell, and why: `report.md`.", ""]
    lines += [
        "`trajectories.jsonl` and `run.json` are a run of toolreason (`toolreason show` reads it), `rows.jsonl` has the scores.",
        "",
    ]
    lines += [
        "Train on model and hint tokens, never on tool tokens. As with every set that was selected by its result:",
        NO_TRAINING + ".",
    ]
    return "\n".join(lines) + "\n"


def _what(stage: str) -> str:
    return "START's Hint-RFT" if stage == "hint-rft" else "rejection-sampling fine-tuning (START's second stage)"


def _lines(told: dict[str, Any]) -> Iterator[str]:
    yield f"# Curation: {told['stage']}"
    yield ""
    yield f"{told['rows']} rows of {told['problems']} problems are left; {told['modified']} of them were modified."
    yield from (f"Note: {note}" for note in told["notes"])
    yield ""
    yield "| step | rows in | rows left | problems left | fell |"
    yield "|---|---|---|---|---|"
    for step in told["steps"]:
        fell = ", ".join(f"{count} {_cell(reason)}" for reason, count in step["fell"].items()) or "none"
        changed = ", ".join(f"{count} {_cell(name)}" for name, count in step["changed"].items())
        fell += f"; changed: {changed}" if changed else ""
        yield f"| {step['step']} | {step['rows']} | {step['rows_left']} | {step['problems_left']} | {fell} |"
    yield from ("", "## What is left", "")
    for name in ("tokens", "hints", "score"):
        yield f"- {name}: {', '.join(f'{_cell(key)} {_number(value)}' for key, value in told[name].items()) or 'none'}"
    yield f"- calls: {told['calls']}, traces with a cell: {_number(told['tool_share'])}"
    yield from ("", "## Exploration and exploitation (B-STaR), over all scored samples", "")
    for name, value in told["balance"].items():
        inner = ", ".join(f"{key} {_number(one)}" for key, one in value.items()) if isinstance(value, dict) else _number(value)
        yield f"- {name}: {inner}"
    yield from ("", "## Examples of what fell or changed")
    for step in told["steps"]:
        for reason, examples in step["examples"].items():
            yield from ("", f"### {step['step']}: {_cell(reason)}")
            for one in examples:
                yield from ("", f"{_code(one['id'])} of problem {_code(one['problem_id'])} in {_code(one['run'])}")
                if one["evidence"]:
                    yield from ("", *_fenced(one["evidence"]))


def _fenced(text: str) -> list[str]:
    """Text from anywhere as an inert block."""
    shown = visible(text)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    return [f"{fence}text", shown, fence]


def _code(text: str) -> str:
    """Text from anywhere in one inert piece of code, in a table too."""
    shown = visible(" ".join(str(text).split())).replace("|", "\\|")
    marks = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    gap = " " if "`" in shown else ""
    return f"{marks}{gap}{shown}{gap}{marks}" if shown else "-"


def _cell(text: str) -> str:
    return visible(" ".join(str(text).split())).replace("|", "\\|").replace("<", "&lt;")


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _run(run: SourceRun) -> dict[str, Any]:
    manifest = run.manifest
    return {
        "path": run.path,
        "role": run.role,
        "strategy": manifest.strategy,
        "policy": manifest.policy,
        "sampling": asdict(manifest.sampling),
        "settings": manifest.settings,
        "samples": manifest.samples,
        "started": manifest.started,
        "version": manifest.version,
        "hashes": run.hashes,
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {"lowest": ordered[0], "median": ordered[len(ordered) // 2], "highest": ordered[-1]} if ordered else {}


def _kinds() -> dict[str, str]:
    """The kinds of the library's hints, by their sentences."""
    from toolreason import hints

    return {hint.text.partition("```")[0].strip(): hint.kind for hint in hints.library().hints}
