"""The endpoint, asked by OpenAI's own client: chat completions, responses, completions, streams, refusals, clients that go."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from langchain.agents import create_agent
from langchain_openai import ChatOpenAI
from prometheus_client.parser import text_string_to_metric_families

from tests.serve.endpoint import ANSWER, Endpoint, endpoint
from toolreason import Trajectory, runs
from toolreason.types import Source, StopReason, from_json

ASK: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 6 times 7?"}]
SLOW: list[Any] = [{"role": "user", "content": "A slow one?"}]
TEXT = f"Let me compute.\n{ANSWER}"


@pytest.fixture(scope="module")
def served() -> Iterator[Endpoint]:
    with endpoint() as one:
        yield one


CLIENTS: dict[tuple[str, str, float], openai.OpenAI] = {}


@pytest.fixture(scope="module", autouse=True)
def closed() -> Iterator[None]:
    yield
    for one in CLIENTS.values():
        one.close()


def client(one: Endpoint, api_key: str = "none", timeout: float = 60) -> openai.OpenAI:
    """OpenAI's own client, one for each way to ask."""
    how = (one.url, api_key, timeout)
    if how not in CLIENTS:
        CLIENTS[how] = openai.OpenAI(base_url=f"{one.url}/v1", api_key=api_key, timeout=timeout, max_retries=0)
    return CLIENTS[how]


