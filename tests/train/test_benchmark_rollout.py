"""`benchmarks/rollout.py` runs, measures the same work twice, and prints what it promises. How fast is not for a test to say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_it_prints_one_object_with_the_promised_key() -> None:
    command = [sys.executable, "benchmarks/rollout.py", "--rollouts", "4", "--tool-ms", "20", "--quick", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["speedup_over_trl_native_tools"] > 0
