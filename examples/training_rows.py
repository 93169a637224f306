"""Collect, then train: every token knows where it came from, so a loss mask is one line.

python examples/training_rows.py [RUN_DIRECTORY]          # default: collects a small run of its own
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from toolreason import Judgement, Source, runs
from toolreason.types import Trajectory

PROBLEMS = """{"id": "a", "question": "What is 123456789 * 987654321?", "answer": "121932631112635269"}
{"id": "b", "question": "How many primes are there below 1000?", "answer": "168"}
"""


def collected() -> Path:
    home = Path(tempfile.mkdtemp(prefix="toolreason-example-"))
    (home / "problems.jsonl").write_text(PROBLEMS)
    command = [sys.executable, "-m", "toolreason", "collect", str(home / "problems.jsonl"), "--strategy", "hint_infer"]
    subprocess.run([*command, "--set", "max_tokens=400", "--out", str(home / "run")], check=True)
    return home / "run"


def row(trajectory: Trajectory) -> dict[str, list[int]]:
    """As TRL's SFTTrainer takes it: the model learns its own words and the hints, never the tool's output."""
    learnt = (Source.MODEL, Source.HINT)
    labels = [token if s.source in learnt else -100 for s in trajectory.segments for token in s.token_ids]
    return {"input_ids": list(trajectory.token_ids), "labels": labels}


run = Path(sys.argv[1]) if len(sys.argv) > 1 else collected()
for trajectory in runs.read(run):
    if trajectory.verdict and trajectory.verdict.judgement is Judgement.CORRECT:
        made = row(trajectory)
        trained = sum(label != -100 for label in made["labels"])
        print(f"{trajectory.problem_id}: {len(made['input_ids'])} tokens, {trained} of them train")
