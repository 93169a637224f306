"""Training rows: ids as they are, masks by source and nothing else, in every family of chat templates; and the files they go to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.chat_templates.families import FAMILIES, LLAMA3, QWEN3, QWEN25, R1_DISTILL, SMOLLM2, Family
from toolreason import export, problems
from toolreason.cli import app
from toolreason.errors import CapabilityError, InputError, SettingsError
from toolreason.export import Report, files
from toolreason.runs import Manifest, RunWriter
from toolreason.strategies import prompts
from toolreason.types import (
    Cell,
    CellResult,
    Judgement,
    Outcome,
    Problem,
    Reference,
    ReferenceKind,
    Sampling,
    Segment,
    Source,
    StopReason,
    TakenBack,
    Trajectory,
    Verdict,
)

PROBLEM = Problem("eggs", "A box holds 17 rows of 23 eggs. How many? 蛋", Reference(ReferenceKind.MATH, "391"))
HINT = "Wait, let me verify this with Python.\n```python\n"
IGNORED = -100


class Speaker:
    """Writes segments as a rollout does: what is inserted is encoded once, what is sampled has log-probabilities."""

    def __init__(self, family: Family) -> None:
        self.family, self.tokenizer = family, family.tokenizer()

    def model(self, text: str, *, end: bool = False) -> Segment:
        ids = self.tokenizer.encode(text, special=True)
        ids += (self.end_id,) if end else ()
        return Segment(Source.MODEL, self.tokenizer.decode(ids), ids, tuple(-0.1 * (1 + token % 7) for token in ids))

    def hint(self, text: str) -> Segment:
        return self._inserted(Source.HINT, text)

    def tool(self, text: str) -> Segment:
        return self._inserted(Source.TOOL, text, Cell("c", "print(17 * 23)", CellResult(Outcome.OK, text)))

    def _inserted(self, source: Source, text: str, cell: Cell | None = None) -> Segment:
        ids = self.tokenizer.encode(text)
        return Segment(source, self.tokenizer.decode(ids), ids, cell=cell)

    @property
    def end_id(self) -> int:
        (end,) = self.tokenizer.end_ids
        return end

    @property
    def special_ids(self) -> set[int]:
        names = [*self.family.special, *self.family.added]
        return set(self.family.hugging_face().convert_tokens_to_ids(names))

    def trajectory(self, identity: str = "one", problem: Problem = PROBLEM, *, output: str = "391\n") -> Trajectory:
        """Prompt, thoughts, hint, code, its output, the answer, the end token: as hint_infer makes it."""
        think = "<think>\n" if self.family is QWEN3 else ""
        close = "</think>\n\n" if self.family in (QWEN3, R1_DISTILL) else ""
        segments = (
            self.tokenizer.prompt(prompts.messages(problem, "hint_infer")),
            self.model(f"{think}There are 17 rows of 23, so é 🥚.\n"),
            self.hint(HINT),
            self.model("print(17 * 23)\n```\n"),
            self.tool(f"```output\n{output}```\n"),
            self.model(f"{close}So it is " + r"\boxed{391}.", end=True),
        )
        verdict = Verdict(Judgement.CORRECT, "391")
        return Trajectory(identity, problem.id, "hint_infer", "vllm", segments, StopReason.ANSWERED, verdict=verdict)


@pytest.fixture(params=FAMILIES, ids=str)
def speaker(request: pytest.FixtureRequest) -> Speaker:
    return Speaker(request.param)


def only(trajectories: Trajectory | Sequence[Trajectory], purpose: str = "sft", **options: Any) -> dict[str, Any]:
    (row,) = export.rows([trajectories] if isinstance(trajectories, Trajectory) else trajectories, purpose, **options)
    return row


def by_source(row: dict[str, Any]) -> list[str]:
    """The source of each token of a row, read off its run-length list."""
    return [run["source"] for run in row["sources"] for _ in range(run["count"])]


def spans(values: Sequence[int]) -> list[list[int]]:
    """The trained runs of a row's labels."""
    found: list[list[int]] = []
    inside = False
    for value in values:
        if value != IGNORED:
            if not inside:
                found.append([])
            found[-1].append(value)
        inside = value != IGNORED
    return found


