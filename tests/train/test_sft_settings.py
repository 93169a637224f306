"""Settings from options, texts and files; and which of them a run may go on with."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from toolreason.errors import SettingsError
from toolreason.options import load, parse
from toolreason.train.settings import SftSettings, identity
from toolreason.train.sft_files import Manifest


def test_options_go_over_texts_and_texts_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "sft.toml"
    file.write_text('learning_rate = 2e-5\nseed = 1\nlora = 8\nlora_targets = ["q_proj", "v_proj"]\nlong = "truncate"\n')
    found = load(SftSettings, file, ["seed=2", "warmup=0.1", "packing=true"], lora=16, steps=None)
    assert found == SftSettings(
        learning_rate=2e-5, seed=2, lora=16, lora_targets=("q_proj", "v_proj"), long="truncate", warmup=0.1, packing=True
    )
    assert parse(SftSettings, {"lora": "4", "lora_targets": "q_proj,v_proj"}).lora_targets == ("q_proj", "v_proj")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"learning_rat": 1e-5}, "no setting 'learning_rat'; there are: epochs, steps"),
        ({"epochs": 0}, "above 0"),
        ({"batch_size": 0}, "at least 1"),
        ({"steps": 0}, "at least 1"),
        ({"held_out": 1.0}, "outside 0 to 1"),
        ({"max_length": 1}, "a token to train and one before it"),
        ({"long": "shorten"}, "long: Input should be"),
        ({"report_to": "paper"}, "report_to: Input should be"),
        ({"lora": 8, "lora_targets": ["model.lm_head"]}, "no adapter can be trained on lm_head"),
        ({"merge": True}, "merge is for LoRA"),
    ],
)
def test_what_cannot_be_is_named(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        parse(SftSettings, wrong)


def test_the_rate_is_that_of_what_is_trained() -> None:
    assert (SftSettings().rate, SftSettings(lora=8).rate, SftSettings(lora=8, learning_rate=3e-4).rate) == (1e-5, 1e-4, 3e-4)


def test_the_rollouts_settings_are_for_hinted_traces_unless_told_otherwise() -> None:
    assert SftSettings().eval_pairs == ("format=fenced", "stateful=true", "offered=false")
    assert SftSettings(eval_strategy="plain").eval_pairs == ()
    assert SftSettings(eval_set=("format=tagged",)).eval_pairs == ("format=tagged",)


def manifest(settings: SftSettings, **more: Any) -> Manifest:
    values = {"kind": "sft", "model": "m", "model_hash": "1", "data": ("d",), "data_hash": "2", "precision": "float32"}
    return Manifest(settings=identity(settings), **{**values, **more})


def test_what_changes_no_weight_may_change_and_everything_else_may_not() -> None:
    start, ours = SftSettings(lora=8), manifest(SftSettings(lora=8))
    other = {
        "save_every": 7, "keep": 3, "log_every": 9, "report_to": "wandb", "merge": True, "eval": "p.jsonl", "eval_every": 5,
        "eval_limit": 3, "eval_strategy": "plain", "eval_set": ("a=b",), "eval_concurrency": 2, "sandbox": "local",
        "device": "cpu", "attention": "eager", "gradient_checkpointing": True, "precision": "float32",
    }  # fmt: skip
    assert ours.differences(manifest(replace(start, **other), model="n", data=("e",), versions={"torch": "3"})) == []
    changed = {
        "epochs": 1.0, "steps": 5, "learning_rate": 1.0, "schedule": "linear", "warmup": 0.5, "weight_decay": 0.1,
        "max_grad_norm": 0.5, "batch_size": 2, "accumulate": 2, "seed": 1, "max_length": 9, "long": "truncate", "packing": True,
        "held_out": 0.5, "lora": 4, "lora_alpha": 3, "lora_dropout": 0.1, "lora_targets": ("q_proj",),
    }  # fmt: skip
    assert changed.keys() | other.keys() == {one.name for one in fields(SftSettings)}
    for name, value in changed.items():
        (told,) = ours.differences(manifest(replace(start, **{name: value})))
        assert told.startswith(f"{name}: ")
    assert ours.differences(manifest(start, processes=2, precision="bfloat16")) == [
        "precision: 'float32' there, 'bfloat16' now",
        "processes: 1 there, 2 now",
    ]
