"""Where rows of problems come from: the lines of a file, a Hugging Face dataset, reasoning-gym's generators.

What a row means is for `toolreason.problems` to say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from toolreason.errors import ProblemError, SetupError
from toolreason.policies.tokenizer import quiet

_SPLITS = ("test", "validation", "train")
_HF = re.compile(r"(?P<name>[^:]+)(?::(?P<config>[^:\[\]]+))?(?::(?P<split>\w+(?:\[[^\]]*\])?))?")
_GYM = re.compile(r"(?P<families>\w+(?:,\w+)*):(?P<size>\d{1,7})(?::(?P<seed>\d+))?")


def rows(source: str) -> Iterator[tuple[int, Any]]:
    """Each row with its number, from 1: as it is, or as a function that gives it, or raises ProblemError for it alone.

    Raises, at the first row, ProblemError (the source itself is wrong) or SetupError (something is missing here).
    """
    kind, _, rest = source.partition(":")
    readers: dict[str, Callable[[str], Iterator[tuple[int, Any]]]] = {"hf": _hub_rows, "gym": _gym_rows}
    return readers[kind](rest) if kind in readers else _file_rows(source)


def _file_rows(source: str) -> Iterator[tuple[int, Any]]:
    try:
        data = Path(source).read_bytes()
    except OSError as error:
        raise ProblemError(
            f"cannot read {source}: {error.strerror or error}. "
            "A source is a JSONL file, hf:NAME[:CONFIG][:SPLIT] or gym:FAMILY:SIZE[:SEED]"
        ) from None
    lines = data.removeprefix(b"\xef\xbb\xbf").rstrip().split(b"\n") if data.strip() else []
    for number, line in enumerate(lines, 1):
        yield number, lambda line=line: _parse(line)


def _parse(line: bytes) -> object:
    """One line of the file. Raises ProblemError."""
    if not line.strip():
        raise ProblemError("an empty line")
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ProblemError(f"not UTF-8 at byte {error.start + 1}") from None
    except (ValueError, RecursionError) as error:
        raise ProblemError(f"not JSON: {error}") from None


def _hub_rows(source: str) -> Iterator[tuple[int, Any]]:
    match = _HF.fullmatch(source)
    if match is None:
        raise ProblemError(f"hf:{source} is not hf:NAME[:CONFIG][:SPLIT]")
    name, config, split = match["name"], match["config"], match["split"]
    if config in (*_SPLITS, "dev") and split is None:
        config, split = None, config
    quiet()
    try:
        from datasets import load_dataset
    except ImportError:
        raise SetupError("hf: sources need the package `datasets`: pip install datasets") from None
    try:
        data = load_dataset(name, config, split=split)
    except Exception as error:  # whatever hub, network and files raise
        raise SetupError(
            f"the dataset {name} cannot be loaded ({type(error).__name__}: {str(error)[:300]}). "
            "Check its name, config and split and the network, or give the problems as a JSONL file"
        ) from error
    if isinstance(data, dict):
        data = data[next((split for split in _SPLITS if split in data), next(iter(data)))]
    yield from enumerate(map(dict, data), 1)


def _gym_rows(source: str) -> Iterator[tuple[int, Any]]:
    match = _GYM.fullmatch(source)
    if match is None or not int(match["size"]):
        raise ProblemError(f"gym:{source} is not gym:FAMILY[,FAMILY...]:SIZE[:SEED], such as gym:count_primes,gcd:30:7")
    try:
        from reasoning_gym import create_dataset
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise SetupError("gym: sources need the package `reasoning-gym`: pip install reasoning-gym") from None
    families, size, seed = match["families"].split(","), int(match["size"]), int(match["seed"] or 0)
    for family in families:
        if family not in DATASETS:
            raise ProblemError(f"reasoning-gym has no {family!r}; it has {', '.join(sorted(DATASETS))}")
    for part, family in enumerate(families):
        data = create_dataset(family, size=size, seed=seed)
        for index in range(size):
            yield part * size + index + 1, lambda data=data, family=family, index=index: _gym_row(data, family, seed, index)


def _gym_row(data: Any, family: str, seed: int, index: int) -> dict[str, Any]:
    """An item that its own scorer still accepts after a trip through JSON."""
    try:
        item = data[index]
        entry = json.dumps(item)
        if item["answer"] is not None and data.score_answer(item["answer"], entry=json.loads(entry)) < 1:
            raise ValueError("its own answer is not scored 1 once stored")
    except Exception as error:
        raise ProblemError(f"{family} gave an item that cannot be used: {error}") from None
    return {"id": f"{family}-{seed}-{index}", "question": item["question"], "dataset": family, "entry": entry}
