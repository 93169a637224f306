"""Pictures to a chat model: the blocks that it is given, what is kept of them, and who is given none."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from langchain_openai import ChatOpenAI

from tests import pictures
from tests.policies.test_chat import GREEDY, Recorder
from toolreason.errors import InputError, PolicyError
from toolreason.policies import ChatPolicy, ScriptedPolicy, open_policy
from toolreason.policies.turns import FIGURES
from toolreason.strategies import prompts
from toolreason.types import Cell, CellResult, Outcome, Problem, Segment, Source


def block(data: bytes, mime_type: str = "image/png") -> dict[str, str]:
    return {"type": "image", "base64": base64.b64encode(data).decode(), "mime_type": mime_type}


def text_block(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def seeing(prefix: Any = "user", vision: bool | None = True) -> tuple[ChatPolicy, Recorder]:
    model = Recorder(responses=["3"])
    return ChatPolicy(model, prefix, vision=vision), model


@pytest.fixture
def problem(tmp_path: Path) -> Problem:
    """A question with a picture, a table, and a picture of a kind that models are not sent."""
    table = tmp_path / "t.csv"
    table.write_text("a,b\n1,2\n")
    bitmap = tmp_path / "old.bmp"
    bitmap.write_bytes(pictures.encoded(pictures.shapes(), "BMP"))
    return Problem("p", "How many squares?", attachments=(pictures.save(tmp_path / "map.png"), str(table), str(bitmap)))


def content(problem: Problem) -> bytes:
    return Path(problem.attachments[0]).read_bytes()


def remove(problem: Problem) -> None:
    Path(problem.attachments[0]).unlink()


def figure_segment(*figures: bytes, text: str = "[a figure]") -> Segment:
    result = CellResult(Outcome.OK, text, figures=tuple(base64.b64encode(one).decode() for one in figures))
    return Segment(Source.TOOL, text, cell=Cell("c1", "show('map.png')", result))


async def sent(policy: ChatPolicy, model: Recorder, *segments: Segment) -> list[tuple[str, Any]]:
    await policy.sample(segments, GREEDY, max_tokens=3)
    return [(message.type, message.content) for message in model.seen[-1]]


async def test_a_model_that_sees_gets_the_text_first_and_then_the_pictures(problem: Problem) -> None:
    policy, model = seeing()
    messages = prompts.messages(problem, "plain", "Look closely.")
    system, user = await sent(policy, model, policy.prompt(messages))
    assert system == ("system", "Look closely.")
    assert user == ("human", [text_block(messages[1]["content"]), block(content(problem))])
    assert "- map.png: PNG picture, 60 x 40 pixels" in messages[1]["content"]
    assert "- t.csv: text, 8 bytes" in messages[1]["content"]
    assert "- old.bmp: BMP picture, 60 x 40 pixels" in messages[1]["content"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
async def test_the_block_names_what_the_picture_is_and_not_what_it_is_called(kind: str, tmp_path: Path) -> None:
    data = pictures.encoded(pictures.shapes(), kind)
    (tmp_path / "x.png").write_bytes(data)
    policy, model = seeing()
    ((_, content),) = await sent(
        policy, model, policy.prompt(prompts.messages(Problem("p", "?", attachments=(str(tmp_path / "x.png"),)), "plain", ""))
    )
    assert content[1:] == [block(data, f"image/{kind.lower()}")]


def test_the_prompt_keeps_path_and_hash_and_not_the_picture(problem: Problem) -> None:
    policy, _ = seeing()
    text = policy.prompt(prompts.messages(problem, "plain")).text
    (kept,) = json.loads(text)[1]["pictures"]
    data = content(problem)
    assert kept == {"path": problem.attachments[0], "sha256": sha256(data).hexdigest(), "mime_type": "image/png"}
    assert base64.b64encode(data).decode()[:40] not in text
    assert text == policy.prompt(prompts.messages(problem, "plain")).text


async def test_a_picture_that_has_changed_or_gone_is_not_shown_as_if_it_were_the_same(problem: Problem) -> None:
    policy, model = seeing()
    prompt = policy.prompt(prompts.messages(problem, "plain"))
    pictures.save(Path(problem.attachments[0]), pictures.shapes().rotate(90))
    with pytest.raises(InputError, match="has changed since this rollout began"):
        await sent(policy, model, prompt)
    remove(problem)
    with pytest.raises(InputError, match="cannot be read"):
        await sent(policy, model, prompt)
    assert model.seen == []


@pytest.mark.parametrize("given", [False, None])
async def test_a_model_that_does_not_see_reads_what_files_there_are(problem: Problem, given: bool | None) -> None:
    policy, model = seeing(vision=given)
    messages = prompts.messages(problem, "fenced")
    prompt = policy.prompt(messages)
    assert json.loads(prompt.text) == [{"role": one["role"], "content": one["content"]} for one in messages]
    figure = figure_segment(pictures.encoded(pictures.shapes()))
    _, user, _, result = await sent(policy, model, prompt, Segment(Source.MODEL, "Hm."), figure)
    assert user == ("human", messages[1]["content"])
    assert result == ("human", "[a figure]")


def test_exact_policies_read_the_same_text(problem: Problem) -> None:
    messages = prompts.messages(problem, "fenced")
    text = ScriptedPolicy([]).prompt(messages).text
    assert messages[1]["content"] in text
    assert problem.attachments[0] not in text


async def test_figures_of_results_are_shown_in_the_user_s_turns(problem: Problem) -> None:
    policy, model = seeing("user")
    one, two = pictures.encoded(pictures.shapes()), pictures.encoded(pictures.shapes().rotate(90))
    prompt = policy.prompt(prompts.messages(Problem("p", "?"), "plain", ""))
    turns = await sent(
        policy, model, prompt, Segment(Source.MODEL, "Look."), figure_segment(one, two), Segment(Source.MODEL, "I see.")
    )
    assert turns == [
        ("human", "?"),
        ("ai", "Look."),
        ("human", [text_block("[a figure]"), block(one), block(two)]),
        ("ai", "I see."),
    ]


async def test_where_the_assistant_s_message_goes_on_figures_interrupt_it() -> None:
    policy, model = seeing("assistant")
    png = pictures.encoded(pictures.shapes())
    prompt = policy.prompt(prompts.messages(Problem("p", "?"), "plain", ""))
    plain = Segment(Source.TOOL, " 4", cell=Cell("c0", "2+2", CellResult(Outcome.OK, value="4")))
    spoken = [
        Segment(Source.MODEL, "A"),
        plain,
        Segment(Source.MODEL, " b"),
        figure_segment(png, text=" c"),
        Segment(Source.MODEL, "D"),
    ]
    turns = await sent(policy, model, prompt, *spoken)
    assert turns == [("human", "?"), ("ai", "A 4 b c"), ("human", [text_block(FIGURES), block(png)]), ("ai", "D")]


async def test_what_was_shown_follows_from_the_trajectory_and_not_from_the_policy_that_reads_it() -> None:
    png = pictures.encoded(pictures.shapes())
    messages = prompts.messages(Problem("p", "?"), "plain", "")
    (sees, _), (blind, _) = seeing("user", True), seeing("user", False)
    for writer, shown in ((sees, True), (blind, False)):
        segments = [writer.prompt(messages), Segment(Source.MODEL, "Look."), figure_segment(png)]
        assert sees.messages(segments) == blind.messages(segments)
        assert isinstance(blind.messages(segments)[-1][1], list) is shown


def test_whether_a_model_sees_is_what_its_profile_says_unless_told() -> None:
    def policy(profile: Any, vision: bool | None = None) -> bool:
        return ChatPolicy(Recorder(responses=["x"], profile=profile), vision=vision).vision

    assert policy({"image_inputs": True})
    assert not policy({"image_inputs": False})
    assert not policy({})
    assert not policy(None)
    assert policy(None, True)
    assert not policy({"image_inputs": True}, False)


async def test_prompts_of_others_are_a_clear_error() -> None:
    policy, model = seeing()
    for text in ("hello", "[1]", '["x"]', '[{"role": "user"}]', "5"):
        with pytest.raises(PolicyError, match="not made by a chat policy"):
            await sent(policy, model, Segment(Source.PROMPT, text))


class Provider(BaseHTTPRequestHandler):
    """Enough of OpenAI's service to be sent a request and say one word."""

    bodies: list[dict[str, Any]]

    def do_POST(self) -> None:
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        choices = [{"index": 0, "delta": {"role": "assistant", "content": "Two."}, "finish_reason": None}]
        last = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
        lines = [f"data: {json.dumps({**chunk, 'choices': one})}\n\n" for one in (choices, last)]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.wfile.write(("".join(lines) + "data: [DONE]\n\n").encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def provider() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    bodies: list[dict[str, Any]] = []
    handler = type("Handler", (Provider,), {"bodies": bodies})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_a_real_provider_s_client_takes_the_blocks(problem: Problem, provider: tuple[str, list[dict[str, Any]]]) -> None:
    url, bodies = provider
    policy = ChatPolicy(ChatOpenAI(model="gpt-4o", base_url=url, api_key="none", max_retries=0), "user")
    assert policy.vision
    png = pictures.encoded(pictures.shapes().rotate(90))
    segments = [policy.prompt(prompts.messages(problem, "plain", "")), Segment(Source.MODEL, "Hm."), figure_segment(png)]
    completion = await policy.sample(segments, GREEDY, max_tokens=9)
    assert completion.text == "Two."
    first, _, last = bodies[0]["messages"]
    data = base64.b64encode(content(problem)).decode()
    assert [part["type"] for part in first["content"]] == ["text", "image_url"]
    assert first["content"][1]["image_url"]["url"] == f"data:image/png;base64,{data}"
    assert last["content"][1]["image_url"]["url"] == f"data:image/png;base64,{base64.b64encode(png).decode()}"


async def test_vision_is_an_option_of_a_spec() -> None:
    options = {"base_url": "http://127.0.0.1:1/v1", "api_key": "none"}
    for given, sees in (({}, True), ({"vision": False}, False)):
        policy = await open_policy("chat:openai:gpt-4o", **options, **given)
        assert isinstance(policy, ChatPolicy)
        assert policy.vision is sees
