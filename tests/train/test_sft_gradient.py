"""What is trained, to the token: through TRL's trainer, with every way of batching that we offer."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, softmax

from tests.train import tiny
from toolreason.train import rows, sft_model
from toolreason.train.rows import Rows
from toolreason.train.settings import SftSettings
from toolreason.train.sft_trainer import RowTrainer, build

SOURCES = ("model", "tool", "hint", "tool")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> sft_model.Base:
    return sft_model.find(str(tiny.save(tmp_path_factory.mktemp("tiny"))))


@pytest.fixture(scope="module")
def read(base: sft_model.Base, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    made = tiny.random_rows(6, base.fit.vocabulary, lengths=(5, 9, 14, 22), sources=SOURCES)
    return rows.read([tiny.jsonl(tmp_path_factory.mktemp("rows") / "rows.jsonl", made)], base.fit)


def trainer_of(base: sft_model.Base, read: Rows, out: Path, **settings: Any) -> RowTrainer:
    chosen = SftSettings(**{"batch_size": 100, "accumulate": 1, **settings})
    return build(base.path, base.tokenizer, read, chosen, out, device="cpu", precision="float32", callbacks=[])


def one_batch(trainer: RowTrainer) -> dict[str, Any]:
    (batch,) = list(trainer.get_train_dataloader())
    return dict(batch)


def backward(trainer: RowTrainer, batch: dict[str, Any]) -> tuple[float, Any]:
    """The loss, and the last hidden states with their gradient: the logits of a place come from its own hidden state alone."""
    kept = {}

    def hold(module: Any, inputs: Any, output: Any) -> None:
        output.last_hidden_state.retain_grad()
        kept["hidden"] = output.last_hidden_state

    inner = trainer.model.get_base_model() if hasattr(trainer.model, "get_base_model") else trainer.model
    handle = inner.model.register_forward_hook(hold)
    trainer.model.zero_grad()
    loss = trainer.compute_loss(trainer.model, dict(batch))
    loss.backward()
    handle.remove()
    return loss.item(), kept["hidden"]


def gradients(model: Any) -> dict[str, Any]:
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def sources_of(read: Rows, batch: dict[str, Any]) -> list[list[str]]:
    """Who wrote each token of a padded batch; rows are told by their ids."""
    written = {}
    for row in read.train.to_pylist():
        written[tuple(row["input_ids"])] = [run["source"] for run in row["sources"] for _ in range(run["count"])]
    width = batch["input_ids"].shape[1]
    lengths = batch["attention_mask"].sum(1).tolist()
    found = [written[tuple(ids[:length])] for ids, length in zip(batch["input_ids"].tolist(), lengths, strict=True)]
    return [names + ["padding"] * (width - len(names)) for names in found]


@pytest.mark.parametrize("lora", [0, 4])
def test_the_gradient_is_exactly_zero_where_a_prompt_or_tool_token_is_predicted_and_nowhere_else(
    base: sft_model.Base, read: Rows, tmp_path: Path, lora: int
) -> None:
    trainer = trainer_of(base, read, tmp_path, lora=lora)
    batch = one_batch(trainer)
    _, hidden = backward(trainer, batch)
    size = hidden.grad.norm(dim=-1)
    by_source: dict[str, list[float]] = {}
    for names, values in zip(sources_of(read, batch), size.tolist(), strict=True):
        for name, value in zip([*names[1:], "nothing"], values, strict=True):  # place t predicts token t + 1
            by_source.setdefault(name, []).append(value)
    assert set(by_source) == {"prompt", "model", "hint", "tool", "padding", "nothing"}
    for name in ("prompt", "tool", "padding", "nothing"):
        assert set(by_source[name]) == {0.0}, name
    for name in ("model", "hint"):
        assert min(by_source[name]) > 1e-6, name
    trained = {name for name, value in trainer.model.named_parameters() if value.grad is not None and value.grad.any()}
    assert trained
    assert not lora or all("lora_B" in name for name in trained)  # A waits for a B that is not zero any more


def test_the_gradient_is_that_of_the_cross_entropy_over_the_labels_worked_out_by_hand(
    base: sft_model.Base, read: Rows, tmp_path: Path
) -> None:
    trainer = trainer_of(base, read, tmp_path)
    batch = one_batch(trainer)
    loss, hidden = backward(trainer, batch)
    found = gradients(trainer.model)
    head, labels = trainer.model.lm_head.weight.detach(), batch["labels"][:, 1:]
    chances = softmax(hidden.detach()[:, :-1] @ head.T, dim=-1)
    trained = labels != -100
    chances[(*trained.nonzero(as_tuple=True), labels[trained])] -= 1
    expected = torch.where(trained[..., None], chances, 0.0) @ head / trained.sum()
    torch.testing.assert_close(hidden.grad[:, :-1], expected, rtol=1e-4, atol=1e-7)

    plain = tiny.model(base.fit.vocabulary)  # the same weights, and nothing of TRL
    logits = plain(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    by_hand = cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
    by_hand.backward()
    assert loss == pytest.approx(by_hand.item(), rel=1e-5)
    for name, gradient in gradients(plain).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6)


def test_packing_keeps_every_row_with_its_labels_and_rows_do_not_see_each_other(
    base: sft_model.Base, read: Rows, tmp_path: Path
) -> None:
    apart, together = trainer_of(base, read, tmp_path / "a"), trainer_of(base, read, tmp_path / "b", packing=True)
    packed = list(together.train_dataset)
    assert len(packed) < read.train.num_rows
    found: Counter[Any] = Counter()
    for sequence in packed:
        at = 0
        for length in sequence["seq_lengths"]:
            found[tuple(sequence["input_ids"][at : at + length]), tuple(sequence["labels"][at : at + length])] += 1
            at += length
        assert at == len(sequence["input_ids"]) <= read.report.longest
    assert found == Counter((tuple(row["input_ids"]), tuple(row["labels"])) for row in read.train.to_pylist())

    padded_loss, _ = backward(apart, one_batch(apart))
    packed_loss, hidden = backward(together, one_batch(together))
    assert packed_loss == pytest.approx(padded_loss, rel=1e-5)
    trained = (one_batch(together)["labels"][:, 1:] != -100).squeeze(0)
    sizes = hidden.grad.norm(dim=-1).squeeze(0)[:-1]
    assert not sizes[~trained].any()
    assert sizes[trained].min() > 1e-6
    for name, gradient in gradients(apart.model).items():
        torch.testing.assert_close(gradients(together.model)[name], gradient, rtol=1e-3, atol=1e-6)


def test_a_step_is_the_same_however_its_rows_fall_into_batches_and_its_activations_are_kept(
    base: sft_model.Base, read: Rows, tmp_path: Path
) -> None:
    weights = []
    for number, given in enumerate(({"batch_size": 6}, {"batch_size": 2, "accumulate": 3, "gradient_checkpointing": True})):
        options = {"steps": 1, "warmup": 0.0, "learning_rate": 1e-2, "save_every": 100, **given}
        trainer = trainer_of(base, read, tmp_path / str(number), **options)
        trainer.train()
        weights.append({name: value.detach().clone() for name, value in trainer.model.named_parameters()})
    start = dict(tiny.model(base.fit.vocabulary).named_parameters())
    for name, value in weights[0].items():
        assert not torch.equal(value, start[name]), name
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4)


def test_only_ids_and_labels_reach_the_trainer(base: sft_model.Base, tmp_path: Path) -> None:
    made = tiny.random_rows(3, base.fit.vocabulary)
    for row in made:
        row["completion_mask"] = row["assistant_masks"] = [1] * len(row["input_ids"])  # they would train all of it
    read = rows.read([tiny.jsonl(tmp_path / "masks.jsonl", made)], base.fit)
    trainer = trainer_of(base, read, tmp_path)
    assert trainer.train_dataset.column_names == ["input_ids", "labels"]
    labels = one_batch(trainer)["labels"]
    assert (labels != -100).sum().item() == sum(label != -100 for row in made for label in row["labels"])
