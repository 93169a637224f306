"""Problems with pictures through whole rollouts: the files are in the session, and what code shows is seen by a model that can."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from tests import pictures
from tests.chatmodel import Recorder
from toolreason import rollout
from toolreason.errors import ProblemError
from toolreason.execution import SessionBook
from toolreason.execution.base import Sandbox
from toolreason.graphs import RolloutContext, artist
from toolreason.policies import ChatPolicy, ScriptedPolicy
from toolreason.strategies.artist import ArtistSettings
from toolreason.strategies.hint_infer import HintInferSettings
from toolreason.types import Problem, Source, StopReason, Trajectory, from_json, to_json

COUNT = "from pictures import count_regions\nprint(count_regions('map.png', 'red'))\n"
SHOW = "from pictures import show\nshow('map.png')\n"


@pytest.fixture
def problem(tmp_path: Path) -> Problem:
    return Problem("p", "How many red squares?", attachments=(pictures.save(tmp_path / "map.png"),))


def fenced(*codes: str) -> list[str]:
    return [*(f"```python\n{code}```\n" for code in codes), "So \\boxed{2}."]


@pytest.mark.parametrize(
    ("settings", "replies"),
    [
        (ArtistSettings(), [f"<python>{COUNT}</python>"] * 2 + ["<answer>\\boxed{2}</answer>"]),
        (ArtistSettings(format="fenced", stateful=True), fenced(COUNT, "print(count_regions('map.png', 'red'))\n")),
    ],
)
async def test_code_finds_the_files_in_every_cell(sandbox: Sandbox, problem: Problem, settings: Any, replies: list[str]) -> None:
    done = await rollout(
        problem, strategy="artist", policy=ScriptedPolicy(replies), sessions=SessionBook(sandbox), settings=settings
    )
    assert done.stop is StopReason.ANSWERED
    assert [cell.result.stdout for cell in done.cells] == ["2\n", "2\n"]
    assert "count_regions(image, color" in done.segments[0].text


async def test_hints_lead_to_code_that_finds_them_too(sandbox: Sandbox, problem: Problem) -> None:
    policy = ScriptedPolicy([f"{COUNT}```\n", "So \\boxed{2}."])
    settings = HintInferSettings(hint="start")
    done = await rollout(problem, strategy="hint_infer", policy=policy, sessions=SessionBook(sandbox), settings=settings)
    assert [cell.result.stdout for cell in done.cells] == ["2\n"]


async def test_a_model_that_sees_is_shown_the_picture_and_then_the_figure(sandbox: Sandbox, problem: Problem) -> None:
    model = Recorder(responses=fenced(SHOW))
    policy = ChatPolicy(model, "user", vision=True)
    settings = ArtistSettings(format="fenced", stateful=True)
    done = await rollout(problem, strategy="artist", policy=policy, sessions=SessionBook(sandbox), settings=settings)
    assert done.stop is StopReason.ANSWERED
    first, second = model.seen
    assert first[-1].content[1]["base64"] == base64.b64encode(pictures.encoded(pictures.shapes())).decode()  # type: ignore[index]
    assert [message.type for message in second] == ["system", "human", "ai", "human"]
    text, image = second[-1].content
    assert "[a figure of 60 x 40 pixels]" in text["text"]  # type: ignore[index]
    assert image == {"type": "image", "base64": done.cells[0].result.figures[0], "mime_type": "image/png"}
    assert from_json(Trajectory, to_json(done)) == done
    assert first[-1].content[1]["base64"] not in to_json(done)  # type: ignore[index]


async def test_a_rollout_that_is_resumed_elsewhere_has_its_files_again(sandbox: Sandbox, problem: Problem) -> None:
    settings = ArtistSettings(format="fenced", stateful=True)
    graph = artist.build(settings).compile(checkpointer=InMemorySaver(), interrupt_after=["act"])
    policy = ScriptedPolicy(fenced(COUNT, "print(count_regions('map.png', 'blue'))\n"))
    config: Any = {"configurable": {"thread_id": "t"}}
    async with SessionBook(sandbox) as first:
        await graph.ainvoke({"problem": problem}, config, context=RolloutContext(policy, first))
    async with SessionBook(sandbox) as second:
        await graph.ainvoke(None, config, context=RolloutContext(policy, second))
        done = (await graph.ainvoke(None, config, context=RolloutContext(policy, second)))["trajectory"]
    assert [cell.result.stdout for cell in done.cells] == ["2\n", "1\n"]
    assert [segment.source for segment in done.segments].count(Source.TOOL) == 2


async def test_a_picture_that_is_gone_ends_the_run_and_is_named(sandbox: Sandbox, problem: Problem) -> None:
    Path(problem.attachments[0]).rename(problem.attachments[0] + ".moved")  # noqa: ASYNC240
    with pytest.raises(ProblemError, match=r"map\.png cannot be read"):
        await rollout(problem, strategy="artist", policy=ScriptedPolicy([]), sessions=SessionBook(sandbox))