def until(true: Any, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_chat_completion(served: Endpoint) -> None:
    done = client(served).chat.completions.create(model="reasoner", messages=ASK, temperature=0.5, seed=7)
    choice = done.choices[0]
    assert (choice.message.content, choice.finish_reason) == (TEXT, "stop")
    parts = choice.message.toolreason["parts"]  # type: ignore[attr-defined]
    assert [part["type"] for part in parts] == ["text", "call", "result", "text"]
    assert (parts[1]["text"], parts[2]["text"], parts[2]["outcome"]) == ("print(6*7)\n", "42", "ok")
    kept = trajectory(served, done.id)
    assert kept.id == done.toolreason["trajectory_id"]  # type: ignore[attr-defined]
    assert done.usage is not None
    assert done.usage.total_tokens == len(kept.token_ids)
    assert done.usage.prompt_tokens == kept.tokens(Source.PROMPT)
    assert (kept.sampling.temperature, kept.sampling.seed) == (0.5, 7)
    assert "Be brief." in kept.segments[0].text


def trajectory(one: Endpoint, identity: str) -> Trajectory:
    return from_json(Trajectory, httpx.get(f"{one.url}/v1/trajectories/{identity}").text)


def test_what_came_before_is_in_the_prompt(served: Endpoint) -> None:
    said = [*ASK, {"role": "assistant", "content": "42"}, {"role": "user", "content": [{"type": "text", "text": "And 6 times 8?"}]}]
    prompt = trajectory(served, client(served).chat.completions.create(model="plain", messages=said).id).segments[0].text
    assert prompt.index("6 times 7") < prompt.index("42") < prompt.index("6 times 8")


async def test_a_stream_tells_text_code_and_results_apart(served: Endpoint) -> None:
    asking = openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none")
    stream = await asking.chat.completions.create(
        model="reasoner", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    text, own, last, usage = "", [], None, None
    async for chunk in stream:
        if not chunk.choices:
            usage = chunk.usage
            continue
        delta = chunk.choices[0].delta
        text += delta.content or ""
        own += [found] if (found := getattr(delta, "toolreason", None)) else []
        last = chunk if chunk.choices[0].finish_reason else last
    assert text == TEXT
    assert [part["type"] for part in own] == ["call", "result"]
    assert last is not None
    assert last.choices[0].finish_reason == "stop"
    kept = trajectory(served, last.toolreason["trajectory_id"])  # type: ignore[attr-defined]
    assert f"chatcmpl-{kept.id}" == last.id
    assert usage is not None
    assert usage.total_tokens == len(kept.token_ids)
    await asking.close()


def test_a_response(served: Endpoint) -> None:
    done = client(served).responses.create(model="reasoner", instructions="Be brief.", input="What is 6 times 7?")
    assert [one.type for one in done.output] == ["message", "code_interpreter_call", "message"]
    call: Any = done.output[1]
    assert (call.code, call.status, call.outputs[0].logs) == ("print(6*7)\n", "completed", "42")
    assert done.output_text == TEXT
    assert done.status == "completed"
    again = [{"role": "user", "content": "What is 6 times 7?"}, *(one.model_dump() for one in done.output)]
    follow: Any = [*again, {"role": "user", "content": "And what is 6 times 8?"}]
    kept = trajectory(served, client(served).responses.create(model="plain", input=follow).id)
    assert kept.segments[0].text.index("boxed{42}") < kept.segments[0].text.index("6 times 8")


def test_a_streamed_response_is_what_the_client_puts_together(served: Endpoint) -> None:
    with client(served).responses.stream(model="reasoner", input="What is 6 times 7?") as stream:
        kinds = [event.type for event in stream]
        done = stream.get_final_response()
    assert done.output_text == TEXT
    assert [one.type for one in done.output] == ["message", "code_interpreter_call", "message"]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    assert kinds.count("response.output_item.added") == kinds.count("response.output_item.done") == 3
    assert "response.code_interpreter_call_code.done" in kinds


def test_a_length_limit_is_told(served: Endpoint) -> None:
    done = client(served).chat.completions.create(model="plain", messages=ASK, max_tokens=3)
    assert done.choices[0].finish_reason == "length"
    response = client(served).responses.create(model="plain", input="?", max_output_tokens=3)
    assert response.incomplete_details is not None
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_models_and_raw_completions(served: Endpoint) -> None:
    assert [one.id for one in client(served).models.list()] == ["reasoner", "plain"]
    assert client(served).models.retrieve("plain").id == "plain"
    done = client(served).completions.create(model="plain", prompt="Two words", max_tokens=200, stop="boxed")
    assert (done.choices[0].text, done.choices[0].finish_reason) == ("So \\", "stop")
    assert done.usage is not None
    assert done.usage.prompt_tokens > 0


def test_settings_of_one_request(served: Endpoint) -> None:
    done = client(served).chat.completions.create(
        model="reasoner", messages=ASK, extra_body={"toolreason": {"settings": {"max_calls": 0}}}
    )
    kept = trajectory(served, done.id)
    assert kept.settings["max_calls"] == 0
    assert kept.settings["format"] == "fenced"
    assert kept.cells == ()


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"model": "gpt-9"}, openai.NotFoundError, "no model 'gpt-9' here; there are: reasoner, plain"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, openai.BadRequestError, "runs its own"),
        ({"messages": [{"role": "assistant", "content": "hm"}]}, openai.BadRequestError, "has to be the user's"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, openai.BadRequestError, "messages are by"),
        ({"messages": []}, openai.BadRequestError, "messages: "),
        ({"temperature": 9}, openai.BadRequestError, "temperature: "),
        ({"n": 3}, openai.BadRequestError, "n: "),
        ({"stop": ["x"]}, openai.BadRequestError, "`stop` is not offered"),
        ({"response_format": {"type": "json_object"}}, openai.BadRequestError, "only text is"),
        ({"extra_body": {"toolreason": {"settings": {"calls": 1}}}}, openai.BadRequestError, "no setting 'calls'"),
        ({"messages": [{"role": "user", "content": "a broken one"}]}, openai.APIStatusError, "the engine is down"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_done_is_an_error_with_its_reason(
    served: Endpoint, given: dict[str, Any], error: type[Exception], says: str, stream: bool
) -> None:
    with pytest.raises(openai.APIError, match=re.escape(says)) as caught:
        for _ in client(served).chat.completions.create(**{"model": "reasoner", "messages": ASK, "stream": stream, **given}):
            pass
    assert stream or isinstance(caught.value, error)


def test_bodies_that_are_no_request_are_refused(served: Endpoint) -> None:
    for body in (b"", b"{", b"[]", b"\xff\xfe", b'{"model": 1}', json.dumps({"model": "plain", "messages": [{}]}).encode()):
        answer = httpx.post(f"{served.url}/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert httpx.post(f"{served.url}/v1/responses", json={"model": "plain", "input": [7]}).status_code == 400
    assert httpx.post(f"{served.url}/v1/completions", json={"model": "plain", "prompt": ["a", "b"]}).status_code == 400
    assert httpx.get(f"{served.url}/v1/trajectories/none").status_code == 404
    large = httpx.post(f"{served.url}/v1/chat/completions", content=b" " * (9 << 20))
    assert (large.status_code, "error" in large.json()) == (413, True)


def test_a_client_that_goes_away_ends_its_rollout_and_its_session(served: Endpoint) -> None:
    before = served.policy.cancelled
    stream = client(served).chat.completions.create(model="reasoner", messages=SLOW, stream=True)
    next(iter(stream))
    stream.close()
    until(lambda: served.policy.cancelled == before + 1)
    with pytest.raises(openai.APITimeoutError):
        client(served, timeout=0.3).chat.completions.create(model="reasoner", messages=SLOW)
    until(lambda: served.policy.cancelled == before + 2)
    until(lambda: served.box.open == 0)
    assert served.desk.measures.registry.get_sample_value("toolreason_running") == 0


def test_a_client_that_goes_before_the_first_text_is_no_failure(served: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("uvicorn").addHandler(caplog.handler)
    before = served.policy.cancelled
    silent: list[Any] = [{"role": "user", "content": "A silent one?"}]
    with pytest.raises(openai.APITimeoutError):
        client(served, timeout=0.3).chat.completions.create(model="reasoner", messages=silent, stream=True)
    until(lambda: served.policy.cancelled == before + 1)
    until(lambda: served.desk.measures.registry.get_sample_value("toolreason_running") == 0)
    until(lambda: served.box.open == 0)
    logging.getLogger("uvicorn").removeHandler(caplog.handler)
    assert not [record for record in caplog.records if record.exc_info]


def test_a_full_queue_says_when_to_come_again() -> None:
    with endpoint(running=1, waiting=1) as one, ThreadPoolExecutor(4) as pool:
        asks = [pool.submit(lambda: client(one).chat.completions.create(model="plain", messages=SLOW)) for _ in range(2)]
        until(lambda: one.desk.measures.registry.get_sample_value("toolreason_waiting") == 1)
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError) as caught:
                client(one).chat.completions.create(model="plain", messages=ASK, stream=stream)
            assert int(caught.value.response.headers["retry-after"]) >= 1
        for ask in asks:
            ask.result()


def test_a_request_has_its_time_and_its_tokens() -> None:
    with endpoint(timeout_s=0.3, most_tokens=100) as one:
        with pytest.raises(openai.APIStatusError, match=r"longer than 0\.3 s") as caught:
            client(one).chat.completions.create(model="plain", messages=SLOW)
        assert caught.value.status_code == 504
        with pytest.raises(openai.BadRequestError, match="more than a request may have here: 100"):
            client(one).chat.completions.create(model="plain", messages=ASK, max_tokens=101)
        done = client(one).chat.completions.create(model="plain", messages=ASK)
        assert trajectory(one, done.id).settings["max_tokens"] == 100


def test_keys() -> None:
    keys = ("k" * 20, "l" * 20)
    with endpoint(keys=keys) as one:
        for key in keys:
            assert client(one, api_key=key).chat.completions.create(model="plain", messages=ASK).choices
        with pytest.raises(openai.AuthenticationError, match="a bearer token is needed"):
            client(one, api_key="m" * 20).models.list()
        assert httpx.get(f"{one.url}/health").json() == {"ok": True}
        assert httpx.get(f"{one.url}/metrics").status_code == 401


def test_without_a_key_no_web_page_gets_an_answer(served: Endpoint) -> None:
    answer = httpx.get(f"{served.url}/v1/models", headers={"Origin": "http://elsewhere.example"})
    assert answer.status_code == 403
    assert "programs on this machine" in answer.json()["error"]["message"]


def test_measures_are_prometheus(served: Endpoint) -> None:
    client(served).chat.completions.create(model="reasoner", messages=ASK)
    found = {family.name: family for family in text_string_to_metric_families(httpx.get(f"{served.url}/metrics").text)}
    ends = {sample.labels["end"]: sample.value for sample in found["toolreason_requests"].samples if sample.name.endswith("_total")}
    assert ends["answered"] >= 1
    assert {"toolreason_tokens", "toolreason_cells", "toolreason_request_seconds", "toolreason_first_token_seconds"} <= found.keys()


def test_an_agent_that_uses_us_as_its_model(served: Endpoint) -> None:
    model = ChatOpenAI(model="reasoner", base_url=f"{served.url}/v1", api_key="none")  # type: ignore[arg-type]
    done = create_agent(model, tools=[]).invoke({"messages": [("user", "What is 6 times 7?")]})
    assert done["messages"][-1].text == TEXT


async def test_many_at_once(served: Endpoint) -> None:
    asking = openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", timeout=60)
    done = await asyncio.gather(*(asking.chat.completions.create(model="reasoner", messages=ASK) for _ in range(60)))
    assert {one.choices[0].message.content for one in done} == {TEXT}
    assert len({one.id for one in done}) == 60
    await asking.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_finishes_what_is_under_way_and_keeps_it(tmp_path: Path, number: int) -> None:
    script = tmp_path / "s.json"
    script.write_text(json.dumps(["Hello there."] * 4))
    command = [sys.executable, "-m", "toolreason", "serve", "--policy", f"scripted:{script}", "--strategy", "plain"]
    env = {**os.environ, "TOOLREASON_API_KEYS": "k" * 20}
    command += ["--port", "0", "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stderr is not None
        url = ""
        while not url:
            line = process.stderr.readline()
            assert line, "it ended"
            url = (re.search(r"http://[\d.]+:\d+", line) or [""])[0]
        asking = openai.OpenAI(base_url=f"{url}/v1", api_key="k" * 20)
        done = asking.chat.completions.create(model="plain", messages=ASK)
        assert done.choices[0].message.content == "Hello there."
        asking.close()
        assert [httpx.get(f"{url}/view/{name}").status_code for name in ("", "main.js", "api/places")] == [200, 200, 401]
        shown = httpx.get(f"{url}/view/api/places", headers={"Authorization": f"Bearer {'k' * 20}"})
        assert shown.json()["runs"] == ["out/plain"]
        process.send_signal(number)
        assert process.wait(30) == 0
    kept = list(runs.read(tmp_path / "out" / "plain"))
    assert [(one.stop, f"chatcmpl-{one.id}") for one in kept] == [(StopReason.NO_ANSWER, done.id)]