# every family: ids, texts, masks


def test_rows_hold_the_ids_as_they_were_and_decode_to_the_text(speaker: Speaker) -> None:
    one = speaker.trajectory()
    row = only(one)
    assert row["input_ids"] == list(one.token_ids)
    assert speaker.tokenizer.decode(row["input_ids"]) == one.text
    assert len(row["labels"]) == len(row["input_ids"]) == len(by_source(row))


def test_sft_trains_model_and_hint_tokens_and_no_others(speaker: Speaker) -> None:
    one = speaker.trajectory()
    row = only(one)
    for token, label, source in zip(row["input_ids"], row["labels"], by_source(row), strict=True):
        assert label == (token if source in ("model", "hint") else IGNORED)
    trained = [speaker.tokenizer.decode(span) for span in spans(row["labels"])]
    assert trained == ["".join(s.text for s in one.segments[1:4]), one.segments[5].text]
    assert trained[-1].endswith(speaker.family.end)  # stopping is learnt


def test_rl_trains_model_tokens_only_with_their_log_probabilities(speaker: Speaker) -> None:
    one = speaker.trajectory()
    row = only(one, "rl")
    own = [one.segments[at] for at in (1, 3, 5)]
    assert spans(row["labels"]) == [list(segment.token_ids) for segment in own]
    given = [logprob for logprob, label in zip(row["logprobs"], row["labels"], strict=True) if label != IGNORED]
    assert given == [logprob for segment in own for logprob in segment.logprobs or ()]
    assert {logprob for logprob, label in zip(row["logprobs"], row["labels"], strict=True) if label == IGNORED} == {0.0}
    assert row["reward"] == 1.0


def test_special_tokens_that_a_tool_spells_are_text(speaker: Speaker) -> None:
    """Those that the tokenizer does not call special (DeepSeek-R1's role marks) too."""
    hostile = "".join((*speaker.family.special, *speaker.family.added)) + "\n</s><|im_end|>ok 391 🥚 <b>"
    one = speaker.trajectory(output=hostile)
    row = only(one)
    tool = [token for token, source in zip(row["input_ids"], by_source(row), strict=True) if source == "tool"]
    assert not set(tool) & speaker.special_ids
    assert hostile in speaker.tokenizer.decode(tool)
    assert speaker.tokenizer.decode(row["input_ids"]) == one.text
    assert row["input_ids"].count(speaker.end_id) == one.segments[0].token_ids.count(speaker.end_id) + 1


def test_a_prompt_begins_with_its_first_token_once(speaker: Speaker) -> None:
    first = speaker.family.first if speaker.family.starts else None
    text = only(speaker.trajectory())["input_ids"]
    if first:
        identity = speaker.family.hugging_face().convert_tokens_to_ids(first)
        assert text[0] == identity
        assert identity not in text[1:]


@pytest.mark.parametrize(("family", "source"), [(R1_DISTILL, "prompt"), (QWEN3, "model")], ids=str)
def test_the_start_of_thinking_is_trained_where_the_model_wrote_it(family: Family, source: str) -> None:
    speaker = Speaker(family)
    row = only(speaker.trajectory())
    think, close = family.hugging_face().convert_tokens_to_ids(["<think>", "</think>"])
    at = row["input_ids"].index(think)
    assert by_source(row)[at] == source
    assert row["labels"][at] == (think if source == "model" else IGNORED)
    assert row["labels"][row["input_ids"].index(close)] == close


def test_a_row_tells_where_it_comes_from(speaker: Speaker) -> None:
    row = only(speaker.trajectory())
    expected = {"id": "one", "problem_id": "eggs", "sample": 0, "strategy": "hint_infer", "policy": "vllm", "stop": "answered"}
    assert {**expected, "verdict": "correct"}.items() <= row.items()
    assert [run["source"] for run in row["sources"]] == ["prompt", "model", "hint", "model", "tool", "model"]


