"""The directory of a curation: a run like any other, with its report beside it. It appears whole or not at all.

DIR/run.json, DIR/trajectories.jsonl   as `toolreason.runs` reads them
DIR/rows.jsonl                         each row's origin, score and modifications
DIR/report.json, DIR/report.md         what fell at each step, with examples
DIR/card.md                            the dataset card
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolreason import runs
from toolreason.curate import report
from toolreason.curate.pipeline import Curation
from toolreason.durable import sync_directory
from toolreason.errors import InfrastructureError, InputError, SettingsError
from toolreason.runs import Manifest
from toolreason.types import Sampling, to_json

MIXED = "mixed"


def files(made: Curation, origin: report.Origin) -> dict[str, str]:
    """The content of each file, by name."""
    told = report.report(made, origin)
    return {
        runs.MANIFEST: to_json(_manifest(made, origin)) + "\n",
        runs.TRAJECTORIES: "".join(to_json(one) + "\n" for one in made.trajectories),
        "rows.jsonl": report.sidecar(made),
        "report.json": json.dumps(told, indent=2, ensure_ascii=True) + "\n",
        "report.md": report.markdown(told),
        "card.md": report.card(told),
    }


def write(out: Path, content: dict[str, str]) -> bool:
    """Write the directory; False where it is there already with just this content.

    Raises SettingsError where `out` holds something else, InputError where it cannot be written, InfrastructureError (disk full).
    """
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if _same(out, content):
            return False
        raise SettingsError(
            f"{out} is there already and holds something else. Nothing was changed: "
            "name another directory with --out, or move that one away"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".curate-", dir=out.parent))
    except OSError as error:
        raise InputError(f"cannot write to {out.parent}: {error.strerror}; name another directory with --out") from error
    try:
        for name, text in content.items():
            _write(work / name, text)
        work.chmod(0o777 & ~_umask())
        sync_directory(work)
        work.rename(out)  # replaces an empty directory, and fails where another process was faster
        sync_directory(out.parent)
    except OSError as error:
        raise InfrastructureError(f"cannot write {out}: {error.strerror}; nothing of it was kept") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return True


def _same(out: Path, content: dict[str, str]) -> bool:
    if not out.is_dir() or {file.name for file in out.iterdir()} - {"run.lock"} != content.keys():
        return False
    return all((out / name).read_bytes() == text.encode() for name, text in content.items())


def _write(file: Path, text: str) -> None:
    with file.open("wb") as stream:
        stream.write(text.encode())
        stream.flush()
        os.fsync(stream.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _manifest(made: Curation, origin: report.Origin) -> Manifest:
    """That of the source runs, with what they have in common. `curated` keeps a collection from going on in this directory."""
    sources = [run.manifest for run in origin.runs if run.role != "plain"]
    one = sources[0]
    shared = {key: value for key, value in one.settings.items() if all(other.settings.get(key) == value for other in sources)}
    return replace(
        one,
        strategy=_common([run.strategy for run in sources]),
        settings={**shared, "curated": made.stage},
        policy=_common([run.policy for run in sources]),
        sampling=_sampling([run.sampling for run in sources]),
        problems=origin.problems,
        problems_hash=origin.problems_hash,
        samples=max((run.sample + 1 for run in made.trajectories), default=1),
        version=origin.version,
        started=max(run.started for run in sources),
    )


def _common(values: list[str]) -> str:
    return values[0] if len(set(values)) == 1 else MIXED


def _sampling(values: list[Sampling]) -> Sampling:
    """The first one's, with defaults where they differ; each trajectory has its own."""
    names: dict[str, Any] = {
        name: getattr(values[0], name)
        for name in Sampling.__dataclass_fields__
        if all(getattr(other, name) == getattr(values[0], name) for other in values)
    }
    return Sampling(**names)
