"""The loss on rows that are not trained on: nats a token, over all trained tokens and by who wrote them. Imports torch and TRL."""

from __future__ import annotations

from collections import defaultdict
from itertools import chain, islice
from typing import Any

import torch
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from toolreason.train.rows import batches
from toolreason.train.sft_data import Row

ALL = "all"


def losses(trainer: Any, table: Any, batch_size: int) -> dict[str, float]:
    """The mean loss of the rows' trained tokens: `all`, and by source. Tokens count alike, however the rows fall into batches."""
    collate = DataCollatorForLanguageModeling(pad_token_id=trainer.processing_class.pad_token_id)
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    rows = chain.from_iterable(batches(table))
    model = trainer.model
    was = model.training
    model.eval()
    try:
        while batch := list(islice(rows, batch_size)):
            inputs = trainer._prepare_inputs(collate([{name: row[name] for name in ("input_ids", "labels")} for row in batch]))
            with torch.no_grad(), trainer.compute_loss_context_manager():
                found = model(**inputs, use_cache=False, fused_lm_head=True)
            for row, values, mask in zip(batch, found.log_probs.tolist(), found.label_mask.tolist(), strict=True):
                for source, value, counted in zip(_written(row)[1:], values, mask, strict=False):  # rows are padded at their end
                    if counted:
                        for name in (ALL, source):
                            sums[name] -= value
                            counts[name] += 1
    finally:
        model.train(was)
    return {name: sums[name] / counts[name] for name in sums}


def _written(row: Row) -> list[str]:
    return [run["source"] for run in row["sources"] for _ in range(run["count"])]
