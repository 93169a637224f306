"""The doctor looks, names what is missing and what mends it, and never fails itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolreason import doctor, models
from toolreason.doctor import Check


def by_name(rows: list[Check]) -> dict[str, Check]:
    return {row.name: row for row in rows}


def test_a_machine_without_engine_and_models_gets_a_fix_for_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")  # nobody listens there
    monkeypatch.setenv("TOOLREASON_HOME", str(tmp_path / "not" / "made" / "yet"))
    rows = by_name(doctor.checks())
    assert rows["Python"].ok
    assert rows["packages"].ok
    assert not rows["engine"].ok
    assert "make engine" in rows["engine"].fix
    assert "toolreason sandbox build" in rows["sandbox image"].fix
    assert rows["model gemma3-270m"].fix == "toolreason models pull gemma3-270m"
    assert not rows["a model"].ok
    assert all(row.fix for row in rows.values() if not row.ok and not row.optional)
    assert not (tmp_path / "not").exists()


def test_a_check_that_breaks_is_a_row_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> bool:
        raise RuntimeError("disk on fire")

    monkeypatch.setattr(models, "installed", broken)
    assert "disk on fire" in by_name(doctor.checks())["model gemma3-270m"].detail


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_FREE_GB", 1e9)
    row = by_name(doctor.checks())["disk"]
    assert not row.ok
    assert "TOOLREASON_HOME" in row.fix


def test_a_gpu_is_reported_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H100, 81559 MiB'\n")
    program.chmod(0o755)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: str(program))
    assert by_name([doctor._gpu()])["GPU"] == Check("GPU", True, "NVIDIA H100, 81559 MiB", optional=True)


def test_rows_are_json() -> None:
    assert json.loads(json.dumps(Check("a", False, "b", "c").to_dict())) == {
        "name": "a",
        "ok": False,
        "detail": "b",
        "fix": "c",
        "optional": False,
    }


@pytest.mark.docker
@pytest.mark.model
def test_a_machine_that_is_set_up_is_well(small_model: Path) -> None:
    assert [row for row in doctor.checks() if not row.ok and not row.optional] == []
