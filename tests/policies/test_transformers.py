"""A real small model in process passes the conformance suite, and its batch behaves."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.policies.conformance import GREEDY, HOT, QUESTION, ExactPolicy, draw
from toolreason.errors import CapabilityError, PolicyError, SettingsError, SetupError
from toolreason.policies import Finish, TransformersPolicy, open_policy
from toolreason.policies.tokenizer import load_tokenizer
from toolreason.types import Segment, Source

pytestmark = pytest.mark.model

LOADED: dict[str, TransformersPolicy] = {}


@pytest.fixture(scope="module")
def _closed() -> object:
    """Closes what the module loaded: one load for all tests, as the engine belongs to no event loop."""
    yield
    for policy in LOADED.values():
        asyncio.run(policy.aclose())
    LOADED.clear()


@pytest.fixture
async def policy(small_model: Path, _closed: object) -> TransformersPolicy:
    if "it" not in LOADED:  # float32: greedy draws do not depend on the shape of the batch
        LOADED["it"] = await TransformersPolicy.load(str(small_model), dtype="float32", context_length=500)
    return LOADED["it"]


class TestConformance(ExactPolicy):
    tie = 1e-3


async def test_log_probabilities_are_those_of_a_plain_forward_pass(policy: TransformersPolicy) -> None:
    import torch

    prompt = policy.prompt(QUESTION)
    completion = await policy.sample([prompt], replace(HOT, top_logprobs=1), max_tokens=12, seed=5)
    ids = torch.tensor([[*prompt.token_ids, *completion.token_ids]])
    with torch.inference_mode():
        logits = policy._engine._model(input_ids=ids).logits[0, len(prompt.token_ids) - 1 : -1]
    logprobs = torch.log_softmax(logits.float(), -1)
    expected = logprobs.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
    assert completion.logprobs == pytest.approx(expected.tolist(), abs=1e-3)
    even = torch.full_like(logprobs, 1 / logprobs.shape[-1])
    divergence = torch.nn.functional.kl_div(logprobs, even, reduction="none").sum(-1)
    assert completion.certainties == pytest.approx(divergence.tolist(), rel=1e-3)


async def test_a_continuation_computes_only_what_is_new_and_draws_the_same(policy: TransformersPolicy) -> None:
    segments = [policy.prompt([{"role": "user", "content": "Name the planets, nearest first."}])]
    segments.append((await policy.sample(segments, GREEDY, max_tokens=16)).segment())
    ids = policy.encode("\nWait, ")
    segments.append(Segment(Source.HINT, policy.decode(ids), ids))
    before = policy.stats
    warm = await policy.sample(segments, GREEDY, max_tokens=8)
    after = policy.stats
    assert after.prefix_hits - before.prefix_hits == 1
    assert after.tokens_computed - before.tokens_computed == len(ids) + 1  # the last drawn token had not been computed
    policy._engine._prefixes.clear()
    cold = await policy.sample(segments, GREEDY, max_tokens=8)
    assert warm.token_ids == cold.token_ids


async def test_calls_share_one_batch_and_those_that_join_late_draw_what_they_would_alone(policy: TransformersPolicy) -> None:
    long = [policy.prompt([{"role": "user", "content": "Tell a story. " * 20}])]
    joined = asyncio.Event()
    first = asyncio.create_task(policy.sample(long, GREEDY, max_tokens=30, on_text=lambda piece: joined.set()))
    await joined.wait()
    steps = policy.stats.steps
    late = await asyncio.gather(*(draw(policy, 6 + n) for n in range(3)))
    alone = await first
    assert policy.stats.steps - steps <= 30 + 8 + 3
    again = await policy.sample(long, GREEDY, max_tokens=30)
    assert alone.token_ids == again.token_ids
    assert [len(completion.token_ids) for completion in late] == [6, 7, 8]
    assert all(late[2].token_ids[: len(c.token_ids)] == c.token_ids for c in late)


async def test_a_cancelled_call_leaves_the_batch(policy: TransformersPolicy) -> None:
    started, before = asyncio.Event(), policy.stats.drawn
    task = asyncio.create_task(draw(policy, 400, HOT, seed=1, on_text=lambda piece: started.set()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await draw(policy, 2)
    await draw(policy, 1)  # by now the loop has turned since the call was cancelled
    assert policy.stats.drawn - before < 400
    assert policy.stats.running <= 1


async def test_ids_of_another_model_are_refused_and_harm_nobody(policy: TransformersPolicy) -> None:
    with pytest.raises(PolicyError, match="another model"):
        await policy.sample([Segment(Source.PROMPT, "x", (10**6,))], GREEDY, max_tokens=1)
    with pytest.raises(PolicyError, match="nothing to continue"):
        await policy.sample([], GREEDY, max_tokens=1)
    assert (await draw(policy, 2)).finish is Finish.LENGTH


async def test_a_sink_that_raises_ends_its_own_call_only(policy: TransformersPolicy) -> None:
    def sink(piece: str) -> None:
        raise KeyError("mine")

    broken, fine = await asyncio.gather(draw(policy, 20, on_text=sink), draw(policy, 20), return_exceptions=True)
    assert isinstance(broken, KeyError)
    assert not isinstance(fine, BaseException)


async def test_a_dead_engine_fails_every_waiting_call_and_later_ones(small_model: Path) -> None:
    policy = await TransformersPolicy.load(str(small_model), max_rows=1)
    calls = [asyncio.create_task(draw(policy, 2000, HOT, seed=n)) for n in range(3)]
    await asyncio.sleep(0)
    policy._engine._model.forward = None  # what a broken device looks like from here
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, PolicyError) for result in results)
    with pytest.raises(PolicyError, match="the engine has stopped"):
        await draw(policy)
    await policy.aclose()
    await policy.aclose()
    assert not policy._engine._thread.is_alive()


async def test_closing_fails_what_is_in_flight(small_model: Path) -> None:
    policy = await open_policy(f"transformers:{small_model}", max_rows=2)
    calls = [asyncio.create_task(draw(policy, 4000, HOT, seed=n)) for n in range(3)]
    await asyncio.sleep(0)
    await policy.aclose()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, PolicyError) for result in results)


async def test_a_model_that_is_not_there_names_the_fix(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no model is named 'gpt-9'"):
        await TransformersPolicy.load("gpt-9")
    with pytest.raises(SetupError, match="no model could be loaded"):
        await TransformersPolicy.load(str(tmp_path))
    with pytest.raises(SettingsError, match="dtype"):
        await TransformersPolicy.load("smollm2-135m-instruct", dtype="int3")


def test_pickled_weights_are_not_read(small_model: Path, tmp_path: Path) -> None:
    import torch

    for file in small_model.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).symlink_to(file)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(SetupError, match="safetensors"):
        asyncio.run(TransformersPolicy.load(str(tmp_path)))


async def test_a_model_without_a_chat_template_says_so(small_model: Path) -> None:
    tokenizer = load_tokenizer(str(small_model))
    tokenizer._tokenizer.chat_template = None
    with pytest.raises(CapabilityError, match="no chat template"):
        tokenizer.prompt(QUESTION)


def test_code_that_comes_with_a_model_is_not_run_unless_asked_for(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in small_model.iterdir():
        if file.name != "config.json":
            (tmp_path / file.name).symlink_to(file)
    config = json.loads((small_model / "config.json").read_text())
    code = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.Tokenizer", None]}
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "evil", "auto_map": code}))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(SetupError, match="could be loaded"):
        asyncio.run(TransformersPolicy.load(str(tmp_path)))
    load_tokenizer(str(tmp_path))
    assert not (tmp_path / "ran").exists()
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(AttributeError, match="Config"):
        asyncio.run(TransformersPolicy.load(str(tmp_path), trust_remote_code=True))
    assert (tmp_path / "ran").exists()


def test_telemetry_is_off_before_the_libraries_that_have_it_are_loaded() -> None:
    code = """
import sys
from toolreason.policies.tokenizer import quiet
quiet()
assert not {"huggingface_hub", "transformers", "datasets"} & set(sys.modules)
import huggingface_hub.constants as constants
print(constants.HF_HUB_DISABLE_TELEMETRY)
"""
    names = ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "DISABLE_TELEMETRY")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "True\n"
