"""The result loads everywhere, and is what was trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.train import tiny
from toolreason.errors import InfrastructureError, InputError, SettingsError, SetupError
from toolreason.policies.transformers import TransformersPolicy
from toolreason.train import sft, sft_files, sft_model
from toolreason.train.settings import SftSettings
from toolreason.train.sft_trainer import told
from toolreason.types import Sampling

LORA = SftSettings(lora=4, steps=3, batch_size=2, accumulate=1, learning_rate=3e-2, held_out=0.2, save_every=10)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.jsonl(tmp_path_factory.mktemp("rows") / "rows.jsonl", tiny.rows(6))


@pytest.fixture(scope="module")
def adapted(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "lora"
    sft.train([data], str(model), out, replace(LORA, merge=True))
    return out


def logits(model: Any) -> torch.Tensor:
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        return model(input_ids=ids).logits


def test_merged_weights_are_base_and_adapter_together(adapted: Path, model: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(model)
    merged = AutoModelForCausalLM.from_pretrained(adapted / "model")
    before = logits(base)
    together = logits(PeftModel.from_pretrained(base, adapted / "adapter"))
    torch.testing.assert_close(logits(merged), together, rtol=1e-4, atol=1e-4)
    assert (together - before).abs().max() > 1e-2


def test_the_head_has_no_adapter(adapted: Path) -> None:
    from safetensors.torch import load_file

    names = load_file(adapted / "adapter" / "adapter_model.safetensors").keys()
    assert names
    assert not [name for name in names if "lm_head" in name or "embed" in name]


@pytest.mark.parametrize("part", ["model", "adapter"])
async def test_the_embedded_policy_reads_it_with_tokenizer_and_chat_template(adapted: Path, model: Path, part: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(adapted / part)
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(model).chat_template
    policy = await TransformersPolicy.load(str(adapted / part), threads=1)
    try:
        said = await policy.sample([policy.prompt([{"role": "user", "content": "6 * 7?"}])], Sampling(), max_tokens=3)
    finally:
        await policy.aclose()
    assert len(said.token_ids) == 3


def test_merged_weights_may_be_asked_for_when_the_run_is_finished(adapted: Path, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "late"
    first = sft.train([data], str(model), out, LORA)
    assert set(first["out"]) == {"adapter"}
    later = sft.train([data], str(model), out, replace(LORA, merge=True))
    assert set(later["out"]) == {"adapter", "model"}
    assert (out / "model" / "model.safetensors").read_bytes() == (adapted / "model" / "model.safetensors").read_bytes()
    assert sft.train([data], str(model), out, LORA) == later


def test_weights_in_training_are_float32_and_on_disk_as_the_base_model_s_whatever_is_computed_in(
    data: Path, tmp_path: Path
) -> None:
    tiny.save(tmp_path / "base")
    AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.bfloat16).save_pretrained(tmp_path / "base")
    cool = tmp_path / "base" / "generation_config.json"
    cool.write_text(
        json.dumps({**json.loads(cool.read_text()), "temperature": 0.5})
    )  # as some have it, and transformers writes not
    settings = replace(LORA, lora=0, steps=1, precision="bfloat16")
    assert sft.train([data], str(tmp_path / "base"), tmp_path / "out", settings)["precision"] == "bfloat16"
    checkpoint = sft_files.latest(tmp_path / "out")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model").dtype is torch.bfloat16
    assert AutoModelForCausalLM.from_pretrained(checkpoint).dtype is torch.float32
    assert json.loads((tmp_path / "out" / "model" / "generation_config.json").read_text())["temperature"] == 0.5


def test_targets_that_the_model_lacks_are_named(model: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"lora_targets: .*no_such_layer"):
        sft.train([data], str(model), tmp_path / "out", replace(LORA, lora_targets=("no_such_layer",)))


def test_a_model_that_cannot_be_trained_is_refused_with_the_reason(data: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match="GGUF"):
        sft.train([data], str(tmp_path / "x.gguf"), tmp_path / "out", LORA)
    with pytest.raises(SetupError, match="no model could be read"):
        sft.train([data], str(data.parent), tmp_path / "out", LORA)
    with pytest.raises(SettingsError, match="takes 512 tokens at most"):
        sft.train([data], str(model), tmp_path / "out", replace(LORA, max_length=513))
    assert not (tmp_path / "out").exists()


def test_a_reporter_or_library_that_is_missing_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sft_model, "find_spec", lambda name: None if name in ("wandb", "trl") else object())
    with pytest.raises(SetupError, match=r"trl: pip install 'toolreason\[train\]'"):
        sft_model.require(LORA)
    monkeypatch.setattr(sft_model, "find_spec", lambda name: None if name == "wandb" else object())
    with pytest.raises(SetupError, match="pip install wandb"):
        sft_model.require(replace(LORA, report_to="wandb"))
    sft_model.require(replace(LORA, report_to="trackio"))


def test_what_ends_a_training_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match=r"No space left.*the same command goes on"), told(tmp_path):
        raise OSError(28, "No space left on device")
    with pytest.raises(InfrastructureError, match="--batch-size 1"), told(tmp_path):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand so on")


def test_a_directory_of_other_things_is_not_written_into(model: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SettingsError, match="no training run"):
        sft.train([data], str(model), tmp_path, LORA)
    assert {file.name for file in tmp_path.iterdir()} == {"notes.txt", "run.lock"}
