"""A rollout told apart: what is prose, what was run, what it gave; streamed or read afterwards."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolreason.adapters.parts import Part, Splitter, events, joined, parts, prose
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.types import Cell, CellResult, Outcome, Sampling, Segment, Source, StopReason, Trajectory


def trajectory(*segments: Segment) -> Trajectory:
    prompt = Segment(Source.PROMPT, "<|im_start|>user\nWhat?<|im_end|>\n", ())
    return Trajectory(
        id="t",
        problem_id="p",
        sample=0,
        strategy="artist",
        settings={},
        policy="scripted",
        sampling=Sampling(),
        segments=(prompt, *segments),
        stop=StopReason.ANSWERED,
    )


def model(text: str) -> Segment:
    return Segment(Source.MODEL, text, ())


def tool(code: str, printed: str, text: str, outcome: Outcome = Outcome.OK) -> Segment:
    return Segment(Source.TOOL, text, (), cell=Cell("t:0", code, CellResult(outcome, stdout=printed)))


FENCED = trajectory(
    model("Let me compute.\n```python\nprint(6*7)\n```\n"),
    tool("print(6*7)\n", "42\n", "```output\n42\n```\n"),
    model("So \\boxed{42}.<|im_end|>"),
)
TAGGED = trajectory(
    model("<think>hm, 6*7</think> I run it.\n<python>print(6*7)</python>"),
    tool("print(6*7)", "42\n", "\n<output>\n42\n</output>\n"),
    model("<answer>\\boxed{42}</answer>"),
)
HINTED = trajectory(
    Segment(Source.HINT, "Let me use Python:\n```python\n", ()),
    model("print(6*7)\n```\n"),
    tool("print(6*7)\n", "42\n", "```output\n42\n```\n"),
    model("42<|im_end|>\n"),
)


def streamed(*pieces: str) -> list[str]:
    """The prose that each piece lets go, and at last what was held."""
    splitter = Splitter()
    given = [splitter.feed({"kind": "text", "source": "model", "text": piece}) for piece in pieces]
    return ["".join(part.text for part in found) for found in [*given, splitter.finish()]]


def test_a_word_is_given_at_once_and_only_what_may_become_a_fence_is_held() -> None:
    assert streamed("To", " solve", " this", ",", "\n", "so") == ["To", " solve", " this", ",", "\n", "so", ""]
    assert streamed("a\n", " ", "``", "so") == ["a\n", "", "", " ``so", ""]
    assert streamed("say ", "```python\n", "x") == ["say ", "```python\n", "x", ""]  # no fence: it begins no line


def test_what_was_run_is_a_call_and_the_rest_is_prose() -> None:
    call, result = Part("call", "print(6*7)\n", "t:0"), Part("result", "42", "t:0", "ok")
    assert parts(FENCED) == [Part("text", "Let me compute.\n"), call, result, Part("text", "So \\boxed{42}.")]
    assert parts(HINTED) == [Part("text", "Let me use Python:\n"), call, result, Part("text", "42")]
    assert prose(parts(FENCED)) == "Let me compute.\nSo \\boxed{42}."


def test_tags_are_no_text_and_thinking_is_reasoning() -> None:
    assert parts(TAGGED) == [
        Part("reasoning", "hm, 6*7"),
        Part("text", " I run it.\n"),
        Part("call", "print(6*7)", "t:0"),
        Part("result", "42", "t:0", "ok"),
        Part("text", "\\boxed{42}"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Look:\n```python\nprint(1)\n```\nThis is how one would do it.",
        "Look:\n```python\nprint(1)\n",
        "```json\n{}\n```\n",
        "a < b and b <p",
        "<python>never closed",
    ],
)
def test_a_block_that_was_never_run_stays_in_the_text(text: str) -> None:
    assert joined(parts(trajectory(model(text)))) == [Part("text", text.replace("<python>", ""))]


PIECES = st.sampled_from(
    [
        "```python\n",
        "```\n",
        "```",
        "`",
        "<think>",
        "</think>",
        "<python>",
        "</python>",
        "<",
        "\n",
        "print(1)\n",
        "x",
        " ",
        "<|im_end|>",
    ]
)


def fed(texts: list[str]) -> list[Part]:
    splitter = Splitter()
    found = [part for text in texts for part in splitter.feed({"kind": "text", "source": "model", "text": text})]
    return joined([*found, *splitter.finish()])


@given(st.lists(PIECES, max_size=12), st.lists(st.integers(0, 60), max_size=8))
def test_however_a_text_is_cut_into_pieces_its_parts_are_the_same(pieces: list[str], cuts: list[int]) -> None:
    text = "".join(pieces)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    split = [text[start:end] for start, end in pairwise(places)]
    assert fed(split) == fed([text]) == fed(list(text))


@given(st.sampled_from([FENCED, TAGGED, HINTED]), st.integers(1, 5))
def test_a_stream_gives_the_parts_that_the_trajectory_has(done: Trajectory, size: int) -> None:
    splitter, found = Splitter(), []
    for event in events(done):
        pieces: list[dict[str, Any]] = [event]
        if event["kind"] == "text" and event["source"] != "tool":
            text = event["text"]
            pieces = [event | {"text": text[at : at + size]} for at in range(0, len(text), size)]
        for piece in pieces:
            found += splitter.feed(piece)
    assert joined([*found, *splitter.finish()]) == parts(done)


def test_what_is_taken_back_before_it_was_sure_is_never_said() -> None:
    splitter = Splitter()
    found = [*splitter.feed({"kind": "text", "source": "model", "text": "So 42.<|im_end|>"})]
    found += splitter.feed({"kind": "cut", "characters": len("<|im_end|>")})
    found += splitter.feed({"kind": "text", "source": "hint", "text": " But let me check."})
    assert joined([*found, *splitter.finish()]) == [Part("text", "So 42. But let me check.")]


async def test_the_events_of_a_real_graph_are_understood() -> None:
    from toolreason import SessionBook, rollout
    from toolreason.execution.scripted import ScriptedSandbox
    from toolreason.strategies.artist import ArtistSettings
    from toolreason.types import Problem

    splitter, found = Splitter(), []
    policy = ScriptedPolicy(["Let me compute.\n```python\nprint(6*7)\n```\n", "So \\boxed{42}."])
    async with ScriptedSandbox({"print(6*7)": "42\n"}) as box:
        done = await rollout(
            Problem("p", "?"),
            strategy="artist",
            settings=ArtistSettings(format="fenced"),
            policy=policy,
            sessions=SessionBook(box),
            on_event=lambda event: found.extend(splitter.feed(event)),
        )
    assert joined([*found, *splitter.finish()]) == parts(done)
    assert [part.kind for part in parts(done)] == ["text", "call", "result", "text"]
