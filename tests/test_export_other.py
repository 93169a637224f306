"""Rows in the shapes of other systems: the same ids, the model's own tokens trained, and what each system checks holds."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import sys
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.chat_templates.families import FAMILIES
from tests.train.tiny import Speaker
from toolreason import export
from toolreason.errors import CapabilityError
from toolreason.export import Report, files
from toolreason.types import Cell, CellResult, Judgement, Outcome, Sampling, Segment, Source, StopReason, Trajectory, Verdict

P, M, H, T = Source.PROMPT, Source.MODEL, Source.HINT, Source.TOOL
OTHERS = ["openenv", "verl", "verifiers"]
CELL = Cell("call", "print(1)", CellResult(Outcome.OK, "1\n"))


def segment(source: Source, *ids: int, logprobs: Iterable[float] | None = None) -> Segment:
    """Its text is its ids, with a space after each; the log-probability of id n is -n / 8."""
    drawn = tuple(-token / 8 for token in ids) if logprobs is None else tuple(logprobs)
    return Segment(
        source, "".join(f"{token} " for token in ids), ids, drawn if source is M else None, CELL if source is T else None
    )


MIXED = (
    segment(P, 1, 2),
    segment(M, 3),
    segment(M, 4),
    segment(H, 5, 6),
    segment(M, 7),
    segment(T, 8),
    segment(T, 9),
    segment(M, 10),
)


def trajectory(*segments: Segment, right: bool = True, **more: Any) -> Trajectory:
    verdict = Verdict(Judgement.CORRECT if right else Judgement.WRONG)
    sampling = Sampling(0.5, 0.95, 20, 7)
    made = Trajectory("one", "p", "hint_infer", "vllm", segments or MIXED, StopReason.ANSWERED, 3, sampling, verdict=verdict)
    return replace(made, **more)


def only(purpose: str, one: Trajectory | None = None) -> dict[str, Any]:
    (row,) = export.rows([one or trajectory()], purpose)
    return row


# what is common to them


@pytest.mark.parametrize("purpose", OTHERS)
def test_rows_tell_where_they_come_from_and_what_they_hold(purpose: str) -> None:
    report = Report()
    (row,) = export.rows([trajectory()], purpose, report=report)
    told = {"id": "one", "problem_id": "p", "sample": 3, "strategy": "hint_infer", "policy": "vllm", "stop": "answered"}
    assert {**told, "verdict": "correct"}.items() <= row.items()
    assert [run["source"] for run in row["sources"]] == ["prompt", "model", "hint", "model", "tool", "model"]
    assert (report.rows, report.trained, report.tokens) == (1, 4, {"prompt": 2, "model": 4, "hint": 2, "tool": 2})


@pytest.mark.parametrize("purpose", OTHERS)
def test_what_has_no_prompt_reward_or_log_probabilities_is_left_out_and_counted(purpose: str) -> None:
    bare = replace(MIXED[1], logprobs=None)
    trajectories = [
        trajectory(*MIXED[1:], id="a"),
        trajectory(MIXED[0], MIXED[3], id="b"),
        trajectory(MIXED[0], bare, id="c"),
        trajectory(id="d", verdict=Verdict(Judgement.UNSCORED)),
        trajectory(id="e", stop=StopReason.ABORTED),
        trajectory(id="f"),
    ]
    report = Report()
    assert [row["id"] for row in export.rows(trajectories, purpose, report=report)] == ["f"]
    reasons = ["no prompt", "no trained token", "no log-probabilities", "unscored", "aborted"]
    assert report.left_out == dict.fromkeys(reasons, 1)
    assert report.tokens["model"] == 4


@pytest.mark.parametrize("purpose", OTHERS)
def test_text_without_ids_is_refused(purpose: str) -> None:
    with pytest.raises(CapabilityError, match="--for messages"):
        only(purpose, trajectory(Segment(P, "[]"), Segment(M, "4")))


@pytest.mark.parametrize("purpose", OTHERS)
def test_every_kind_of_file_holds_the_same_rows(tmp_path: Path, purpose: str) -> None:
    import datasets
    from pyarrow import parquet

    rows = list(export.rows([trajectory(), trajectory(MIXED[0], MIXED[1], id="two", right=False)], purpose))
    for name in ("rows.parquet", "rows.jsonl", "rows"):
        files.write(tmp_path / name, rows)
    assert parquet.read_table(tmp_path / "rows.parquet").to_pylist() == rows
    assert [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == rows
    assert datasets.load_from_disk(str(tmp_path / "rows")).to_list() == rows


# OpenEnv


def test_openenv_has_an_entry_for_each_time_the_model_went_on() -> None:
    row = only("openenv")
    assert [(entry["prompt_token_ids"], entry["completion_token_ids"]) for entry in row["entries"]] == [
        ([1, 2], [3, 4]),
        ([1, 2, 3, 4, 5, 6], [7]),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9], [10]),
    ]
    assert [entry["loss_mask"] for entry in row["entries"]] == [[0, 0, 1, 1], [0] * 6 + [1], [0] * 9 + [1]]
    assert [entry["per_token_logps"] for entry in row["entries"]] == [[-3 / 8, -4 / 8], [-7 / 8], [-10 / 8]]
    assert row["reward"] == 1.0
    assert row["entries"][1]["metadata"] == {
        "node_id": "one:1",
        "index": 1,
        "model": "vllm",
        "finish_reason": "stop",
        "sampling_params": {"temperature": 0.5, "top_p": 0.95, "top_k": 20, "seed": 7},
    }


def test_openenv_tells_a_turn_that_a_limit_of_tokens_cut_off() -> None:
    ends = {"length": "length", "context_full": "length", "answered": "stop", "call_limit": "stop"}
    for stop, reason in ends.items():
        entries = only("openenv", trajectory(stop=StopReason(stop)))["entries"]
        assert [entry["metadata"]["finish_reason"] for entry in entries] == ["stop", "stop", reason]
    after = only("openenv", trajectory(*MIXED[:-1], stop=StopReason.CONTEXT_FULL))
    assert [entry["metadata"]["finish_reason"] for entry in after["entries"]] == ["stop", "stop"]


def test_openenv_log_probabilities_are_never_positive() -> None:
    sure = trajectory(MIXED[0], segment(M, 3, 4, logprobs=(2e-4, 0.0)))
    assert only("openenv", sure)["entries"][0]["per_token_logps"] == [0.0, 0.0]
    report = Report()
    wild = trajectory(MIXED[0], segment(M, 3, logprobs=(0.5,)))
    assert list(export.rows([wild], "openenv", report=report)) == []
    assert report.left_out == {"positive log-probabilities": 1}


def openenv_trajectories() -> list[Trajectory]:
    """Every order of sources of up to five segments, and what the families' tokenizers make of a rollout."""
    some = []
    for number in range(4**4):
        kinds = [(M, H, T, P)[number // 4**digit % 4] for digit in range(4)]
        parts = [segment(kind, *range(10 * at, 10 * at + 1 + at)) for at, kind in enumerate(kinds, 1)]
        some.append(trajectory(segment(P, 1, 2), *parts, id=f"t{number}", right=number % 2 == 0))
    for family in FAMILIES:
        say = Speaker(family)
        parts = (say.prompt("17 * 23?"), say.model("Let me think"), say.hint(), say.model("print(17 * 23)\n```\n"))
        some.append(trajectory(*parts, say.tool("print(17 * 23)", "391\n"), say.model("It is 391.", end=True), id=str(family)))
    return some


def check_openenv(entries: list[dict[str, Any]]) -> None:
    """The rules of OpenEnv 0.10 for a training trace, written down again."""
    names = [entry["metadata"]["node_id"] for entry in entries]
    assert len(set(names)) == len(names) > 0
    for entry in entries:
        assert set(entry) == {"prompt_token_ids", "completion_token_ids", "per_token_logps", "loss_mask", "metadata"}
        prompt, completion = entry["prompt_token_ids"], entry["completion_token_ids"]
        assert prompt
        assert completion
        assert all(type(token) is int and token >= 0 for token in prompt + completion)
        assert len(entry["per_token_logps"]) == len(completion)
        assert all(type(value) is float and math.isfinite(value) and value <= 0 for value in entry["per_token_logps"])
        assert entry["loss_mask"] == [0] * len(prompt) + [1] * len(completion)
    for before, after in pairwise(entries):  # one conversation: each begins with the one before it
        known = before["prompt_token_ids"] + before["completion_token_ids"]
        assert after["prompt_token_ids"][: len(known)] == known
        assert len(after["prompt_token_ids"]) > len(known)


def test_every_openenv_row_keeps_its_rules_and_holds_all_model_tokens() -> None:
    trajectories = {one.id: one for one in openenv_trajectories()}
    rows = list(export.rows(trajectories.values(), "openenv"))
    assert len(rows) == 4**4 - 3**4 + len(FAMILIES)  # all that hold a model segment
    for row in rows:
        check_openenv(row["entries"])
        said = [token for part in trajectories[row["id"]].segments if part.source is M for token in part.token_ids]
        assert [token for entry in row["entries"] for token in entry["completion_token_ids"]] == said


@pytest.fixture
def openenv(monkeypatch: pytest.MonkeyPatch) -> Any:
    """OpenEnv's own training contract. Its packages import servers on the way, whose libraries are many: the three modules that we
    need import none of them, so they are loaded without their packages' beginnings.
    """
    found = importlib.util.find_spec("openenv")
    assert found is not None, "pip install --no-deps openenv==0.10.0, as scripts/setup.sh does"
    assert found.submodule_search_locations is not None
    (root,) = found.submodule_search_locations
    for name in ("core", "core.harness", "core.harness.capture"):
        package = ModuleType(f"openenv.{name}")
        package.__path__ = [str(Path(root, *name.split(".")))]
        monkeypatch.setitem(sys.modules, package.__name__, package)
    names = {"training": "training", "validate": "capture.validate", "graph": "capture.graph"}
    modules = {short: importlib.import_module(f"openenv.core.harness.{name}") for short, name in names.items()}
    yield SimpleNamespace(**modules)
    for name in [name for name in sys.modules if name.startswith("openenv.core")]:
        monkeypatch.delitem(sys.modules, name)


def test_openenv_itself_accepts_every_row(openenv: Any, tmp_path: Path) -> None:
    rows = list(export.rows(openenv_trajectories(), "openenv"))
    files.write(tmp_path / "rows.parquet", rows)
    from pyarrow import parquet

    for row in parquet.read_table(tmp_path / "rows.parquet").to_pylist():
        trace = openenv.training.TrainingTrace.from_entries(row["entries"])
        assert trace.to_trace_entries()[0]["loss_mask"] == row["entries"][0]["loss_mask"]
        graph = openenv.graph.RolloutGraph()
        for turn in trace.turns:
            checked = openenv.validate.check_turn(turn.prompt_token_ids, turn.completion_token_ids, turn.per_token_logps)
            assert not checked.findings
            parts = (turn.node_id, turn.prompt_token_ids, turn.completion_token_ids, turn.per_token_logps)
            graph.add_turn(openenv.graph.TurnNode(*parts))
        (sequence,) = graph.sequences()
        assert openenv.validate.check_sequence(sequence).ok
        whole = [token for run in trace.turns for token in run.completion_token_ids]
        assert sum(sequence.loss_mask) == len(whole)
        assert openenv.validate.check_rollout(graph, expect_single_root=True).ok


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("loss_mask", [1, 0, 1, 1], "prompt tokens must remain context"),
        ("loss_mask", [0, 0, 1], "must cover prompt plus completion"),
        ("per_token_logps", [-0.1], "1 logprobs vs 2 sampled"),
        ("per_token_logps", [0.1, -0.1], "must not be positive"),
        ("per_token_logps", [math.nan, -0.1], "finite"),
    ],
)
def test_openenv_would_refuse_what_we_never_write(openenv: Any, field: str, value: list[Any], words: str) -> None:
    entries = only("openenv")["entries"]
    entries[0][field] = value
    with pytest.raises(ValueError, match=words):
        openenv.training.TrainingTrace.from_entries(entries)


