"""Preference training with TRL on rows of `toolreason export --for dpo` and `--for kto`: ids and masks as they are.

TRL 1.16's DPOTrainer and KTOTrainer take text, encode it again, add an end token, and train on every token after the prompt, tool
output included. Their losses read one mask, though, `completion_mask`, which their collators fill with ones. So what differs here:

1. The rows are taken as they are: nothing is encoded, nothing added.
2. The collator puts our mask where theirs is all ones.
3. Nothing is cut: a row longer than `max_length` is dropped, and said, since half an answer is neither right nor wrong.

With KTO the completions that stand for the divergence (each row's neighbour's in its batch) keep their masks too.

This module imports TRL: import it where you train.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from torch import tensor
from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference, KTOTrainer

from toolreason.errors import InputError

PAD = 0  # any id will do: padding is on the right, attended by nothing and trained nowhere
PAIR = ("chosen", "rejected")
COMPLETION = ("completion",)

logger = logging.getLogger(__name__)


class PairCollator(DataCollatorForPreference):
    """TRL's batches (chosen above, rejected below), with our masks."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super().torch_call(examples)
        masks = [(len(example["prompt_ids"]), example[f"{side}_mask"]) for side in PAIR for example in examples]
        _put(batch["completion_mask"], masks)
        return batch


