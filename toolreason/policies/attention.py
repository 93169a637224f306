"""Attention for a step of one token a row, without copying keys for grouped queries. Imports torch: load it late.

Where several query heads share one key head, the stock function copies the keys and values once for each of them whenever there is
a mask, and a batch of unequal rows always has one. With one query position, the heads of a group can stand as query positions of
their shared head instead: the same sums, no copy.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "toolreason_sdpa"


def grouped(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """(rows, heads, 1, size) queries on (rows, key heads, width, size): gives (rows, 1, heads, size). Else the stock function."""
    rows, heads, length, size = query.shape
    shared = key.shape[1]
    if length != 1 or shared == heads:
        result: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return result
    stacked = query.reshape(rows, shared, heads // shared, size)
    output = scaled_dot_product_attention(stacked, key, value, attn_mask=attention_mask, scale=options.get("scaling"))
    return output.reshape(rows, 1, heads, size), None


def use(model: Any) -> None:
    """Let this model, loaded with "sdpa", attend so."""
    AttentionInterface.register(NAME, grouped)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