# what a trainer makes of it


@pytest.mark.parametrize("purpose", ["sft", "rl"])
def test_the_gradient_is_zero_where_a_token_is_not_trained_and_nowhere_else(purpose: str) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    speaker = Speaker(QWEN25)
    row = only(speaker.trajectory(), purpose)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, pad_token_id=0
    )
    out = LlamaForCausalLM(config)(input_ids=torch.tensor([row["input_ids"]]), labels=torch.tensor([row["labels"]]))
    (gradient,) = torch.autograd.grad(out.loss, out.logits)
    moved = gradient[0].abs().sum(-1)
    trained = {"sft": ("model", "hint"), "rl": ("model",)}[purpose]
    sources = by_source(row)
    for at, source in enumerate(sources[1:]):  # the logits at `at` predict the token after it
        assert (moved[at] > 0) == (source in trained), (at, source)
    assert {"tool", "prompt"} <= {source for source in sources if source not in trained}
    assert moved[-1] == 0


# endings


def tagged(speaker: Speaker, ending: str = "</answer>", *, end: bool = False, stop: StopReason = StopReason.ANSWERED) -> Trajectory:
    prompt = speaker.tokenizer.prompt(prompts.messages(PROBLEM, "tagged"))
    said = speaker.model(rf"<think>17 * 23</think><answer>\boxed{{391}}{ending}", end=end)
    return Trajectory("t", "eggs", "artist", "vllm", (prompt, said), stop, verdict=Verdict(Judgement.CORRECT, "391"))


def test_an_end_token_is_added_where_we_stopped_the_model_at_its_answer(speaker: Speaker) -> None:
    report = Report()
    row = only(tagged(speaker), end_tokens=[speaker.end_id], report=report)
    assert row["input_ids"] == [*tagged(speaker).token_ids, speaker.end_id]
    assert row["labels"][-1] == speaker.end_id
    assert row["sources"][-1] == {"source": "end", "count": 1}
    assert report.unended == 0


@pytest.mark.parametrize(
    ("ended", "ends", "added"),
    [
        pytest.param({"end": True}, (0,), False, id="the model ended itself"),
        pytest.param({"end": True}, (7, 0), False, id="with another of its end tokens"),
        pytest.param({"stop": StopReason.LENGTH}, (0,), False, id="a limit struck"),
        pytest.param({"stop": StopReason.NO_ANSWER}, (0,), False, id="no answer"),
        pytest.param({}, (), False, id="not asked for"),
        pytest.param({"ending": ""}, (0,), True, id="answered without a tag"),
    ],
)
def test_no_end_token_is_added_elsewhere(ended: dict[str, Any], ends: tuple[int, ...], added: bool) -> None:
    speaker = Speaker(SMOLLM2)
    one = tagged(speaker, **ended)
    row = only(one, end_tokens=[end or speaker.end_id for end in ends])
    assert row["input_ids"] == [*one.token_ids, *([speaker.end_id] if added else [])]


def test_rows_that_do_not_teach_to_stop_are_counted() -> None:
    speaker, report = Speaker(SMOLLM2), Report()
    only(tagged(speaker), report=report)
    only(replace(tagged(speaker, end=True), id="u"), report=report)
    assert report.unended == 1


# what is left out


