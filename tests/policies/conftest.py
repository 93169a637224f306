"""Set-up that must stand before torch is imported, and which vLLM tests this machine can run."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin at barriers starve one another on a busy machine

import pytest

pytest.register_assert_rewrite("tests.policies.conformance")

UNSUPPORTED = Path(__file__).parents[2] / ".venv-vllm/UNSUPPORTED"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where scripts/vllm-cpu.sh found that vLLM cannot run here, its tests are left out, and that is said."""
    if os.environ.get("TOOLREASON_VLLM_URL") or not UNSUPPORTED.exists():
        return
    left_out = [item for item in items if item.get_closest_marker("vllm")]
    if not left_out:
        return
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"{len(left_out)} vllm tests are left out: {UNSUPPORTED.read_text().strip()}")
