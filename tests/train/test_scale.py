"""The settings in examples/scale/ fit our commands, and accelerate would launch them. GPUs are not needed to find that out."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from toolreason.options import load
from toolreason.train.recipe import Recipe, RecipeSettings
from toolreason.train.rl_settings import Plan, RlSettings

ROOT = Path(__file__).parent.parent.parent
SCALE = ROOT / "examples" / "scale"
COMMAND = ["-m", "toolreason", "train", "sft", "rows.parquet"]


def test_every_file_is_checked_here() -> None:
    assert sorted(file.name for file in SCALE.iterdir()) == [
        "deepspeed-8.yaml",
        "eight-gpus-rl.toml",
        "eight-gpus.toml",
        "fsdp-2x8.yaml",
        "fsdp-8.yaml",
        "one-gpu-rl.toml",
        "one-gpu.toml",
        "two-nodes.sbatch",
    ]


@pytest.mark.parametrize("name", ["one-gpu", "eight-gpus"])
def test_recipes_fit(name: str, tmp_path: Path) -> None:
    recipe = Recipe(load(RecipeSettings, SCALE / f"{name}.toml", ()), tmp_path, "/models/base")
    assert next(recipe.stages({})).name == "plain"
    assert recipe.settings.serve is not None
    assert shlex.split(recipe.settings.serve)[:3] == ["vllm", "serve", "{model}"]
    if recipe.settings.launch is not None:
        assert (ROOT / shlex.split(recipe.settings.launch)[-1]).is_file()


@pytest.mark.parametrize(("name", "processes"), [("one-gpu-rl", 1), ("eight-gpus-rl", 6)])
def test_settings_for_rl_fit(name: str, processes: int) -> None:
    settings = load(RlSettings, SCALE / f"{name}.toml", ())
    Plan.of(settings)
    assert settings.problems % processes == 0
    assert settings.problems // processes * settings.group % (settings.batch_size or settings.group) == 0


def launched(name: str, *more: str) -> Any:
    """What accelerate makes of the file, as far as it goes before it starts processes."""
    args = launch_command_parser().parse_args(["--config_file", str(SCALE / name), *more, *COMMAND])
    args, defaults, _ = _validate_launch_command(args)
    args.deepspeed_fields_from_accelerate_config = ",".join(getattr(defaults, "deepspeed_config", {}))
    return args


@pytest.mark.parametrize(("name", "processes"), [("fsdp-8.yaml", 8), ("fsdp-2x8.yaml", 16)])
def test_accelerate_takes_the_files_for_fsdp(name: str, processes: int) -> None:
    args = launched(name, "--machine_rank", "0", "--main_process_ip", "127.0.0.1", "--main_process_port", "29500")
    assert (args.use_fsdp, args.num_processes, args.mixed_precision) == (True, processes, "bf16")
    env = prepare_multi_gpu_env(args)
    assert env["FSDP_STATE_DICT_TYPE"] == "FULL_STATE_DICT"  # or a checkpoint holds no weights that a result can be made of
    assert args.training_script_args == COMMAND[2:]


def test_accelerate_takes_the_file_for_deepspeed() -> None:
    args = launched("deepspeed-8.yaml", "--num_processes", "6")
    _, env = prepare_deepspeed_cmd_env(args)
    assert (env["ACCELERATE_USE_DEEPSPEED"], env["ACCELERATE_DEEPSPEED_ZERO_STAGE"]) == ("true", "3")
    assert env["ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"] == "true"
    assert args.num_processes == 6


@pytest.mark.parametrize("name", ["fsdp-8.yaml", "fsdp-2x8.yaml", "deepspeed-8.yaml"])
def test_the_files_have_no_keys_of_their_own(name: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    written = yaml.safe_load((SCALE / name).read_text())
    read = load_config_from_file(str(SCALE / name)).to_dict()
    assert {key: read[key] for key in written if key != "use_cpu"} == {key: written[key] for key in written if key != "use_cpu"}


def test_the_job_of_two_nodes_says_how_it_is_used(tmp_path: Path) -> None:
    job = SCALE / "two-nodes.sbatch"
    assert subprocess.run(["bash", "-n", job], check=False).returncode == 0
    without = subprocess.run(["bash", job, "data"], capture_output=True, text=True, check=False)
    assert without.returncode != 0
    assert "usage: sbatch two-nodes.sbatch DATA MODEL OUT" in without.stderr
    for name, text in (
        ("scontrol", "echo node1; echo node2"),
        ("srun", 'SLURM_NODEID=1 exec "$@"'),
        ("accelerate", 'printf "%s\\n" "$@"'),
    ):
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": "1"}
    run = subprocess.run(["bash", job, "my data", "base", "out", "--packing"], capture_output=True, text=True, check=True, env=env)
    said = run.stdout.splitlines()
    assert said[:6] == ["launch", "--config_file", "examples/scale/fsdp-2x8.yaml", "--machine_rank", "1", "--main_process_ip"]
    assert said[6] == "node1"
    assert said[-7:] == ["sft", "my data", "--model", "base", "--out", "out", "--packing"]