def test_what_is_left_out_is_counted_by_reason() -> None:
    speaker = Speaker(QWEN25)
    one = speaker.trajectory()
    unsaid = replace(one, id="unsaid", segments=one.segments[:1])
    mute = replace(one, id="mute", segments=(one.segments[0], replace(one.segments[1], logprobs=None)))
    others = [
        replace(one, id="w", verdict=Verdict(Judgement.WRONG)),
        replace(one, id="u", verdict=Verdict(Judgement.UNSCORED)),
        replace(one, id="n", verdict=None),
        replace(one, id="a", stop=StopReason.ABORTED),
    ]
    for purpose, options, kept, left_out in [
        ("sft", {}, ["one", "mute"], {"wrong": 1, "unscored": 2, "aborted": 1, "no trained token": 1, "there already": 1}),
        ("sft", {"verdict": "any"}, ["one", "w", "u", "n", "mute"], {"aborted": 1, "no trained token": 1, "there already": 1}),
        ("sft", {"verdict": "wrong"}, ["w"], {"correct": 3, "unscored": 2, "aborted": 1, "there already": 1}),
        (
            "rl",
            {},
            ["one", "w"],
            {"unscored": 2, "aborted": 1, "no trained token": 1, "no log-probabilities": 1, "there already": 1},
        ),
    ]:
        report = Report()
        rows = list(export.rows([one, *others, unsaid, mute, one], purpose, report=report, **options))
        assert [row["id"] for row in rows] == kept, purpose
        assert report.left_out == left_out
        assert (report.read, report.rows) == (8, len(kept))
    assert [row["reward"] for row in export.rows([one, *others], "rl")] == [1.0, 0.0]


def test_a_row_that_is_too_long_is_dropped_or_cut_and_one_that_fits_is_not() -> None:
    one = Speaker(LLAMA3).trajectory()
    length = len(one.token_ids)
    assert len(only(one, max_tokens=length)["input_ids"]) == length
    report = Report()
    assert list(export.rows([one], max_tokens=length - 1, report=report)) == []
    assert report.left_out == {"too long": 1}
    whole, cut = only(one), only(one, max_tokens=length - 20, long="truncate", report=report)
    for name in ("input_ids", "labels"):
        assert cut[name] == whole[name][: length - 20]
    assert by_source(cut) == by_source(whole)[: length - 20]
    assert report.truncated == 1
    prompt = len(one.segments[0].token_ids)
    assert list(export.rows([replace(one, id="2")], max_tokens=prompt, long="truncate", report=report)) == []
    assert report.left_out["no trained token"] == 1


def test_what_was_taken_back_before_a_hint_is_in_no_row() -> None:
    speaker = Speaker(QWEN25)
    one = speaker.trajectory()
    lost = TakenBack(2, speaker.model("nonsense", end=True), StopReason.ANSWERED)
    assert only(replace(one, taken_back=(lost,))) == only(one)


def test_of_several_rounds_the_verdict_is_that_on_the_text_of_the_row() -> None:
    right, wrong = Verdict(Judgement.CORRECT, "42"), Verdict(Judgement.WRONG, "7")
    ids = (1, 2)
    one = Trajectory(
        "t", "p", "hint_infer", "m", (Segment(Source.MODEL, "ab", ids, (-1.0, -1.0)),), StopReason.ANSWERED, verdict=right
    )
    one = replace(one, round_verdicts=(right, wrong))  # an earlier round was the most certain, say
    assert only([one], "rl")["reward"] == 0.0
    assert not list(export.rows([one], "sft"))


def test_text_only_trajectories_have_no_token_rows() -> None:
    one = chat("4")
    for purpose in ("sft", "rl"):
        with pytest.raises(CapabilityError, match="--for messages"):
            list(export.rows([one], purpose))


