"""How long do tools hold up a step of RL? Our adapter beside TRL's own `tools=` loop, on the same work, in one run.

    python benchmarks/rollout.py [--rollouts 16] [--tool-ms 100] [--sandbox none] [--quick] [--json]

Each rollout is one tool call that takes `--tool-ms`, and an answer. Both trainers are TRL's `GRPOTrainer` over the same tiny model;
what the model says is written down (a tool call, then an answer that repeats what the tool gave), so that no time is the model's.
Measured is the rollout part of a step, `_generate`: with `tools=` TRL's own loop, which runs the calls of one rollout after
another's; with `rollout_func` our adapter, graph and all. The rewards (is the answer what the tool gave?) are the same: asserted.

The tool sleeps: as a Python function in TRL, as a cell of the sandbox in ours (`none`: one that only sleeps; `local`, `docker`,
`shared`: a real one). The best of `--repeats` counts. `--json` prints one JSON object as its last line, with
`speedup_over_trl_native_tools`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

from toolreason.execution import ScriptedSandbox, SessionBook, open_sandbox
from toolreason.policies.base import Completion, Message
from toolreason.policies.scripted import ScriptedPolicy
from toolreason.policies.tokenizer import ChatTokenizer
from toolreason.train.rl_settings import Plan, Way
from toolreason.train.rl_step import Crew
from toolreason.types import Judgement, Problem, Sampling, Segment, Trajectory, Verdict

GIVEN = "42"
GROUP = 4


def tokenizer() -> Any:
    """Bytes, and Qwen2.5's chat template as TRL knows it: its tool calls are parsed by that."""
    import trl
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {letter: at for at, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(models.BPE(vocab=letters, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(name, special=True) for name in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    inner.add_tokens([AddedToken(name, special=False, normalized=False) for name in ("<tool_call>", "</tool_call>")])
    template = (Path(trl.__file__).parent / "chat_templates/qwen2_5.jinja").read_text(encoding="utf-8")
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=template
    )


def model(words: Any) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        eos_token_id=words.eos_token_id,
    )
    return Qwen2ForCausalLM(config)


def arguments(folder: str, rollouts: int) -> Any:
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=rollouts,
        num_generations=GROUP,
        max_completion_length=4096,
        use_cpu=True,
        bf16=False,
        report_to=[],
        save_strategy="no",
        gradient_checkpointing=False,
    )


def timed(trainer: Any, rows: Sequence[dict[str, Any]]) -> tuple[float, list[float]]:
    """Seconds of the rollouts of one step, and its rewards."""
    spent: list[float] = []
    inner = trainer._generate

    def generate(prompts: Any) -> Any:
        started = time.perf_counter()
        try:
            return inner(prompts)
        finally:
            spent.append(time.perf_counter() - started)

    trainer._generate = generate
    trainer.model.train()
    try:
        trainer._generate_and_score_completions([dict(row) for row in rows])
    finally:
        trainer._generate = inner
    (rewards,) = (list(values)[-len(rows) :] for values in trainer._logs["rewards"].values())
    return spent[0], rewards


