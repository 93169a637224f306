"""A server that weights are sent to, as TRL's client and our policy see it: what it is asked, and that what it kept is forgotten.

The server is a small one of ours that speaks the same protocol; no weight is sent here, which takes a GPU (docs/lab.md has a run).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from tests.train import tiny
from toolreason.errors import PolicyError, SettingsError, SetupError
from toolreason.policies.base import Finish
from toolreason.train.rl_vllm import check_server, check_trainer, server_policy
from toolreason.types import Sampling, Segment, Source

WORDS = tiny.FAMILY.tokenizer()
SAID = WORDS.encode("<python>print(1)</python> and more")


class Server(ThreadingHTTPServer):
    """`info`: what it says of itself (None: it has no development endpoints). `asked` are the bodies by path, in order."""

    def __init__(self, info: dict[str, Any] | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.info = info
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/server_info" and self.server.info is not None:
            self._json({"vllm_config": self.server.info})
        elif path == "/v1/models":
            self._json({"data": [{"id": "small", "root": "small", "max_model_len": 512}]})
        else:
            self._json({}, 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append((self.path, json.loads(body or b"{}")))
        if self.path == "/v1/completions":
            self._stream()
        else:
            self._json({"success": True})

    def _json(self, value: Any, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        for token in SAID:
            choice = {"token_ids": [token], "logprobs": {"token_logprobs": [-0.5]}, "text": "?", "finish_reason": None}
            self.wfile.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")


READY = {"model_config": {"logprobs_mode": "processed_logprobs"}, "weight_transfer_config": {"backend": "nccl"}}


@pytest.fixture
def serving() -> Iterator[Any]:
    """Starts servers that end with the test."""
    started: list[Server] = []

    def start(info: dict[str, Any] | None) -> Server:
        server = Server(info)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


async def test_a_rollout_goes_on_from_ids_stops_at_a_string_and_has_the_servers_log_probabilities(serving: Any) -> None:
    server = serving(READY)
    async with server_policy(server.url, WORDS, name="train:small") as policy:
        prompt = policy.prompt([{"role": "user", "content": "Q"}])
        hint = Segment(Source.HINT, "So: ", policy.encode("So: "))
        done = await policy.sample([prompt, hint], Sampling(1.0), max_tokens=64, stop=["</python>"], seed=3)
    assert policy.name == "train:small"
    assert done.finish is Finish.STOP
    assert done.token_ids == SAID[: len(done.token_ids)]
    assert done.text.startswith("<python>print(1)</python>")
    assert done.logprobs == (-0.5,) * len(done.token_ids)
    ((path, body),) = server.asked
    assert path == "/v1/completions"
    assert body["prompt"] == [*prompt.token_ids, *hint.token_ids]
    assert (body["temperature"], body["seed"], body["return_token_ids"]) == (1.0, 3, True)


def test_trl_has_the_server_forget_its_prefix_cache_after_it_sent_the_weights() -> None:
    """Nothing of ours has to: were it to stop, continuations would rest on keys of older weights."""
    from trl.generation.vllm_generation import VLLMGeneration

    done: list[str] = []
    client = SimpleNamespace(
        update_named_params=lambda metadata, params: done.append("weights"), reset_prefix_cache=lambda: done.append("forget")
    )
    generation = VLLMGeneration.__new__(VLLMGeneration)
    generation.mode, generation._weight_metadata, generation.vllm_client = "server", [], client
    generation.accelerator = SimpleNamespace(is_main_process=True)
    generation._iter_named_params = lambda: iter(())
    generation.sync_weights()
    assert done == ["weights", "forget"]


def test_weights_are_sent_before_the_rollouts_of_a_step_and_once(tmp_path: Any) -> None:
    from tests.train import agents

    trainer = agents.trainer(tmp_path, agents.Told(lambda text, place: f"<answer>{place}</answer>"), agents.plan())
    done: list[str] = []
    rollouts = trainer.rollout_func
    trainer.rollout_func = lambda prompts, one: (done.append("rollouts"), rollouts(prompts, one))[1]
    trainer.vllm_generation = SimpleNamespace(sync_weights=lambda: done.append("weights"))
    trainer.args.use_vllm, trainer._last_loaded_step = True, -1
    trainer.model.train()
    for _ in range(2):
        trainer._generate(["p0", "p0"])
    assert done == ["weights", "rollouts", "rollouts"]


def test_a_server_that_is_ready_says_so(serving: Any) -> None:
    assert check_server(serving(READY).url, temperature=0.7) == READY
    raw = {**READY, "model_config": {"logprobs_mode": "raw_logprobs"}}
    assert check_server(serving(raw).url, temperature=1.0) == raw  # at temperature 1 they are the same


@pytest.mark.parametrize(
    ("info", "error", "message"),
    [
        (None, SetupError, "no development endpoints.* VLLM_SERVER_DEV_MODE=1 vllm serve"),
        ({**READY, "weight_transfer_config": None}, SetupError, "cannot be sent weights.*--weight-transfer-config"),
        ({**READY, "model_config": {"logprobs_mode": "raw_logprobs"}}, SettingsError, "not those of temperature 0.7"),
    ],
)
def test_a_server_that_cannot_be_trained_with_is_named_before_anything_is_loaded(
    serving: Any, info: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check_server(serving(info).url, temperature=0.7)


def test_a_trainer_that_cannot_send_weights_is_named_with_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(name="vllm")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    with pytest.raises(SetupError, match=r"this trains on cpu\. Leave `vllm` out"):
        check_trainer("cpu")
    check_trainer("cuda")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"pip install 'toolreason\[vllm\]'"):
        check_trainer("cuda")


def test_no_server_is_named_with_the_command_that_starts_one(serving: Any) -> None:
    server = serving(READY)
    server.shutdown()
    server.server_close()
    with pytest.raises(PolicyError, match=r"no vLLM server answers at .* vllm serve MODEL"):
        check_server(server.url, temperature=1.0)
