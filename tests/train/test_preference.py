"""DPO and KTO on our rows: TRL's losses see our ids and our masks, token by token, and nothing is encoded or cut."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import DPOConfig, KTOConfig

from tests.train import tiny
from toolreason import export
from toolreason.errors import InputError
from toolreason.train.preference import (
    DataCollatorForPreference,
    MaskedDPOTrainer,
    MaskedKTOTrainer,
    PairCollator,
    with_neighbours,
)
from toolreason.types import Judgement, Source, Trajectory, Verdict

SAY = tiny.Speaker()
DPO_LOSSES = ["sigmoid", "ipo", "hinge", "robust", "apo_zero", "sft", "sigmoid_norm", "discopop"]
KTO_LOSSES = ["kto", "apo_zero_unpaired"]


def both(number: int) -> list[Trajectory]:
    """A right and a wrong one of the same prompt, of unlike lengths; the wrong one ends with what a tool printed."""
    right = tiny.trajectory(number, speaker=SAY)
    said = (*right.segments[:-1], SAY.model("No, I see none of that, so print(0) says it.\n"), SAY.tool("print(0)", "0\n"))
    return [right, replace(right, id=f"w{number}", segments=said, verdict=Verdict(Judgement.WRONG))]


def rows(purpose: str, count: int = 3) -> Dataset:
    return export.dataset([one for number in range(count) for one in both(number)], purpose)


def sources(count: int = 3) -> dict[tuple[int, ...], list[str]]:
    """Who wrote each token, by the ids of a whole sequence."""
    found = {}
    for one in (one for number in range(count) for one in both(number)):
        found[one.token_ids] = [segment.source.value for segment in one.segments for _ in segment.token_ids]
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.save(tmp_path_factory.mktemp("base")))


def trainer(purpose: str, base: str, out: Path, data: Dataset | None = None, adapters: Any = None, **options: Any) -> Any:
    kinds: dict[str, Any] = {"dpo": (MaskedDPOTrainer, DPOConfig), "kto": (MaskedKTOTrainer, KTOConfig)}
    kind, config = kinds[purpose]
    fixed = {"per_device_train_batch_size": 2, "max_length": 512, "gradient_checkpointing": False, "bf16": False}
    args = config(str(out), use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no", **(fixed | options))
    return kind(base, args, train_dataset=rows(purpose) if data is None else data, peft_config=adapters)


def step(made: Any) -> tuple[dict[str, Any], torch.Tensor]:
    """A batch as the trainer makes it, and how strongly the loss pulls at the place from which each token is predicted."""
    seen: list[torch.Tensor] = []

    def keep(module: Any, inputs: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.retain_grad()
            seen.append(output)

    handle = made.model.base_model.norm.register_forward_hook(keep)  # what the head reads: nothing flows between tokens after it
    batch = next(iter(made.get_train_dataloader()))
    made.model.train()
    made.compute_loss(made.model, batch).backward()
    handle.remove()
    (hidden,) = seen
    assert hidden.grad is not None
    return batch, hidden.grad.abs().sum(-1)[:, :-1]


def whole(batch: dict[str, Any]) -> list[tuple[int, ...]]:
    """The sequences of a batch without their padding."""
    return [tuple(ids[kept.bool()].tolist()) for ids, kept in zip(batch["input_ids"], batch["attention_mask"], strict=True)]


@pytest.mark.parametrize(("purpose", "loss"), [*(("dpo", loss) for loss in DPO_LOSSES), *(("kto", loss) for loss in KTO_LOSSES)])
def test_the_gradient_is_zero_on_all_tokens_but_the_models_and_zero_on_none_of_those(
    purpose: str, loss: str, base: str, tmp_path: Path
) -> None:
    batch, pulled = step(trainer(purpose, base, tmp_path, loss_type=[loss] if purpose == "dpo" else loss))
    assert len(whole(batch)) == (4 if purpose == "dpo" else 2)
    known = sources()
    met = set()
    for row, (ids, pull) in enumerate(zip(whole(batch), pulled, strict=True)):
        compared = loss != "sft" or row < 2  # that loss is on the chosen ones alone
        for at, source in enumerate(known[ids][1:]):  # the ids are those of a trajectory, or this raises
            assert (pull[at] > 0) == (source == Source.MODEL and compared), (row, at, source)
            met.add(source)
        assert not pull[len(ids) - 1 :].any()  # padding
    assert met == set(Source)


@pytest.mark.parametrize("purpose", ["dpo", "kto"])
def test_what_is_compared_are_the_log_probabilities_of_the_models_own_tokens(purpose: str, base: str, tmp_path: Path) -> None:
    made = trainer(purpose, base, tmp_path)
    batch, _ = step(made)
    sums = []
    for ids in whole(batch):
        with torch.no_grad():
            drawn = torch.log_softmax(made.model(torch.tensor([ids])).logits[0, :-1], -1)
        by_token = drawn.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        sums.append(sum(float(value) for value, source in zip(by_token, sources()[ids][1:], strict=True) if source == "model"))
    labels = [True, True, False, False] if purpose == "dpo" else batch["label"].tolist()
    for name, kind in (("chosen", True), ("rejected", False)):
        own = [value for value, label in zip(sums, labels, strict=True) if label is kind]
        logged = made._metrics["train"][f"logps/{name}"]
        assert logged == ([pytest.approx(sum(own) / len(own), rel=1e-4)] if own else [])
    reference = torch.cat([part for part in made.compute_ref_log_probs(made.ref_model, batch) if part is not None])
    assert reference[: len(sums)].tolist() == pytest.approx(sums, rel=1e-4)  # not trained yet: the reference is the same
    if purpose == "kto":  # the neighbours' completions, for the divergence
        own, theirs = (batch[name].sum(1).tolist() for name in ("completion_mask", "KL_completion_mask"))
        assert theirs == [own[-1], *own[:-1]]


def test_trls_own_collator_would_train_on_what_the_tools_printed() -> None:
    examples = list(rows("dpo"))
    theirs, ours = (kind(pad_token_id=0)(examples)["completion_mask"] for kind in (DataCollatorForPreference, PairCollator))
    tools = sum(
        run["count"] for row in examples for run in row["chosen_sources"] + row["rejected_sources"] if run["source"] == "tool"
    )
    assert tools > 20
    assert theirs.sum() - ours.sum() >= tools
    assert not (ours > theirs).any()


@pytest.mark.parametrize("purpose", ["dpo", "kto"])
@pytest.mark.parametrize("way", ["full", "reference ahead", "lora"])
def test_training_moves_the_right_up_against_the_wrong(purpose: str, way: str, base: str, tmp_path: Path) -> None:
    adapters = {"adapters": LoraConfig(r=4, task_type="CAUSAL_LM"), "learning_rate": 2e-2} if way == "lora" else {}
    options = {"max_steps": 8, "learning_rate": 5e-4, "logging_steps": 1, "precompute_ref_log_probs": way == "reference ahead"}
    made = trainer(purpose, base, tmp_path, per_device_train_batch_size=6, **(options | adapters))
    made.train()
    margins = [entry["rewards/margins"] for entry in made.state.log_history if "rewards/margins" in entry]
    assert margins[0] == pytest.approx(0, abs=1e-4)
    assert margins[-1] > 0.1


def test_rows_that_cannot_be_trained_on_whole_are_dropped_and_said(
    base: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = rows("dpo").to_list()
    data[0]["rejected_ids"] += [1] * 500
    data[0]["rejected_mask"] += [0] * 500
    data[1]["chosen_mask"] = [0] * len(data[1]["chosen_mask"])
    with caplog.at_level(logging.WARNING):
        made = trainer("dpo", base, tmp_path, Dataset.from_list(data))
    assert made.train_dataset["id"] == [data[2]["id"]]
    (said,) = [record.getMessage() for record in caplog.records if record.name == "toolreason.train.preference"]
    assert said == (
        "of the 3 rows of the train dataset 1 are trained on: 1 longer than max_length (512), 1 without a trained token"
    )
    with pytest.raises(InputError, match=r"no row of the train dataset is left of 3: 3 longer than max_length \(9\)"):
        trainer("dpo", base, tmp_path, max_length=9)


def test_rows_whose_masks_do_not_fit_and_rows_of_another_purpose_are_refused(base: str, tmp_path: Path) -> None:
    for mask in ([1], [2] * len(rows("dpo")[0]["chosen_ids"])):
        data = rows("dpo").to_list()
        data[0]["chosen_mask"] = mask
        with pytest.raises(InputError, match="a row's chosen_mask is not 0 or 1 for each of its"):
            trainer("dpo", base, tmp_path, Dataset.from_list(data))
    with pytest.raises(InputError, match="lacks chosen_ids, chosen_mask, rejected_ids, rejected_mask: export with --for dpo"):
        trainer("dpo", base, tmp_path, rows("kto"))
    with pytest.raises(InputError, match=r"is no datasets\.Dataset but a IterableDataset"):
        trainer("kto", base, tmp_path, rows("kto").to_iterable_dataset())


def test_neighbours_keep_their_masks_and_the_same_prompt_beside_is_said(caplog: pytest.LogCaptureFixture) -> None:
    columns = {"prompt_ids": [[1], [2, 2, 2], [3], [3]], "completion_ids": [[4, 5, 6], [7], [8], [9]]}
    data = Dataset.from_dict({**columns, "completion_mask": [[1, 0, 1], [1], [0], [1]]})
    made = with_neighbours(data, 2, 4, "train")
    assert list(made["KL_completion_ids"]) == [[7], [4], [9], [8]]  # the second has room for one
    assert list(made["KL_completion_mask"]) == [[1], [1], [1], [0]]
    assert "2 of 4 rows of the train dataset stand beside one of the same prompt" in caplog.text
    caplog.clear()
    with_neighbours(data.select(range(2)), 2, 4, "train")
    assert not caplog.text
