"""Collect, then train: every token knows where it came from, and so whether it is trained.

python examples/training_rows.py [RUN_DIRECTORY]          # default: collects a small run of its own
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from toolreason.export import rows
from toolreason.runs import read
from toolreason.types import Judgement

PROBLEMS = """{"id": "a", "question": "What is 123456789 * 987654321?", "answer": "121932631112635269"}
{"id": "b", "question": "How many primes are there below 1000?", "answer": "168"}
"""


def collected() -> Path:
    home = Path(tempfile.mkdtemp(prefix="toolreason-example-"))
    (home / "problems.jsonl").write_text(PROBLEMS)
    command = [sys.executable, "-m", "toolreason", "collect", str(home / "problems.jsonl"), "--strategy", "hint_infer"]
    subprocess.run([*command, "--set", "max_tokens=400", "--out", str(home / "run")], check=True)
    return home / "run"


run = Path(sys.argv[1]) if len(sys.argv) > 1 else collected()
for row in rows(read(run, judgement=Judgement.CORRECT), "sft"):  # the model learns its own words and the hints
    trained = sum(label != -100 for label in row["labels"])
    print(f"{row['problem_id']}: {len(row['input_ids'])} tokens, {trained} of them train")