@pytest.mark.parametrize(
    ("purpose", "options", "words"),
    [
        ("sftt", {}, "there are sft, rl, messages"),
        ("sft", {"verdict": "good"}, "there are correct, wrong, unscored and any"),
        ("sft", {"max_tokens": 0}, "at least 1"),
        ("sft", {"long": "wrap"}, "drop and truncate"),
        ("rl", {"max_tokens": 9, "long": "truncate"}, "the whole rollout"),
        ("rl", {"end_tokens": [1]}, "every trained token was sampled"),
        ("sft", {"end_tokens": [-100]}, "not -100"),
        ("sft", {"problems": {}}, "for messages only"),
        ("messages", {"problems": {}, "aside": True}, "leave problems out"),
    ],
)
def test_options_that_cannot_be_are_refused_at_once(purpose: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        export.rows([], purpose, **options)


# messages


def chat(answer: str, identity: str = "c", **more: Any) -> Trajectory:
    messages = [{"role": "system", "content": "Think."}, {"role": "user", "content": "2 + 2?"}]
    segments = (Segment(Source.PROMPT, json.dumps(messages)), Segment(Source.MODEL, answer))
    verdict = Verdict(Judgement.CORRECT, "4")
    return Trajectory(identity, "sum", "plain", "chat:x", segments, StopReason.ANSWERED, verdict=verdict, **more)


def test_messages_render_to_the_prompt_that_there_was(speaker: Speaker) -> None:
    one = speaker.trajectory()
    messages = only(one, "messages", problems={"eggs": PROBLEM})["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant"]
    assert speaker.tokenizer.prompt(messages[:-1]) == one.segments[0]
    said = messages[-1]["content"]
    assert speaker.family.end not in said
    for segment in one.segments[2:5]:  # the tool's output stands where it stood
        assert segment.text in said
    rendered = speaker.family.hugging_face().apply_chat_template(messages, tokenize=False)
    if speaker.family in (QWEN3, R1_DISTILL):  # their templates touch the thoughts
        assert said.startswith("<think>\n")
        assert said.count("<think>") == said.count("</think>") == 1
        assert r"\boxed{391}." + speaker.family.end in rendered
    else:
        assert rendered.removesuffix("\n") == one.text


def test_without_problems_there_are_prompt_and_completion(speaker: Speaker) -> None:
    one = speaker.trajectory()
    row = only(one, "messages")
    assert (row["prompt"], row["completion"]) == (one.segments[0].text, one.response)
    assert "messages" not in row


def test_a_conversation_of_several_turns_is_no_text_row() -> None:
    one = chat("It is 4.")
    again = (Segment(Source.PROMPT, "And 3 + 3?"), Segment(Source.MODEL, "6."))
    report = Report()
    assert not list(export.rows([replace(one, segments=(*one.segments, *again))], "messages", report=report))
    assert report.left_out == {"several turns of the user's": 1}


def test_a_chat_policys_messages_are_in_its_trajectory() -> None:
    row = only(chat("It is 4."), "messages")
    assert row["messages"] == [
        {"role": "system", "content": "Think."},
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "It is 4."},
    ]


def test_the_wording_of_the_strategy_is_told_from_the_prompt() -> None:
    speaker = Speaker(LLAMA3)
    for wording in ("plain", "fenced", "tagged"):
        asked = prompts.messages(PROBLEM, wording)
        one = replace(speaker.trajectory(), segments=(speaker.tokenizer.prompt(asked), *speaker.trajectory().segments[1:]))
        assert only(one, "messages", problems={"eggs": PROBLEM})["messages"][:-1] == asked
    for system in ("Be brief.", ""):
        asked = prompts.messages(PROBLEM, "plain", system)
        segments = (speaker.tokenizer.prompt(asked), *speaker.trajectory().segments[1:])
        one = replace(speaker.trajectory(), segments=segments, settings={"system": system})
        assert only(one, "messages", problems={"eggs": PROBLEM})["messages"][:-1] == asked


@pytest.mark.parametrize("system", [None, "Be brief. There are:\n{tools}\nNo more."])
def test_the_tools_that_a_prompt_offered_are_in_its_messages(system: str | None) -> None:
    speaker = Speaker(LLAMA3)
    asked = prompts.messages(PROBLEM, "uct", system)
    asked[0]["content"] = asked[0]["content"].replace("{tools}", "- f(x: int) -> int: Squares (.*?).\n- g() -> str: G.")
    segments = (speaker.tokenizer.prompt(asked), *speaker.trajectory().segments[1:])
    one = replace(speaker.trajectory(), segments=segments, settings={"system": system})
    assert only(one, "messages", problems={"eggs": PROBLEM})["messages"][:-1] == asked


def built(speaker: Speaker, verdict: Judgement = Judgement.CORRECT) -> Trajectory:
    """A trajectory for which a builder was asked twice."""
    one = speaker.trajectory().with_verdict(Verdict(verdict))
    sides = [
        replace(one, id=f"side{at}", strategy="build:code", verdict=None, segments=(one.segments[0], speaker.model(f"def f{at}")))
        for at in range(2)
    ]
    return replace(one, aside=tuple(sides), sample=3)