# verl


def test_verl_rows_are_one_sample_of_its_batch_before_padding() -> None:
    row = only("verl")
    assert row["prompts"] == [1, 2]
    assert row["responses"] == [3, 4, 5, 6, 7, 8, 9, 10]
    assert row["response_mask"] == [1, 1, 0, 0, 1, 0, 0, 1]
    assert row["rollout_log_probs"] == [-3 / 8, -4 / 8, 0.0, 0.0, -7 / 8, 0.0, 0.0, -10 / 8]
    assert row["input_ids"] == row["prompts"] + row["responses"]
    assert row["attention_mask"] == [1] * 10
    assert row["position_ids"] == list(range(10))
    assert row["rm_scores"] == [0.0] * 7 + [1.0]
    assert (row["reward_score"], row["uid"], row["num_turns"]) == (1.0, "p", 5)


def test_verl_scores_stand_at_the_last_token_of_the_response_even_where_a_tool_wrote_it() -> None:
    row = only("verl", trajectory(MIXED[0], MIXED[1], MIXED[5], right=False))
    assert (row["response_mask"], row["rm_scores"], row["reward_score"]) == ([1, 0], [0.0, 0.0], 0.0)
    row = only("verl", trajectory(MIXED[0], MIXED[1], MIXED[5]))
    assert (row["response_mask"], row["rm_scores"], row["num_turns"]) == ([1, 0], [0.0, 1.0], 3)


