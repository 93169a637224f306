"""A real vLLM server passes the conformance suite: one that this module starts on the CPU, or that of TOOLREASON_VLLM_URL."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.exactness import Recorder, check
from tests.policies.conformance import GREEDY, HOT, QUESTION, ExactPolicy, draw
from toolreason.errors import PolicyError, SettingsError
from toolreason.execution import SessionBook, open_sandbox
from toolreason.policies import ChatPolicy, Finish, VllmPolicy, open_policy
from toolreason.policies.tokenizer import ChatTokenizer, load_tokenizer
from toolreason.rollouts import rollout
from toolreason.strategies.artist import ArtistSettings
from toolreason.strategies.base import Settings
from toolreason.strategies.hint_infer import HintInferSettings
from toolreason.strategies.plain import PlainSettings
from toolreason.train.rl_vllm import check_server
from toolreason.types import Problem, Sampling, Segment, Source, StopReason

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(420)]  # the first test waits for the server

ROOT = Path(__file__).parents[2]
START_S = 300
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "OMP_WAIT_POLICY": "passive",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_SERVER_DEV_MODE": "1",
    "TORCHDYNAMO_DISABLE": "1",  # else its sampler is compiled at the first request, which takes a C++ compiler and a minute
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[str]:
    if url := os.environ.get("TOOLREASON_VLLM_URL"):
        yield url
        return
    python = ROOT / ".venv-vllm/bin/python"
    if not python.exists():
        pytest.fail("there is no vLLM: run `make vllm`, or set TOOLREASON_VLLM_URL to a server")
    model = request.getfixturevalue("small_model")
    port, log = free_port(), tmp_path_factory.mktemp("vllm") / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                *(python, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--served-model-name", "small"),
                *("--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--max-model-len", "2048"),
                *("--max-num-seqs", "8", "--enforce-eager", "--weight-transfer-config", '{"backend": "nccl"}'),
            ],
            env={**os.environ, **QUIET},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        end(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    pytest.fail(f"vLLM did not start: {log.read_text(errors='replace')[-3000:]}")


def end(process: subprocess.Popen[bytes]) -> None:
    """The server and all processes that it started, whatever state they are in."""
    for kind, patience in ((signal.SIGTERM, 15), (signal.SIGKILL, 15)):
        try:
            os.killpg(process.pid, kind)
            process.wait(patience)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


@pytest.fixture(scope="module")
def tokenizer(server: str) -> ChatTokenizer:
    return load_tokenizer(httpx.get(f"{server}/v1/models", timeout=30).json()["data"][0]["root"])


@pytest.fixture
async def policy(server: str, tokenizer: ChatTokenizer) -> AsyncIterator[VllmPolicy]:
    policy = await VllmPolicy.connect(server, tokenizer=tokenizer)
    yield policy
    await policy.aclose()


class TestConformance(ExactPolicy):
    tie = 0.3  # a server that we did not start computes in bfloat16


async def test_the_server_s_tokenizer_is_found_from_what_it_says_of_itself(server: str) -> None:
    policy = await open_policy(f"vllm:{server}/v1")
    assert policy.decode(policy.prompt(QUESTION).token_ids).endswith("assistant\n")
    assert policy.context_length >= 2048
    await policy.aclose()


async def test_log_probabilities_are_those_before_temperature(policy: VllmPolicy) -> None:
    """The first token's, greedy, against the same token's where it was drawn at another temperature."""
    greedy = await draw(policy, 1)
    drawn = [await draw(policy, 1, HOT, seed=seed) for seed in range(12)]
    same = [c.logprobs for c in drawn if c.token_ids == greedy.token_ids]
    assert same
    assert all(logprobs == pytest.approx(greedy.logprobs, abs=0.05) for logprobs in same)


async def test_a_cancelled_call_frees_its_place_in_the_server(policy: VllmPolicy, server: str) -> None:
    import asyncio

    started = asyncio.Event()
    before = await metric(server, "generation_tokens_total")
    task = asyncio.create_task(draw(policy, 1900, HOT, seed=2, on_text=lambda piece: started.set()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while await metric(server, "num_requests_running"):  # noqa: ASYNC110 (bounded by the test's own limit)
        await asyncio.sleep(0.05)
    assert await metric(server, "generation_tokens_total") - before < 1900  # it did not run to its end
    assert all(server.busy == 0 for server in policy.servers.all)


async def metric(server: str, name: str) -> float:
    """A counter of the server's own."""
    async with httpx.AsyncClient() as client:
        lines = (await client.get(f"{server}/metrics", timeout=30)).text.splitlines()
    values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"vllm:{name}{{")]
    assert values, name
    return sum(values)


