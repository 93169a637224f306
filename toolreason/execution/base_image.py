"""A base image with Python 3.11 from Debian's packages, for machines that reach no image registry.

`debootstrap` unpacks Debian 12 from the mirror that this machine's apt uses, and the engine imports the tree. Needs root.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from toolreason.errors import SetupError

TAG = "toolreason-base:bookworm"
SUITE = "bookworm"
FIX = (
    "no image registry can be reached, and a base image cannot be made from Debian's packages: {why}. "
    "Bring one in on any machine with a network (`docker pull python:3.11-slim && docker save python:3.11-slim > base.tar`) "
    "and `docker load -i base.tar` here."
)
UNNEEDED = ("var/lib/apt/lists", "var/cache/apt", "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info")


def make(client: Any, progress: Callable[[str], None]) -> None:
    """Make the image `TAG`. Takes about a minute. Raises SetupError, which names another way."""
    if os.geteuid() != 0:
        raise SetupError(FIX.format(why="that needs root"))
    mirrors = list(dict.fromkeys(debian_mirrors()))
    if not mirrors:
        raise SetupError(FIX.format(why=f"apt's sources name no mirror of Debian {SUITE}"))
    ensure_debootstrap(progress)
    with tempfile.TemporaryDirectory(prefix="toolreason-base-") as folder:
        root = Path(folder) / "root"
        bootstrap(root, mirrors, progress)
        for name in UNNEEDED:
            shutil.rmtree(root / name, ignore_errors=True)
        progress("importing the base image")
        tar = Path(folder) / "base.tar"
        run(["tar", "-C", str(root), "--one-file-system", "-cf", str(tar), "."])
        repository, tag = TAG.split(":")
        with tar.open("rb") as file:
            client.api.import_image_from_data(file, repository=repository, tag=tag)


def debian_mirrors(folder: Path = Path("/etc/apt")) -> Iterator[str]:
    """The addresses in apt's sources (both notations) from which Debian's suite comes."""
    for path in (folder / "sources.list", *sorted(folder.glob("sources.list.d/*"))):
        if path.suffix == ".sources":
            for block in path.read_text().split("\n\n"):
                fields = dict(re.findall(r"^([\w-]+):[ \t]*(.*)$", block, re.MULTILINE))
                if SUITE in fields.get("Suites", "").split():
                    yield from fields.get("URIs", "").split()
        elif path.suffix == ".list" and path.exists():
            yield from re.findall(rf"^deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+{SUITE}\s", path.read_text(), re.MULTILINE)


def ensure_debootstrap(progress: Callable[[str], None]) -> None:
    if shutil.which("debootstrap"):
        return
    if not shutil.which("apt-get"):
        raise SetupError(FIX.format(why="debootstrap is not installed"))
    progress("installing debootstrap")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        run(["apt-get", "update", "-qq"], environment)
        run(["apt-get", "install", "-y", "-qq", "debootstrap"], environment)
    except SetupError as error:
        raise SetupError(FIX.format(why=f"apt-get could not install debootstrap ({error})")) from error


def bootstrap(root: Path, mirrors: list[str], progress: Callable[[str], None]) -> None:
    """Unpack Debian with Python into `root`, from the first mirror that works."""
    said = ""
    for mirror in mirrors:
        progress(f"unpacking Debian {SUITE} with Python from apt's mirror (about a minute)")
        try:
            run(["debootstrap", "--variant=minbase", "--include=python3", SUITE, str(root), mirror])
            return
        except SetupError as error:
            said = str(error)
            shutil.rmtree(root, ignore_errors=True)
    raise SetupError(FIX.format(why=f"debootstrap failed ({said})"))


def run(command: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SetupError(f"`{command[0]}` ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}")