def test_what_a_builder_said_is_left_out_and_counted_or_rows_of_its_own(speaker: Speaker) -> None:
    report = Report()
    (alone,) = export.rows([built(speaker)], report=report)
    assert alone == only(replace(speaker.trajectory(), sample=3))
    assert (report.read, report.rows, report.aside) == (1, 1, 2)

    report = Report()
    row, *sides = export.rows([built(speaker)], "rl", aside=True, report=report)
    assert row["id"] == "one"
    assert [(side["id"], side["strategy"], side["sample"], side["reward"]) for side in sides] == [
        ("side0", "build:code", 3, 1.0),
        ("side1", "build:code", 3, 1.0),
    ]
    assert (report.read, report.rows, report.aside) == (3, 3, 0)

    report = Report()
    assert list(export.rows([built(speaker, Judgement.WRONG)], aside=True, report=report)) == []
    assert report.aside == 2  # a wrong rollout's builder is not trained on either


def test_problems_that_are_not_those_of_the_run_are_refused() -> None:
    one = Speaker(QWEN25).trajectory()
    with pytest.raises(InputError, match="is not what trajectory one was asked"):
        only(one, "messages", problems={"eggs": replace(PROBLEM, question="Why?")})
    report = Report()
    assert list(export.rows([one], "messages", problems={}, report=report)) == []
    assert report.left_out == {"not among the problems": 1}
    foreign = replace(one, segments=(Segment(Source.PROMPT, "Q: eggs?", (1, 2)), *one.segments[1:]))
    with pytest.raises(InputError, match="leave --problems out"):
        only(foreign, "messages", problems={"eggs": PROBLEM})
    with pytest.raises(InputError, match="export them apart"):
        list(export.rows([one, chat("4")], "messages"))


# files, splits


def many(count: int = 12, samples: int = 3) -> list[Trajectory]:
    speaker = Speaker(SMOLLM2)
    one = speaker.trajectory()
    return [
        replace(one, id=f"{problem}-{sample}", problem_id=f"p{problem}", sample=sample)
        for problem in range(count)
        for sample in range(samples)
    ]


@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=40).filter(lambda names: len(set(names)) > 1),
    st.floats(0.01, 0.99),
    st.integers(0, 9),
    st.booleans(),
)
def test_a_split_shares_no_problem_and_loses_no_row(names: list[str], split: float, seed: int, shuffle: bool) -> None:
    parts = files.order(names, split, seed, shuffle)
    train, test = ({names[at] for at in parts[part]} for part in ("train", "test"))
    assert train
    assert test
    assert not train & test
    assert sorted(parts["train"] + parts["test"]) == list(range(len(names)))
    assert parts == files.order(names, split, seed, shuffle)
    again = files.order(names[::-1], split, seed)
    assert {names[::-1][at] for at in again["test"]} == test  # whatever the order of the rows


def test_a_split_is_of_the_size_asked_for_and_another_seed_is_another_split() -> None:
    names = [f"p{at}" for at in range(200)]
    held_out = {tuple(files.order(names, 0.1, seed)["test"]) for seed in range(5)}
    assert {len(part) for part in held_out} == {20}
    assert len(held_out) == 5
    for split, some in ((0.0, names), (1.0, names), (0.5, names[:1])):
        with pytest.raises(SettingsError, match="between 0 and 1 and at least 2 problems"):
            files.order(some, split)