@pytest.mark.docker
async def test_the_server_computes_no_token_twice_where_a_hint_continues_a_rollout(policy: VllmPolicy, server: str) -> None:
    """The server's own counters: what it found in its prefix cache is all but what is new (and a block's rest for each call)."""
    block = 64  # tokens, at most: a cache keeps whole blocks
    recorder = Recorder(policy)
    before = [await metric(server, f"prefix_cache_{what}_total") for what in ("queries", "hits")]
    async with open_sandbox("docker", pool=1) as sandbox:
        settings = HintInferSettings(hint="end", rounds=4, max_tokens=900, min_prefix_tokens=0, max_calls=2)
        problem = Problem("cached", "Think of the number 31337 and tell me what its square is.")
        done = await rollout(problem, strategy="hint_infer", policy=recorder, sessions=SessionBook(sandbox), settings=settings)
    queries, hits = [
        await metric(server, f"prefix_cache_{what}_total") - then for what, then in zip(("queries", "hits"), before, strict=True)
    ]
    asked = sum(len(given) for given, _ in recorder.exchanges)
    new = done.tokens(Source.PROMPT, Source.HINT, Source.TOOL)
    assert len(recorder.exchanges) >= 4
    assert queries == asked
    assert queries - hits <= new + block * len(recorder.exchanges)
    assert hits > 0.5 * queries
    check(recorder, done)


async def test_certainties_are_a_lower_bound_of_those_over_all_tokens(policy: VllmPolicy) -> None:
    few = await draw(policy, 8, Sampling(top_logprobs=1))
    many = await draw(policy, 8, Sampling(top_logprobs=20))
    assert few.token_ids == many.token_ids
    assert few.certainties is not None
    assert many.certainties is not None
    assert len(many.certainties) == len(many.token_ids)
    assert all(0 < a <= b + 1e-3 for a, b in zip(few.certainties, many.certainties, strict=True))
    assert (await draw(policy, 8)).certainties is None


@pytest.mark.docker
@pytest.mark.parametrize(
    ("strategy", "settings"),
    [
        ("plain", PlainSettings(max_tokens=40)),
        ("artist", ArtistSettings(format="fenced", stateful=True, max_tokens=100, max_calls=2)),
        ("hint_infer", HintInferSettings(max_tokens=120, max_calls=2)),
        ("hint_infer", HintInferSettings(hint="end", max_tokens=200, max_calls=2)),
        ("hint_infer", HintInferSettings(hint="random", rounds=3, max_tokens=400, min_prefix_tokens=0, max_calls=2)),
    ],
)
async def test_every_token_of_a_rollout_is_what_the_server_was_given_and_gave_back(
    policy: VllmPolicy, strategy: str, settings: Settings
) -> None:
    recorder = Recorder(policy)
    async with open_sandbox("docker", pool=1) as sandbox:
        sessions = SessionBook(sandbox)
        problem = Problem("power", "What is 2 ** 10?")
        done = await rollout(problem, strategy=strategy, policy=recorder, sessions=sessions, settings=settings)
    assert done.error is None
    assert done.stop is not StopReason.ABORTED
    check(recorder, done)


async def test_what_the_server_refuses_is_an_error_that_quotes_it(policy: VllmPolicy, server: str) -> None:
    with pytest.raises(PolicyError, match="out of vocabulary"):
        await policy.sample([Segment(Source.PROMPT, "x", (10**6,))], GREEDY, max_tokens=1)
    with pytest.raises(SettingsError, match="does not serve nothing-like-it"):
        await VllmPolicy.connect(server, model="nothing-like-it")


async def test_the_same_server_works_as_a_chat_model(policy: VllmPolicy, server: str) -> None:
    from langchain_openai import ChatOpenAI

    name = policy._model
    model = ChatOpenAI(model=name, base_url=f"{server}/v1", api_key="none", temperature=0, max_retries=0)
    chat = ChatPolicy(model)
    pieces: list[str] = []
    completion = await chat.sample([chat.prompt(QUESTION)], GREEDY, max_tokens=12, on_text=pieces.append)
    assert completion.text
    assert "".join(pieces) == completion.text
    assert (completion.token_ids, completion.finish) == ((), Finish.LENGTH)
    first = completion.text.split()[1]
    stopped = await chat.sample([chat.prompt(QUESTION)], GREEDY, max_tokens=12, stop=[first])
    assert (stopped.finish, stopped.stop) == (Finish.STOP, first)
    assert stopped.text.endswith(first)
    await model.root_async_client.close()


@pytest.mark.skipif("TOOLREASON_VLLM_URL" in os.environ, reason="a server that was started otherwise")
def test_training_finds_what_it_asks_a_server_for(server: str) -> None:
    assert check_server(server, temperature=1.0)["weight_transfer_config"]["backend"] == "nccl"
    with pytest.raises(SettingsError, match=r"gives raw_logprobs, which are not those of temperature 0\.7"):
        check_server(server, temperature=0.7)