# verifiers


def test_verifiers_rows_are_the_record_of_a_trace_with_one_branch() -> None:
    row = only("verifiers")
    assert (row["version"], row["is_completed"], row["ok"], row["stop_condition"]) == (1, True, True, "answered")
    assert row["task"] == {"type": "toolreason", "key": "p", "data": {"id": "p"}}
    assert row["agent"] == {"name": "hint_infer", "config": {"model": "vllm"}}
    assert row["rewards"] == {"correct": {"score": 1.0, "weight": 1.0}}
    nodes = row["nodes"]
    assert [node["parent"] for node in nodes] == [None, 0, 1, 2, 3, 4, 5]
    assert [node["message"]["role"] for node in nodes] == [
        "user",
        "assistant",
        "assistant",
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]
    assert [node["sampled"] for node in nodes] == [False, True, False, True, False, False, True]
    assert [node["message"]["tool_call_id"] for node in nodes] == [None] * 4 + ["call"] * 2 + [None]
    assert "".join(node["message"]["content"] for node in nodes) == trajectory().text
    assert [token for node in nodes for token in node["token_ids"]] == list(trajectory().token_ids)
    for node in nodes:
        assert node["mask"] == [node["sampled"]] * len(node["token_ids"])
        assert node["logprobs"] == ([-token / 8 for token in node["token_ids"]] if node["sampled"] else [])


def test_verifiers_rows_tell_each_call_of_the_engine() -> None:
    calls = only("verifiers", trajectory(stop=StopReason.LENGTH))["calls"]
    assert [call["node"] for call in calls] == [1, 3, 6]
    assert [call["usage"] for call in calls] == [
        {"prompt_tokens": 2, "completion_tokens": 2},
        {"prompt_tokens": 6, "completion_tokens": 1},
        {"prompt_tokens": 9, "completion_tokens": 1},
    ]
    assert [call["finish_reason"] for call in calls] == ["stop", "stop", "length"]
    assert calls[0]["sampling"] == {"temperature": 0.5, "top_p": 0.95}