@pytest.mark.parametrize("purpose", ["sft", "rl", "messages"])
def test_every_kind_of_file_holds_the_same_rows(tmp_path: Path, purpose: str) -> None:
    import datasets
    from pyarrow import parquet

    trajectories = many(3, 2)
    options = {"problems": {one.problem_id: replace(PROBLEM, id=one.problem_id) for one in trajectories}}
    rows = list(export.rows(trajectories, purpose, **(options if purpose == "messages" else {})))
    for name in ("rows.parquet", "rows.jsonl", "rows"):
        assert files.write(tmp_path / name, rows) == {tmp_path / name: 6}
    assert parquet.read_table(tmp_path / "rows.parquet").to_pylist() == rows
    assert [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == rows
    assert datasets.load_from_disk(str(tmp_path / "rows")).to_list() == rows
    assert sorted(file.name for file in tmp_path.iterdir()) == ["rows", "rows.jsonl", "rows.parquet"]  # nothing else is left


def test_a_split_makes_two_parts_of_every_kind_of_file(tmp_path: Path) -> None:
    import datasets
    from pyarrow import parquet

    rows = list(export.rows(many()))
    expected = files.order([row["problem_id"] for row in rows], 0.25, seed=3)
    written = {}
    for name in ("rows.parquet", "rows.jsonl", "rows"):
        written |= files.write(tmp_path / name, rows, split=0.25, seed=3)
    assert sorted((file.relative_to(tmp_path).as_posix(), count) for file, count in written.items()) == [
        *(("rows.test.jsonl", 9), ("rows.test.parquet", 9), ("rows.train.jsonl", 27), ("rows.train.parquet", 27)),
        *(("rows/test", 9), ("rows/train", 27)),
    ]
    loaded = datasets.load_from_disk(str(tmp_path / "rows"))
    for part in ("train", "test"):
        wanted = [rows[at]["id"] for at in expected[part]]
        assert loaded[part]["id"][:] == wanted
        assert parquet.read_table(tmp_path / f"rows.{part}.parquet")["id"].to_pylist() == wanted
        assert [json.loads(line)["id"] for line in (tmp_path / f"rows.{part}.jsonl").read_text().splitlines()] == wanted


def test_rows_can_be_shuffled_and_the_seed_decides() -> None:
    trajectories = many()
    plain, once, again, other = (
        export.dataset(trajectories, shuffle=shuffle, seed=seed)["id"][:]
        for shuffle, seed in ((False, 0), (True, 0), (True, 0), (True, 1))
    )
    assert plain == [one.id for one in trajectories]
    assert once == again
    assert len({tuple(ids) for ids in (plain, once, other)}) == 3
    assert sorted(once) == sorted(plain)


def test_a_dataset_has_the_columns_that_trainers_want() -> None:
    import datasets

    parts = export.dataset(many(), split=0.1)
    assert set(parts) == {"train", "test"}
    assert {"input_ids", "labels", "sources", "problem_id"} <= set(parts["train"].column_names)
    assert isinstance(export.dataset(many(1)), datasets.Dataset)
    with pytest.raises(InputError, match=r"no row is left of 36 trajectories \(36 correct\)"):
        export.dataset(many(), verdict="wrong")


def test_files_are_not_replaced_unasked_and_never_what_is_no_export(tmp_path: Path) -> None:
    rows = list(export.rows(many(2, 1)))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("years of work")
    for name in ("a.parquet", "a.jsonl", "a"):
        files.write(tmp_path / name, rows)
        with pytest.raises(InputError, match="--overwrite"):
            files.write(tmp_path / name, rows)
        assert files.write(tmp_path / name, rows[:1], overwrite=True) == {tmp_path / name: 1}
    with pytest.raises(InputError, match="is no earlier export"):
        files.write(tmp_path / "folder", rows, overwrite=True)
    assert (tmp_path / "folder" / "thesis.tex").read_text() == "years of work"
    with pytest.raises(SettingsError, match=r"\.parquet or \.jsonl"):
        files.write(tmp_path / "a.csv", rows)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        files.write(tmp_path / "file" / "a.jsonl", rows)


def test_an_export_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    out.write_text("before")

    def broken() -> Any:
        yield from export.rows(many(1))
        raise InputError("damaged")

    with pytest.raises(InputError, match="damaged"):
        files.write(out, broken(), overwrite=True)
    assert out.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]


