"""A small model in this process: the embedded default, no server.

Concurrent calls share one batch that they join and leave between steps (`engine`); each has its own temperature, top-p, top-k,
seed, stop strings and limit, and can be cancelled. A call that continues an earlier one computes only what is new.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolreason.errors import CapabilityError, PolicyError, SettingsError, SetupError
from toolreason.policies.base import Completion, Message, TextSink
from toolreason.policies.text import TextStream, prompt_ids
from toolreason.policies.tokenizer import ChatTokenizer, as_list, load_tokenizer, quiet
from toolreason.types import Sampling, Segment

if TYPE_CHECKING:
    from toolreason.policies.engine import Engine, Stats

DTYPES = ("auto", "float32", "bfloat16", "float16")


class TransformersPolicy:
    """Use `await TransformersPolicy.load(...)`. Log-probabilities are those of the raw distribution.

    A token does not depend on what else is in the batch beyond rounding: matrix products of another shape round differently, so a
    repeated rollout may differ at a near-tie in bfloat16.
    """

    exact = True

    def __init__(self, engine: Engine, tokenizer: ChatTokenizer, *, name: str, context_length: int) -> None:
        self.name = name
        self.context_length = context_length
        self._engine = engine
        self._tokenizer = tokenizer
        self.thinks = tokenizer.thinks

    @classmethod
    async def load(
        cls,
        model: str,
        *,
        dtype: str = "auto",
        device: str | None = None,
        context_length: int | None = None,
        max_rows: int = 32,
        cache_tokens: int = 32_768,
        threads: int | None = None,
        trust_remote_code: bool = False,
    ) -> TransformersPolicy:
        """Load a model: a name of `toolreason models`, a directory, a `.gguf` file or a hub id.

        Only safetensors and GGUF are read, and no code of the model's is run unless `trust_remote_code`. `dtype` "auto" is
        bfloat16 where the device computes in it. `max_rows` rows run at once, the others wait; `cache_tokens` bounds the
        keys and values kept for continuations. Raises SetupError, SettingsError, CapabilityError.
        """
        if dtype not in DTYPES:
            raise SettingsError(f"dtype {dtype!r} is none of {', '.join(DTYPES)}")
        if max_rows < 1 or cache_tokens < 0:
            raise SettingsError("max_rows is at least 1, cache_tokens at least 0")
        path, gguf = await asyncio.to_thread(locate, model)
        engine, tokenizer, longest = await asyncio.to_thread(
            _load, path, gguf, dtype, device, trust_remote_code, max_rows, cache_tokens, threads
        )
        length = min(context_length or longest, longest)
        return cls(engine, tokenizer, name=f"transformers:{model}", context_length=length)

    @property
    def stats(self) -> Stats:
        """A copy of the engine's counters: requests, steps, tokens drawn, prefix hits, tokens reused, rows running."""
        return replace(self._engine.stats)

    def prompt(self, messages: Sequence[Message]) -> Segment:
        return self._tokenizer.prompt(messages)

    def encode(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        return self._tokenizer.encode(text, special=special)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(token_ids)

    async def sample(
        self,
        segments: Sequence[Segment],
        sampling: Sampling,
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        seed: int = 0,
        on_text: TextSink | None = None,
    ) -> Completion:
        """See `Policy.sample`. The pieces given to `on_text` join to the text, the end token's included."""
        from toolreason.policies.draw import Drawer
        from toolreason.policies.engine import Request

        ids = prompt_ids(segments)
        if not 0 <= min(ids) <= max(ids) < self._engine.vocabulary:
            raise PolicyError(f"the segments hold ids that {self.name} does not have: they come from another model")
        ends = self._tokenizer.end_ids
        stream = TextStream(
            self._tokenizer.decode, ids, end_ids=ends, stop=stop, max_tokens=max_tokens, context=self.context_length
        )
        if stream.finish is not None:
            return stream.completion()
        call = _Call(on_text)
        request = Request(ids, stream, Drawer(sampling, seed), emit=call.emit, done=call.done, fail=call.fail)
        self._engine.submit(request)
        try:
            return await call.future
        finally:
            if stream.finish is None:  # cancelled, or `on_text` raised
                request.cancelled = True
                self._engine.wake()

    async def aclose(self) -> None:
        """Fail what is in flight with PolicyError and wait for the thread."""
        await asyncio.to_thread(self._engine.close)


class _Call:
    """Carries what the engine's thread says to the event loop."""

    def __init__(self, on_text: TextSink | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_text = on_text
        self.future: asyncio.Future[Completion] = self._loop.create_future()

    def emit(self, piece: str) -> None:
        if self._on_text is not None:
            self._post(self._give, piece)

    def done(self, completion: Completion) -> None:
        self._post(self._settle, completion, None)

    def fail(self, error: Exception) -> None:
        self._post(self._settle, None, error)

    def _post(self, what: Any, *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(what, *args)

    def _give(self, piece: str) -> None:
        if self.future.done() or self._on_text is None:
            return
        try:
            self._on_text(piece)
        except Exception as error:  # the caller's own fault: it gets it back
            self.future.set_exception(error)

    def _settle(self, completion: Completion | None, error: Exception | None) -> None:
        if self.future.done():
            return
        if completion is not None:
            self.future.set_result(completion)
        else:
            self.future.set_exception(error or PolicyError("the engine failed"))


def locate(model: str) -> tuple[str, str | None]:
    """The directory or hub id of a model, and the GGUF file in it if that is what it is."""
    path = Path(model).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise SetupError(f"there is no file {path}")
        return str(path.parent), path.name
    if path.is_dir():
        ggufs = sorted(path.glob("*.gguf"))
        alone = ggufs and not list(path.glob("*.safetensors"))
        return str(path), ggufs[0].name if alone else None
    if "/" in model:
        return model, None
    from toolreason import models

    return str(models.path(model)), None


def _load(
    path: str, gguf: str | None, dtype: str, device: str | None, remote: bool, rows: int, cache: int, threads: int | None
) -> tuple[Engine, ChatTokenizer, int]:
    """Load model and tokenizer and start the engine (blocking)."""
    quiet()
    try:
        import torch
        from transformers import AutoModelForCausalLM, GgufConfig
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise SetupError(f"this policy needs torch and transformers ({error}): pip install 'toolreason[transformers]'") from error
    from toolreason.policies import attention
    from toolreason.policies.engine import Engine

    disable_progress_bar()  # type: ignore[no-untyped-call]  # the caller shows its own
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = getattr(torch, dtype) if dtype != "auto" else _best_dtype(where)
    extra: dict[str, Any] = {"gguf_file": gguf, "quantization_config": GgufConfig(dequantize=True)} if gguf else {}
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=kind, use_safetensors=True, trust_remote_code=remote, attn_implementation="sdpa", **extra
        )
    except (OSError, ValueError, ImportError) as error:
        raise SetupError(f"no model could be loaded from {path}: {error}") from error
    model.to(where).eval()
    config = model.config.get_text_config()
    _check_layers(path, config)
    attention.use(model)
    ends = as_list(model.generation_config.eos_token_id) or as_list(config.eos_token_id)
    tokenizer = load_tokenizer(path, ends=ends, trust_remote_code=remote, gguf_file=gguf)
    cores = threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    engine = Engine(model, max_rows=rows, cache_tokens=cache, threads=cores)
    return engine, tokenizer, int(config.max_position_embeddings)


def _best_dtype(device: str) -> Any:
    import torch

    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if device == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32


def _check_layers(path: str, config: Any) -> None:
    """Rows can only join a batch where each layer attends to keys and values."""
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds:
        raise CapabilityError(f"{path} has layers of kind {', '.join(sorted(kinds))}: serve it with vLLM and use vllm:URL")
