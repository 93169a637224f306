"""The whole of Hint-RFT (START, section 3.2) as a list of commands: what each stage of `toolreason train start` runs.

    base        collect `plain` and `hinted` rollouts, and roll out the fresh problems
    sets/       curate: what plain reasoning got wrong and a hint got right; the control's right answers without tools
    models/     SFT: START-0, and the control
    start-0     sample with START-0, curate, SFT: START
    fresh       every model on problems that none of them has seen, without hints

Each stage is a command that can be given by hand, keeps what it has done, and goes on where it was stopped.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from toolreason.curate.settings import CurateSettings
from toolreason.errors import InputError, SettingsError
from toolreason.options import parse
from toolreason.strategies.base import at_least
from toolreason.train.settings import HINTED, SftSettings
from toolreason.types import Sampling, coerce_tuples

BASE, CONTROL, START_0, START = "base", "control", "start-0", "start"
LEARN, FRESH, LOGS = "learn.jsonl", "fresh.jsonl", "logs"


@dataclass(frozen=True, slots=True)
class Rollouts:
    """How a stage rolls out: so many `samples` of a problem, and settings of its strategy (`set`, as for collect)."""

    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    set: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        coerce_tuples(self, "set")
        at_least(self, 1, "samples")
        Sampling(self.temperature, self.top_p)
        if self.samples > 1 and self.temperature == 0:
            raise SettingsError(f"{self.samples} samples at temperature 0 are all alike: give a temperature")


@dataclass(frozen=True, slots=True)
class RecipeSettings:
    """The one config file. Only `model` and `problems` have no default; numbers that the paper gives are its own.

    problems, fresh       to learn from, and to evaluate on: sources as for collect. Without `fresh` the share `fresh_share` of the
                          problems is kept back, by chance with `seed`. No question may be in both
    policy                who samples; {model} is the directory of the stage's model
    serve                 a command that serves {model} under the name {name}, started before the stages that sample with it and
                          stopped after; `policy` is then its address, vllm:URL. `serve_wait_s`: how long it may take to start
    launch                what starts training, in place of this Python: "accelerate launch --config_file fsdp.yaml"
    until                 "start-0": without the second half of the recipe
    control               what the same model makes of right answers without tools, as many updates long as START-0: "greedy" takes
                          those of the plain rollouts, "sampled" rolls out plainly as `hinted` does, "none" leaves it out
    again                 what START is trained from: START-0 (as the paper's "again" has it), or the model at the beginning
    plain, hinted, sampled, evaluate    how the stages roll out: `plain`, `hint_infer` and twice `artist`
    curate, sft           settings of both curations and all trainings, as `toolreason curate --set` and `train sft --set` take them
    """

    model: str
    problems: str
    fresh: str | None = None
    fresh_share: float = 0.2
    policy: str = "transformers:{model}"
    serve: str | None = None
    serve_wait_s: float = 900.0
    launch: str | None = None
    until: Literal["start-0", "start"] = "start"
    control: Literal["none", "greedy", "sampled"] = "none"
    again: Literal["start-0", "base"] = "start-0"
    concurrency: int = 8
    sandbox: str = "docker"
    seed: int = 0
    plain: Rollouts = Rollouts()
    hinted: Rollouts = Rollouts(4, 0.7)
    sampled: Rollouts = Rollouts(16, 0.6, 0.95, HINTED)
    evaluate: Rollouts = Rollouts(set=HINTED)
    curate: dict[str, Any] = field(default_factory=dict)
    sft: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        at_least(self, 1, "concurrency")
        at_least(self, 0, "seed")
        if not 0 < self.fresh_share < 1:
            raise SettingsError(f"fresh_share {self.fresh_share} is not between 0 and 1")
        if self.plain.samples > 1:
            raise SettingsError("plain.samples is above 1: the keep rule looks at one plain rollout of each problem")
        if self.serve is not None and "{model}" not in self.serve:
            raise SettingsError("serve does not say {model}: every model of the recipe would be served as the same one")
        if self.serve is not None and not self.policy.startswith("vllm:"):
            raise SettingsError(
                f"serve is given, but the policy is {self.policy}: name the server's address, vllm:http://127.0.0.1:8000"
            )
        if self.serve is None and "{model}" not in self.policy:
            raise SettingsError(
                f"the policy {self.policy} does not say {{model}}: give serve too, or all stages sample with one model"
            )
        for kind, name in ((CurateSettings, "curate"), (SftSettings, "sft")):
            try:
                parse(kind, getattr(self, name))
            except SettingsError as error:
                raise SettingsError(f"{name}: {error}") from error
        if self.launch is not None and self.sft.get("eval"):
            raise SettingsError("sft.eval is for one process: with launch, the recipe's own evaluation has to do")


@dataclass(frozen=True, slots=True)
class Stage:
    """One command, without `toolreason` before it. `model` is the name of the one that samples, where one does; `launched`: it
    trains, and may be started otherwise.
    """

    name: str
    command: tuple[str, ...]
    model: str | None = None
    launched: bool = False


@dataclass(frozen=True, slots=True)
class Recipe:
    """The recipe over a directory. `base` is where the model at the beginning lies: a directory, or a hub id."""

    settings: RecipeSettings
    out: Path
    base: str

    @property
    def models(self) -> list[str]:
        """The models, in the order in which they come about."""
        control = [CONTROL] if self.settings.control != "none" else []
        return [BASE, *control, START_0, *([START] if self.settings.until == START else [])]

    def place(self, model: str) -> str:
        """Where this model lies."""
        return self.base if model == BASE else str(self.out / "models" / model / "model")

    def problems(self, name: str) -> str:
        return str(self.out / "problems" / name)

    def run(self, name: str) -> Path:
        return self.out / "runs" / name

    def stages(self, results: Mapping[str, Mapping[str, Any]]) -> Iterator[Stage]:
        """The stages in their order. `results` fills as they end: what the earlier ones printed with --json, by name."""
        one = self.settings
        yield self._collect("plain", LEARN, BASE, "plain", one.plain)
        yield self._collect("hinted", LEARN, BASE, "hint_infer", one.hinted)
        if one.control == "sampled":
            yield self._collect("control-sampled", LEARN, BASE, "plain", one.hinted, one.plain.set)
        yield from self._fresh(BASE)
        yield self._curate(START_0, "hint-rft", "--plain", str(self.run("plain")), "--hinted", str(self.run("hinted")))
        yield self._train(START_0, BASE, results)
        if one.control != "none":
            source = "control-sampled" if one.control == "sampled" else "plain"
            yield self._curate(CONTROL, "rft", str(self.run(source)))
            yield self._train(CONTROL, BASE, results, steps=lambda: results[f"train-{START_0}"]["steps"])
            yield from self._fresh(CONTROL)
        if one.until == START:
            yield self._collect("sampled", LEARN, START_0, "artist", one.sampled)
        yield from self._fresh(START_0)
        if one.until == START:
            yield self._curate(START, "rft", str(self.run("sampled")))
            yield self._train(START, START_0 if one.again == START_0 else BASE, results)
            yield from self._fresh(START)

    def _collect(
        self, name: str, problems: str, model: str, strategy: str, how: Rollouts, settings: tuple[str, ...] | None = None
    ) -> Stage:
        one = self.settings
        words = ["collect", self.problems(problems), "--out", str(self.run(name)), "--strategy", strategy]
        words += ["--policy", one.policy.replace("{model}", self.place(model)), "--samples", str(how.samples)]
        words += ["--temperature", f"{how.temperature:g}", "--top-p", f"{how.top_p:g}", "--seed", str(one.seed)]
        words += [
            "--concurrency",
            str(one.concurrency),
            "--sandbox",
            one.sandbox,
            *_sets(how.set if settings is None else settings),
        ]
        return Stage(name, (*words, "--json"), model)

    def _fresh(self, model: str) -> Iterator[Stage]:
        """The fresh problems, with tools on offer and no hint; for models that know of no tools also without the offer."""
        yield self._collect(f"fresh-{model}", FRESH, model, "artist", self.settings.evaluate)
        if self.settings.control != "none" and model in (BASE, CONTROL):
            how = self.settings.evaluate
            yield self._collect(f"fresh-{model}-plain", FRESH, model, "plain", how, self.settings.plain.set)

    def _curate(self, name: str, *words: str) -> Stage:
        given = {"seed": self.settings.seed, **self.settings.curate}
        out, problems = self.out / "sets" / name, self.problems(LEARN)
        rest = ("--out", str(out), "--problems", problems, "--tokenizer", self.base, *_sets(_pairs(given)), "--json")
        return Stage(f"curate-{name}", ("curate", *words, *rest))

    def _train(
        self, name: str, start: str, results: Mapping[str, Mapping[str, Any]], steps: Callable[[], int] | None = None
    ) -> Stage:
        """Raises InputError where nothing is left to train on."""
        data = self.out / "sets" / name
        if not results[f"curate-{name}"]["rows"]:
            raise InputError(f"no row is left to train {name} on: {data / 'report.md'} says where they fell")
        given = {"seed": self.settings.seed, **self.settings.sft}
        if given.get("lora"):
            given.setdefault("merge", True)  # what samples next needs whole weights
        if steps is not None:
            given["steps"] = steps()
        where = ("--model", self.place(start), "--out", str(self.out / "models" / name))
        return Stage(f"train-{name}", ("train", "sft", str(data), *where, *_sets(_pairs(given)), "--json"), launched=True)


def shown(stage: Stage) -> str:
    """The command as it can be typed."""
    return shlex.join(["toolreason", *stage.command])


def _pairs(table: Mapping[str, Any]) -> tuple[str, ...]:
    def text(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

    return tuple(f"{key}={text(value)}" for key, value in table.items())


def _sets(pairs: tuple[str, ...]) -> list[str]:
    return [word for pair in pairs for word in ("--set", pair)]
