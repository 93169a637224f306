"""What this machine has and lacks for toolreason, and the command that mends each lack. Looks only; changes nothing."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from toolreason import models
from toolreason.errors import SetupError, ToolreasonError

CORE = ("langgraph", "langchain-core", "pydantic", "math-verify")
ENGINE_TIMEOUT_S = 10
LEAST_FREE_GB = 5.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. `fix` is the command, or the sentence, that mends it; empty where nothing is to be done.

    `optional` things may be absent: toolreason works without them, only less of it.
    """

    name: str
    ok: bool
    detail: str
    fix: str = ""
    optional: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def checks() -> list[Check]:
    """All checks, in the order in which to mend them. None raises: what goes wrong in a check is its result."""
    rows = [_guarded("Python", _python), _guarded("packages", _packages), _guarded("disk", _disk)]
    rows += [_guarded("engine", _engine), _guarded("sandbox image", _image)]
    rows += [_guarded(f"model {name}", partial(_model, name)) for name in models.catalogue()]
    if not any(row.ok for row in rows if row.name.startswith("model ")):
        rows.append(Check("a model", False, "none is on this machine", "toolreason models pull qwen2.5-coder-0.5b-instruct"))
    return [*rows, _guarded("transformers", _transformers), _guarded("vllm", _vllm), _guarded("GPU", _gpu)]


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except ToolreasonError as error:
        return Check(name, False, str(error))
    except Exception as error:
        return Check(name, False, f"the check itself failed: {type(error).__name__}: {error}")


def _python() -> Check:
    recent = sys.version_info >= (3, 11)
    detail = f"{platform.python_version()} at {sys.executable}"
    return Check("Python", recent, detail, "" if recent else "install Python 3.11 or later")


def _packages() -> Check:
    missing = [name for name in CORE if _version(name) is None]
    found = ", ".join(f"{name} {_version(name)}" for name in ("toolreason", *CORE) if _version(name))
    return Check("packages", not missing, found, f"pip install {' '.join(missing)}" if missing else "")


def _disk() -> Check:
    place = next(folder for folder in (models.home(), *models.home().parents) if folder.exists())
    free = shutil.disk_usage(place).free / 1e9
    enough = free >= LEAST_FREE_GB
    fix = f"make room (about {LEAST_FREE_GB:.0f} GB), or set TOOLREASON_HOME to a larger disk"
    return Check("disk", enough, f"{free:.0f} GB free for {models.home()}", "" if enough else fix)


def _engine() -> Check:
    from toolreason.execution.engine import Engine

    try:
        engine = Engine.find()
        client = engine.client(timeout_s=ENGINE_TIMEOUT_S)
    except SetupError as error:
        return Check("engine", False, str(error), "make engine (in a checkout), or start Docker")
    try:
        return Check("engine", True, f"Docker {client.version().get('Version', '?')} at {engine.host}")
    finally:
        client.close()


def _image() -> Check:
    from toolreason.execution import image
    from toolreason.execution.engine import Engine

    try:
        client = Engine.find().client(timeout_s=ENGINE_TIMEOUT_S)
    except SetupError:
        return Check("sandbox image", False, "no engine to ask", "toolreason sandbox build, once the engine runs")
    try:
        return Check("sandbox image", True, image.find(client))
    except SetupError:
        return Check("sandbox image", False, "not built from this version's files", "toolreason sandbox build")
    finally:
        client.close()


def _model(name: str) -> Check:
    if models.installed(name):
        return Check(f"model {name}", True, f"{models.path(name)} (from {models.source(name).split(' ')[0]})", optional=True)
    size = models.find(name).disk_mb
    return Check(f"model {name}", False, f"absent; takes {size} MB", f"toolreason models pull {name}", optional=True)


def _transformers() -> Check:
    missing = [name for name in ("torch", "transformers") if find_spec(name) is None]
    found = ", ".join(f"{name} {_version(name)}" for name in ("torch", "transformers") if name not in missing)
    fix = "pip install 'toolreason[transformers]'" if missing else ""
    return Check("transformers", not missing, found or "absent: no embedded policy", fix, optional=True)


def _vllm() -> Check:
    if find_spec("vllm") is not None:
        return Check("vllm", True, f"vllm {_version('vllm')}", optional=True)
    fix = "pip install 'toolreason[vllm]' (with a GPU); a server elsewhere needs nothing here: --policy vllm:URL"
    return Check("vllm", False, "not in this environment", fix, optional=True)


def _gpu() -> Check:
    program = shutil.which("nvidia-smi")
    if program is None:
        return Check("GPU", False, "none: models run on the CPU", optional=True)
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    names = "; ".join(found.stdout.strip().splitlines())
    return Check("GPU", bool(found.returncode == 0 and names), names or f"nvidia-smi: {found.stderr.strip()}", optional=True)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