# the command


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs: three problems with two samples each, one of them wrong; and a tagged one, stopped at its answer."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)
    problems.dump([replace(PROBLEM, id=f"p{at}") for at in range(3)], tmp_path / "p.jsonl")
    trajectories = many(3, 2)
    trajectories[0] = trajectories[0].with_verdict(Verdict(Judgement.WRONG))
    for name, some in (("run", trajectories), ("tagged", [tagged(Speaker(SMOLLM2))]), ("chat", [chat("4")])):
        with RunWriter.open(tmp_path / name, Manifest("hint_infer", {}, "vllm", Sampling(), "p.jsonl", "x", 2)) as writer:
            for one in some:
                writer.write(one)
    return tmp_path


def command(*args: str) -> Any:
    return CliRunner().invoke(app, ["export", *args], catch_exceptions=False)


def test_the_command_has_help_with_examples() -> None:
    done = command("--help")
    assert done.exit_code == 0
    assert "toolreason export runs/hinted --out rows.parquet" in done.output


def test_the_command_writes_rows_and_reports(run_dir: Path) -> None:
    from pyarrow import parquet

    done = command("run", "tagged", "--out", "rows.parquet")
    assert done.exit_code == 0, done.output
    assert "6 of 7 trajectories" in done.stdout
    assert "1 wrong" in done.stdout
    assert "rows.parquet: 6" in done.stdout
    assert "1 rows end at </answer> without an end token" in done.stderr.replace("\n", " ")
    rows = parquet.read_table("rows.parquet").to_pylist()
    assert rows[0] == only(many(3, 2)[1])
    counted = sum(label != IGNORED for row in rows for label in row["labels"])
    assert f"{counted} of them trained" in done.stdout


def test_the_command_reports_as_json_and_its_options_arrive(run_dir: Path) -> None:
    end = str(Speaker(SMOLLM2).end_id)
    done = command(
        "run", "tagged", "--verdict", "any", "--end-token", end, "--split", "0.5", "--shuffle", "-o", "a.jsonl", "--json"
    )
    report = json.loads(done.stdout)
    assert (report["read"], report["rows"], report["unended"], report["tokens"]["end"]) == (7, 7, 0, 1)
    assert set(report["out"]) == {"a.train.jsonl", "a.test.jsonl"}
    assert sum(report["out"].values()) == 7
    assert done.stderr == ""
    room = str(len(many(1, 1)[0].token_ids) - 5)
    limited = json.loads(command("run", "--max-tokens", room, "--long", "truncate", "-o", "b.jsonl", "--json").stdout)
    assert limited["truncated"] == limited["rows"] == 5


def test_the_command_makes_messages_of_the_problems(run_dir: Path) -> None:
    done = command("run", "--for", "messages", "--problems", "p.jsonl", "--out", "m.jsonl")
    assert done.exit_code == 0, done.output
    row = json.loads((run_dir / "m.jsonl").read_text().splitlines()[0])
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
    assert "none: text only" in command("chat", "--for", "messages", "--out", "c").stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("chat", "--out", "x.jsonl"), "--for messages"),
        (("run", "--out", "x.csv"), ".parquet or .jsonl"),
        (("run", "--for", "ppo", "--out", "x.jsonl"), "there are sft, rl, messages"),
        (("run", "--verdict", "unscored", "--out", "x.jsonl"), "no row is left of 6 trajectories"),
        (("nowhere", "--out", "x.jsonl"), "holds no run"),
        (("run", "--for", "messages", "--problems", "none.jsonl", "--out", "x.jsonl"), "cannot read none.jsonl"),
        (("run", "--split", "7", "--out", "x.jsonl"), "between 0 and 1"),
    ],
)
def test_the_command_names_what_is_wrong_and_writes_nothing(run_dir: Path, args: tuple[str, ...], words: str) -> None:
    before = sorted(run_dir.rglob("*"))
    done = command(*args)
    assert done.exit_code == 2
    assert words in done.stderr.replace("\n", " ")
    assert sorted(run_dir.rglob("*")) == before


def test_starting_the_export_loads_no_engine() -> None:
    import subprocess
    import sys

    code = "import sys, toolreason.export; print({'torch', 'pyarrow', 'datasets', 'transformers', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"
