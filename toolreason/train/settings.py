"""What supervised fine-tuning can be told. The paper gives no numbers: all of them are ours."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from toolreason.errors import SettingsError
from toolreason.strategies.base import at_least
from toolreason.types import coerce_tuples

HINTED = ("format=fenced", "stateful=true", "offered=false")  # how hint_infer asks and calls, and what state it counts on


@dataclass(frozen=True, slots=True)
class SftSettings:
    """How a model is fine-tuned on rows.

    epochs, steps            how often the rows are seen; `steps` updates instead, if given
    learning_rate            None: 1e-5, with LoRA 1e-4; after `warmup` (a share of the steps) along `schedule`
    batch_size, accumulate   rows (with packing: packed sequences) at a time in each process; so many such batches make an update
    max_length               the most tokens of a row, prompt included (None: what the model takes); longer ones are dropped or,
                             with `long="truncate"`, cut at their end
    packing                  rows share sequences of `max_length` tokens (None: of the longest row's), without seeing each other
    held_out                 the share of the problems whose rows are not trained on, to measure the loss with
    lora                     the rank of the adapter (0: all weights are trained), on `lora_targets` (none named: all linear layers
                             but the head), scaled by `lora_alpha` / rank (None: twice the rank); `merge`: write merged weights too
    precision                what is computed in: "auto" is bfloat16 on a GPU that has it, else float32. Weights under training stay
                             in float32 except those that an adapter leaves alone
    gradient_checkpointing   None: on a GPU
    save_every, keep         steps between two checkpoints, and how many are kept
    eval                     problems to roll out with the model as it is: before, after, and every `eval_every` steps (0: only
                             then), when the held-out loss is measured too; the first `eval_limit` of them, `eval_concurrency` at
                             a time, greedily, with `eval_strategy` and its settings `eval_set` (None: for artist, as hint_infer
                             asks and calls: fenced code, a state that stays, no word of tools), in `sandbox`
    """

    epochs: float = 3.0
    steps: int | None = None
    learning_rate: float | None = None
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    batch_size: int = 1
    accumulate: int = 8
    seed: int = 0
    max_length: int | None = None
    long: Literal["drop", "truncate"] = "drop"
    packing: bool = False
    held_out: float = 0.05
    lora: int = 0
    lora_alpha: int | None = None
    lora_dropout: float = 0.0
    lora_targets: tuple[str, ...] = ()
    merge: bool = False
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    attention: str = "sdpa"
    gradient_checkpointing: bool | None = None
    save_every: int = 50
    keep: int = 1
    log_every: int = 1
    report_to: Literal["none", "tensorboard", "trackio", "wandb"] = "none"
    eval: str | None = None
    eval_strategy: str = "artist"
    eval_set: tuple[str, ...] | None = None
    eval_every: int = 0
    eval_limit: int | None = None
    eval_concurrency: int = 8
    sandbox: str = "docker"

    def __post_init__(self) -> None:
        coerce_tuples(self, "lora_targets", "eval_set")
        at_least(self, 1, "batch_size", "accumulate", "save_every", "keep", "log_every", "eval_concurrency")
        at_least(self, 0, "seed", "lora", "eval_every", "weight_decay", "max_grad_norm")
        given = [name for name in ("steps", "lora_alpha", "eval_limit") if getattr(self, name) is not None]
        at_least(self, 1, *given)
        if self.epochs <= 0 or (self.learning_rate is not None and self.learning_rate <= 0):
            raise SettingsError(f"epochs {self.epochs} and learning_rate {self.learning_rate} have to be above 0")
        if self.max_length is not None and self.max_length < 2:
            raise SettingsError(f"max_length is {self.max_length}: a row needs a token to train and one before it")
        for name in ("warmup", "held_out", "lora_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(f"{name} {getattr(self, name)} is outside 0 to 1")
        if any("lm_head" in target for target in self.lora_targets):
            raise SettingsError(
                "no adapter can be trained on lm_head: TRL takes the head's own weights for the loss, and the adapter "
                "would stay as it is. Leave lm_head out of lora_targets"
            )
        if self.merge and not self.lora:
            raise SettingsError("merge is for LoRA: without it the weights are written whole anyway")

    @property
    def rate(self) -> float:
        return self.learning_rate or (1e-4 if self.lora else 1e-5)

    @property
    def eval_pairs(self) -> tuple[str, ...]:
        """The settings of `eval_strategy`, as they were given or as they suit models trained on hinted traces."""
        if self.eval_set is None and self.eval_strategy == "artist":
            return HINTED
        return self.eval_set or ()


FREE = frozenset(  # what changes no weight that is trained, or is kept as what came of it; a run may go on with another value
    {
        "precision",
        "merge",
        "device",
        "attention",
        "gradient_checkpointing",
        "save_every",
        "keep",
        "log_every",
        "report_to",
        "sandbox",
    }
    | {one.name for one in fields(SftSettings) if one.name.startswith("eval")}
)


def identity(settings: SftSettings) -> dict[str, Any]:
    """The settings that have to be equal for a run to go on."""
    return {name: value for name, value in asdict(settings).items() if name not in FREE}
