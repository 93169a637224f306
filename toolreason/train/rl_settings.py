"""What agentic RL can be told. The paper gives group size, temperature and lengths (ARTIST, section 4); the rest is ours."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from toolreason.errors import SettingsError
from toolreason.strategies.base import Settings, Strategy, at_least, load, parse_settings
from toolreason.train import rewards
from toolreason.train.settings import SftSettings
from toolreason.types import Sampling, coerce_tuples

STRIDE = 1_000  # rollouts of one problem in one step are numbered from step * STRIDE


@dataclass(frozen=True, slots=True)
class RlSettings:
    """How a model is trained by its own rollouts.

    strategy, set            what a rollout is, and its settings as `key=value`
    rewards, reward          the preset, and `name=weight` changes to it
    group, problems          rollouts of a problem, and problems, in a step
    steps, learning_rate     updates, and their size (None: 1e-6, with LoRA 1e-5), after `warmup` steps constant
    temperature              of the rollouts. 1 is the model's own distribution; a sampler in this process reports nothing else
    beta                     the weight of the divergence from the model as it was (0: none, and no copy of it)
    iterations, batch_size   updates from each step's rollouts; rollouts at a time in a forward pass (None: a group)
    loss                     artist: mean over each rollout's model tokens, then over rollouts. dapo: mean over all model tokens.
                             dr_grpo: sum over a constant, rewards not divided by their deviation. gspo: the ratio of the whole
                             rollout. gppo: as dapo, and clipped tokens keep their gradient, bounded
    clip, clip_high          the ratio is clipped to 1 - clip, 1 + clip_high (None: the same)
    void_turns               rollouts with a turn that has neither a call nor an answer are not trained on
    over_length              nor those that a token limit cut off
    equal_groups             nor groups whose rewards are all the same
    correction               truncated importance sampling between the sampler's and the trainer's probabilities, at most
                             `correction_limit`; "auto": with a vLLM server. It takes a forward pass more
    resample                 twice the rollouts, of which half are kept: failures uniformly, clean successes rather
    hinted                   the share of a group that is rolled out with `hinted_strategy` (settings `hinted_set`) where all failed
    lora                     the rank of the adapter (0: all weights are trained), scaled by `lora_alpha` / rank (None: twice it)
    vllm                     the URL of a vLLM server in training mode; None: the model in training samples itself
    concurrency, rows        rollouts in flight, and rows in the batch of the sampler in this process
    eval, eval_every         problems to roll out every so many steps (0: at the end), `eval_samples` times each at
                             `temperature`; the first `eval_limit` of them
    save_every, keep         steps between two checkpoints, and how many are kept
    """

    strategy: str = "artist"
    set: tuple[str, ...] = ()
    rewards: str = "artist"
    reward: tuple[str, ...] = ()
    group: int = 6
    problems: int = 4
    steps: int = 100
    learning_rate: float | None = None
    warmup: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    temperature: float = 1.0
    beta: float = 0.0
    iterations: int = 1
    batch_size: int | None = None
    loss: Literal["artist", "dapo", "dr_grpo", "gspo", "gppo"] = "artist"
    clip: float = 0.2
    clip_high: float | None = None
    void_turns: bool = True
    over_length: bool = False
    equal_groups: bool = True
    correction: Literal["auto", "on", "off"] = "auto"
    correction_limit: float = 2.0
    resample: bool = False
    hinted: float = 0.0
    hinted_strategy: str = "hint_infer"
    hinted_set: tuple[str, ...] = ()
    lora: int = 0
    lora_alpha: int | None = None
    lora_targets: tuple[str, ...] = ()
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gradient_checkpointing: bool | None = None
    vllm: str | None = None
    concurrency: int = 64
    rows: int = 32
    seed: int = 0
    eval: str | None = None
    eval_every: int = 0
    eval_samples: int = 1
    eval_limit: int | None = None
    save_every: int = 10
    keep: int = 1
    report_to: Literal["none", "tensorboard", "trackio", "wandb"] = "none"
    sandbox: str = "docker"

    def __post_init__(self) -> None:
        coerce_tuples(self, "set", "reward", "hinted_set", "lora_targets")
        at_least(self, 2, "group")
        at_least(self, 1, "problems", "steps", "iterations", "concurrency", "rows", "eval_samples", "save_every", "keep")
        at_least(self, 0, "seed", "lora", "eval_every", "warmup", "weight_decay", "max_grad_norm", "beta")
        if self.temperature <= 0:
            raise SettingsError(f"temperature {self.temperature}: a group of greedy rollouts is one rollout; 1.0 is the usual one")
        if not 0 <= self.hinted < 1:
            raise SettingsError(f"hinted {self.hinted} is outside 0 to 1")
        if self.clip <= 0 or self.clip >= 1 or self.correction_limit < 1 or (self.clip_high is not None and self.clip_high <= 0):
            raise SettingsError("clip is between 0 and 1, clip_high above 0, correction_limit at least 1")
        if 3 * self.group > STRIDE:
            raise SettingsError(f"group {self.group} is too large: at most {STRIDE // 3}")
        size = self.batch_size
        if size is not None and (size < 1 or self.group * self.problems % size):
            raise SettingsError(f"batch_size {size} does not divide group * problems = {self.group * self.problems}")
        if self.correction == "on" and self.temperature != 1 and self.vllm is None:
            raise SettingsError(
                f"correction at temperature {self.temperature}: the sampler in this process reports log-probabilities at "
                "temperature 1. Give temperature 1, correction=off, or a vLLM server"
            )
        if any("lm_head" in target for target in self.lora_targets):
            raise SettingsError("no adapter can be trained on lm_head: TRL takes the head's own weights; leave it out")
        rewards.weights(self.rewards, self.reward)

    @property
    def rate(self) -> float:
        return self.learning_rate or (1e-5 if self.lora else 1e-6)

    @property
    def shared(self) -> SftSettings:
        """What both kinds of training are told alike."""
        names = ("lora", "lora_alpha", "lora_targets", "precision", "device", "gradient_checkpointing", "report_to")
        return SftSettings(**{name: getattr(self, name) for name in names})

    @property
    def corrected(self) -> bool:
        return self.correction == "on" or (self.correction == "auto" and self.vllm is not None)


FREE = frozenset(  # what changes no weight that is trained, so that a run may go on with another value
    {"steps", "device", "gradient_checkpointing", "vllm", "concurrency", "rows", "save_every", "keep", "report_to", "sandbox"}
    | {one.name for one in fields(RlSettings) if one.name.startswith("eval")}
)


def identity(settings: RlSettings) -> dict[str, Any]:
    """The settings that have to be equal for a run to go on."""
    return {name: value for name, value in asdict(settings).items() if name not in FREE}


@dataclass(frozen=True, slots=True)
class Way:
    """A strategy and its settings: one way to roll out."""

    strategy: Strategy[Settings]
    settings: Settings

    @classmethod
    def of(cls, name: str, pairs: tuple[str, ...]) -> Way:
        strategy = load(name)
        return cls(strategy, parse_settings(strategy.settings, pairs))


@dataclass(frozen=True, slots=True)
class Plan:
    """What the adapter needs of the settings. `hints`: the way to explore, for this share of a group where all failed."""

    way: Way
    weights: dict[str, float]
    sampling: Sampling
    concurrency: int = 64
    resample: bool = False
    void_turns: bool = True
    over_length: bool = False
    equal_groups: bool = True
    hints: Way | None = None
    hinted: float = 0.0

    @classmethod
    def of(cls, settings: RlSettings) -> Plan:
        return cls(
            way=Way.of(settings.strategy, settings.set),
            weights=rewards.weights(settings.rewards, settings.reward),
            sampling=Sampling(settings.temperature, seed=settings.seed * STRIDE * STRIDE),
            concurrency=settings.concurrency,
            resample=settings.resample,
            void_turns=settings.void_turns,
            over_length=settings.over_length,
            equal_groups=settings.equal_groups,
            hints=Way.of(settings.hinted_strategy, settings.hinted_set) if settings.hinted else None,
            hinted=settings.hinted,
        )
