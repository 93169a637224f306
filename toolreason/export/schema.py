"""The types of the columns in Parquet and in datasets: 4 bytes an id, 1 a mask, 8 a log-probability."""

from __future__ import annotations

from typing import Any

from toolreason.export.base import Row


def schema(pyarrow: Any, row: Row) -> Any:
    """The pyarrow Schema of rows like this one. A column that is not known here is text."""
    text = pyarrow.string()
    types = _token_columns(pyarrow) | _foreign_columns(pyarrow)
    return pyarrow.schema([(name, types.get(name, text)) for name in row])


def _token_columns(arrow: Any) -> dict[str, Any]:
    ids, mask, values = arrow.list_(arrow.int32()), arrow.list_(arrow.int8()), arrow.list_(arrow.float64())
    text = arrow.string()
    runs = arrow.list_(arrow.struct([("source", text), ("count", arrow.int32())]))
    sides = ("prompt", "chosen", "rejected", "completion")
    return {
        "input_ids": ids,
        "labels": ids,
        "logprobs": values,
        "reward": arrow.float64(),
        "sample": arrow.int32(),
        "label": arrow.bool_(),
        "sources": runs,
        "messages": arrow.list_(arrow.struct([("role", text), ("content", text)])),
        **{f"{side}_ids": ids for side in sides},
        **{f"{side}_mask": mask for side in sides},
        **{f"{side}_sources": runs for side in sides},
    }


def _foreign_columns(arrow: Any) -> dict[str, Any]:
    """Those of OpenEnv, verl and verifiers, in this order."""
    ids, mask, values = arrow.list_(arrow.int32()), arrow.list_(arrow.int8()), arrow.list_(arrow.float64())
    text, number, real, flag = arrow.string(), arrow.int32(), arrow.float64(), arrow.bool_()
    drawn = [("temperature", real), ("top_p", real)]
    about = [("node_id", text), ("index", number), ("model", text), ("finish_reason", text)]
    about.append(("sampling_params", arrow.struct([*drawn, ("top_k", number), ("seed", arrow.int64())])))
    entry = [("prompt_token_ids", ids), ("completion_token_ids", ids), ("per_token_logps", values), ("loss_mask", mask)]
    message = arrow.struct([("role", text), ("content", text), ("tool_call_id", text)])
    node = [("parent", number), ("message", message), ("sampled", flag), ("token_ids", ids)]
    node += [("mask", arrow.list_(flag)), ("logprobs", values)]
    usage = arrow.struct([("prompt_tokens", number), ("completion_tokens", number)])
    call = [("node", number), ("model", text), ("sampling", arrow.struct(drawn)), ("finish_reason", text), ("usage", usage)]
    return {
        "entries": arrow.list_(arrow.struct([*entry, ("metadata", arrow.struct(about))])),
        "prompts": ids,
        "responses": ids,
        "response_mask": mask,
        "attention_mask": mask,
        "position_ids": ids,
        "rollout_log_probs": values,
        "rm_scores": values,
        "reward_score": real,
        "num_turns": number,
        "version": number,
        "task": arrow.struct([("type", text), ("key", text), ("data", arrow.struct([("id", text)]))]),
        "agent": arrow.struct([("name", text), ("config", arrow.struct([("model", text)]))]),
        "nodes": arrow.list_(arrow.struct(node)),
        "calls": arrow.list_(arrow.struct(call)),
        "rewards": arrow.struct([("correct", arrow.struct([("score", real), ("weight", real)]))]),
        "is_completed": flag,
        "ok": flag,
    }