def native(folder: str, words: Any, rollouts: int, pause_s: float) -> Any:
    """TRL's own loop, told what the model says."""
    from datasets import Dataset
    from trl import GRPOTrainer

    def run(code: str) -> str:
        """Runs Python code.

        Args:
            code: The code.
        """
        time.sleep(pause_s)
        return GIVEN

    call = '<tool_call>\n{"name": "run", "arguments": {"code": "print(6 * 7)"}}\n</tool_call><|im_end|>'

    class Told(GRPOTrainer):
        def _generate_single_turn(self, prompt_ids: Any, *_: Any, **__: Any) -> Any:
            texts = [f"It is {GIVEN}<|im_end|>" if "<tool_response>" in words.decode(ids) else call for ids in prompt_ids]
            ids = [words.encode(text, add_special_tokens=False) for text in texts]
            return ids, [[-1.0] * len(one) for one in ids]

    def accuracy(completions: Any, **_: Any) -> list[float]:
        return [float(f"It is {GIVEN}" in str(one[-1].get("content"))) for one in completions]

    rows = [{"prompt": [{"role": "user", "content": f"What is 6 * 7? ({n})"}]} for n in range(rollouts // GROUP)]
    trainer = Told(
        model=model(words),
        processing_class=words,
        reward_funcs=accuracy,
        args=arguments(folder, rollouts),
        train_dataset=Dataset.from_list(rows),
        tools=[run],
    )
    return trainer, [row for row in rows for _ in range(GROUP)]


class Told(ScriptedPolicy):
    """Says the same, in ARTIST's tags."""

    def __init__(self, words: Any) -> None:
        super().__init__(())
        inner = ChatTokenizer(words)
        inner.end_id = int(words.eos_token_id)  # type: ignore[attr-defined]
        self.tokenizer = inner  # type: ignore[assignment]

    def prompt(self, messages: Sequence[Message]) -> Segment:
        chat: ChatTokenizer = self.tokenizer  # type: ignore[assignment]
        return chat.prompt(messages)

    async def sample(self, segments: Sequence[Segment], sampling: Sampling, **options: Any) -> Completion:
        ran = any(segment.cell for segment in segments)
        alone = ScriptedPolicy([f"<answer>It is {GIVEN}</answer>" if ran else "<python>print(6 * 7)</python>"])
        alone.tokenizer = self.tokenizer
        return await alone.sample(segments, sampling, **options)


async def judge(problem: Problem, trajectory: Trajectory) -> Verdict:
    right = f"It is {GIVEN}" in trajectory.segments[-1].text and trajectory.cells[0].result.stdout.strip() == GIVEN
    return Verdict(Judgement.CORRECT if right else Judgement.WRONG)


def ours(folder: str, words: Any, rollouts: int, sessions: SessionBook) -> Any:
    """Our adapter over `artist`."""
    from datasets import Dataset

    from toolreason.train.grpo import AgenticTrainer
    from toolreason.train.rollouts import Rollouts, prompts, reward_functions

    plan = Plan(Way.of("artist", ("max_tokens=4096",)), {"accuracy": 1.0}, Sampling(1.0), concurrency=rollouts)
    problems = [Problem(f"p{n}", f"What is 6 * 7? ({n})") for n in range(rollouts // GROUP)]
    policy = Told(words)

    @asynccontextmanager
    async def policy_of(trainer: Any) -> AsyncIterator[Any]:
        yield policy

    trainer = AgenticTrainer(
        model=model(words),
        processing_class=words,
        reward_funcs=reward_functions(plan.weights),
        args=arguments(folder, rollouts),
        train_dataset=Dataset.from_list(prompts(problems)),
        rollouts=Rollouts({one.id: one for one in problems}, policy_of, {"train": Crew(plan, judge, sessions)}),
    )
    return trainer, [row for row in prompts(problems) for _ in range(GROUP)]


class Sleeping:
    """A sandbox whose cells first sleep, whatever is in them."""

    def __init__(self, inner: Any, pause_s: float) -> None:
        self._inner, self._before = inner, f"import time; time.sleep({pause_s})\n"

    async def run(self, key: str, call_id: str, code: str, **options: Any) -> Any:
        return await self._inner.run(key, call_id, self._before + code, **options)

    async def release(self, key: str) -> None:
        await self._inner.release(key)


async def _sleep(pause_s: float) -> str:
    await asyncio.sleep(pause_s)
    return GIVEN


async def sandboxed(stack: AsyncExitStack, name: str, rollouts: int, pause_s: float) -> Any:
    if name == "none":
        return SessionBook(ScriptedSandbox(lambda code: _sleep(pause_s)))
    density = {"density": "shared"} if name == "shared" else {}
    box = await stack.enter_async_context(
        open_sandbox("docker" if name == "shared" else name, max_sessions=rollouts + 2, **density)
    )
    return Sleeping(SessionBook(box), pause_s)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    from toolreason.adapters.background import background

    pause_s, loop, stack = options.tool_ms / 1000, background(), AsyncExitStack()
    words = tokenizer()
    with tempfile.TemporaryDirectory() as folder:
        try:
            sessions = loop.run(sandboxed(stack, options.sandbox, options.rollouts, pause_s))
            sides = {
                "native": native(folder, words, options.rollouts, pause_s),
                "ours": ours(folder, words, options.rollouts, sessions),
            }
            times: dict[str, list[float]] = {name: [] for name in sides}
            rewards: dict[str, list[float]] = {}
            for _ in range(options.repeats):  # in turns: what else the machine does strikes both
                for name, (trainer, rows) in sides.items():
                    seconds, rewards[name] = timed(trainer, rows)
                    times[name].append(seconds)
                assert rewards["native"] == rewards["ours"] == [1.0] * options.rollouts, rewards
        finally:
            loop.run(stack.aclose())
    best = {name: min(seconds) for name, seconds in times.items()}
    return {
        "rollouts": options.rollouts,
        "tool_ms": options.tool_ms,
        "sandbox": options.sandbox,
        "repeats": options.repeats,
        "native_s": round(best["native"], 3),
        "ours_s": round(best["ours"], 3),
        "same_rewards": True,
        "mean_reward": 1.0,
        "speedup_over_trl_native_tools": round(best["native"] / best["ours"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=16, help=f"a multiple of {GROUP}")
    parser.add_argument("--tool-ms", type=int, default=100)
    parser.add_argument("--sandbox", choices=["none", "local", "docker", "shared"], default="none")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two repeats")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    if options.rollouts < GROUP or options.rollouts % GROUP:
        sys.exit(f"--rollouts is a multiple of {GROUP}")
    if options.quick:
        options.repeats = 2
    warnings.simplefilter("ignore")
    logging.getLogger("trl").setLevel(logging.ERROR)
    result = measure(options)
    for name, value in result.items():
        print(f"{name:32} {value}")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