class LabelledCollator(DataCollatorForUnpairedPreference):
    """TRL's batches of completions with a label, and of the neighbours' completions where there are any, with our masks."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super().torch_call(examples)
        for prefix in ("", "KL_"):
            if f"{prefix}completion_mask" in batch:
                _put(
                    batch[f"{prefix}completion_mask"],
                    [(len(example["prompt_ids"]), example[f"{prefix}completion_mask"]) for example in examples],
                )
        return batch


class MaskedDPOTrainer(DPOTrainer):
    """TRL's DPOTrainer over `prompt_ids`, `chosen_ids`, `chosen_mask`, `rejected_ids` and `rejected_mask`.

    Takes what it takes but for streamed datasets. Raises InputError for rows without these columns, with masks that do not fit,
    and where no row is left. Set `max_length` in the DPOConfig: TRL's default is 1024.
    """

    def __init__(self, model: Any, args: Any = None, *, data_collator: Any = None, **kwargs: Any) -> None:
        multiple = None if args is None else args.pad_to_multiple_of
        super().__init__(model, args=args, data_collator=data_collator or PairCollator(PAD, pad_to_multiple_of=multiple), **kwargs)

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Dataset:
        return fitting(dataset, PAIR, args.max_length, dataset_name)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = [*needed(PAIR), "ref_chosen_logps", "ref_rejected_logps"]  # type: ignore[assignment]


class MaskedKTOTrainer(KTOTrainer):
    """TRL's KTOTrainer over `prompt_ids`, `completion_ids`, `completion_mask` and `label`.

    Takes what it takes but for streamed datasets, and raises what MaskedDPOTrainer does. The order of the rows matters: keep it as
    the export made it. With more right than wrong rows set `desirable_weight` and `undesirable_weight` in the KTOConfig.
    """

    def __init__(self, model: Any, args: Any = None, *, data_collator: Any = None, **kwargs: Any) -> None:
        multiple = None if args is None else args.pad_to_multiple_of
        collator = data_collator or LabelledCollator(PAD, pad_to_multiple_of=multiple)
        super().__init__(model, args=args, data_collator=collator, **kwargs)

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Dataset:
        kept = fitting(dataset, COMPLETION, args.max_length, dataset_name)
        if not self.calculate_KL:
            return kept
        return with_neighbours(kept, args.per_device_train_batch_size, args.max_length, dataset_name)

    def _set_signature_columns_if_needed(self) -> None:
        neighbours = ["KL_completion_ids", "KL_completion_mask"]
        self._signature_columns = [*needed(COMPLETION), *neighbours, "label", "ref_logps", "ref_KL_logps"]  # type: ignore[assignment]


def needed(sides: Sequence[str]) -> list[str]:
    return ["prompt_ids", *(f"{side}_{what}" for side in sides for what in ("ids", "mask"))]


def fitting(dataset: Any, sides: Sequence[str], max_length: int | None, name: str) -> Dataset:
    """The rows that can be trained on as they are: no side longer than `max_length` tokens, prompt included, or without a trained
    token. Says how many were dropped. Raises InputError for what is no such dataset, and where no row is left.
    """
    if not isinstance(dataset, Dataset):
        raise InputError(f"the {name} dataset is no datasets.Dataset but a {type(dataset).__name__}")
    if missing := set(needed(sides)) - set(dataset.column_names):
        purpose = "dpo" if sides == PAIR else "kto"
        raise InputError(f"the {name} dataset lacks {', '.join(sorted(missing))}: export with --for {purpose}")
    reasons = [_unfit(row, sides, max_length) for row in dataset.select_columns(needed(sides))]
    kept = [at for at, reason in enumerate(reasons) if not reason]
    dropped = ", ".join(f"{reasons.count(reason)} {reason}" for reason in sorted({reason for reason in reasons if reason}))
    if not kept:
        raise InputError(f"no row of the {name} dataset is left of {len(dataset)}: {dropped or 'none was there'}")
    if dropped:
        logger.warning("of the %d rows of the %s dataset %d are trained on: %s", len(dataset), name, len(kept), dropped)
    return dataset.select(kept)


def with_neighbours(dataset: Dataset, batch: int, max_length: int | None, name: str) -> Dataset:
    """Each row with the completion of the row before it in its batch (the first with the last one's): what TRL does, with masks.

    A completion that is too long for its neighbour's prompt is cut at its end, since nothing is trained on it there. Says how many
    rows have a neighbour that answers the same prompt.
    """

    def neighbours(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        room = [None if max_length is None else max_length - len(prompt) for prompt in rows["prompt_ids"]]
        return {
            f"KL_{column}": [value[:most] for value, most in zip([rows[column][-1], *rows[column][:-1]], room, strict=True)]
            for column in ("completion_ids", "completion_mask")
        }

    same = sum(_repeats(dataset["prompt_ids"][at : at + batch]) for at in range(0, len(dataset), batch))
    if same:
        logger.warning("%d of %d rows of the %s dataset stand beside one of the same prompt", same, len(dataset), name)
        logger.warning("KTO's divergence is off there: keep the order of the export, or take fewer rows of a problem")
    return dataset.map(neighbours, batched=True, batch_size=batch)


def _repeats(prompts: list[list[int]]) -> int:
    """How many of a batch's prompts are the same as the one before, the last one before the first."""
    return sum(prompt == before for prompt, before in zip(prompts, [prompts[-1], *prompts[:-1]], strict=True))


def _unfit(row: dict[str, Any], sides: Sequence[str], max_length: int | None) -> str:
    """Why a row cannot be trained on, or nothing. Raises InputError where a mask is not that of its ids."""
    for side in sides:
        ids, mask = row[f"{side}_ids"], row[f"{side}_mask"]
        if len(ids) != len(mask) or set(mask) - {0, 1}:
            raise InputError(f"a row's {side}_mask is not 0 or 1 for each of its {len(ids)} {side}_ids: export the rows again")
        if max_length is not None and len(row["prompt_ids"]) + len(ids) > max_length:
            return f"longer than max_length ({max_length})"
        if not any(mask):
            return "without a trained token"
    return ""


def _put(whole: Any, masks: Sequence[tuple[int, Sequence[int]]]) -> None:
    """Write masks, each after its prompt, over the ones that a collator of TRL put there."""
    for row, (begin, mask) in zip(whole, masks, strict=True):
        row[begin : begin + len(mask)] = tensor(mask, dtype=row.dtype)
