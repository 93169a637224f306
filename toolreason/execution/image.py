"""Build the sandbox image: `toolreason sandbox build`, or `build` from a program.

The packages come in as wheels, pinned by hash, that pip fetches on this machine with its own configuration; the build itself
needs no network. The base is `python:3.11-slim` where a registry answers (or the image is there already), else one made from
Debian's packages (`base_image`).
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import toolreason
from toolreason.errors import SetupError
from toolreason.execution import base_image
from toolreason.execution.engine import Engine, asking

REPOSITORY = "toolreason-sandbox"
SLIM = "python:3.11-slim"
BUILD_COMMAND = "toolreason sandbox build"
PYTHON = "3.11"
MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "arm64": "aarch64", "aarch64": "aarch64"}
UNNEEDED = ("**/tests", "matplotlib/mpl-data/sample_data")  # of the packages: what no cell imports
Progress = Callable[[str], None]


def source() -> Path:
    """The folder of the Dockerfile, the runner and the list of packages."""
    return Path(toolreason.__file__).parent / "sandbox"


def image_tag(base: str = SLIM) -> str:
    """The tag of the image made from today's sandbox files on `base`: other files, another tag."""
    digest = hashlib.sha256(repr((base, UNNEEDED)).encode())
    for path in (source() / "Dockerfile", source() / "packages.txt", *sorted(source().glob("runner*.py"))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return f"{REPOSITORY}:{digest.hexdigest()[:16]}"


def find(client: Any) -> str:
    """The tag of the image that is built. Raises SetupError."""
    with asking("the engine does not say which images it has"):
        for base in (SLIM, base_image.TAG):
            if has(client, image_tag(base)):
                return image_tag(base)
    raise SetupError(f"the sandbox image is not built: run `{BUILD_COMMAND}`")


def has(client: Any, tag: str) -> bool:
    return bool(client.api.images(name=tag, quiet=True))


def exists() -> bool:
    """Whether an engine answers and has the image."""
    with suppress(SetupError):
        client = Engine.find().client()
        try:
            return bool(find(client))
        finally:
            client.close()
    return False


def build(progress: Progress = print) -> str:
    """Build the image unless it is there, and return its tag. Blocks: a minute or two. Raises SetupError."""
    client = Engine.find().client(timeout_s=600)
    try:
        with asking("the engine could not make the sandbox image"):
            return build_with(client, progress)
    finally:
        client.close()


def build_with(client: Any, progress: Progress) -> str:
    """`build`, by the engine of this client. What the client library raises is the caller's."""
    with suppress(SetupError):
        return find(client)
    machine = MACHINES.get(client.version()["Arch"])
    if machine is None:
        raise SetupError(f"the engine runs on {client.version()['Arch']}; the sandbox needs amd64 or arm64")
    base = choose_base(client, progress)
    with tempfile.TemporaryDirectory(prefix="toolreason-image-") as folder:
        packages = Path(folder) / "site-packages"
        progress("fetching the sandbox's packages (about 60 MB)")
        install_packages(packages, machine)
        strip(packages)
        progress("building the image")
        with tempfile.TemporaryFile() as file:
            write_context(file, packages)
            build_image(client, file, base)
    progress(f"built {image_tag(base)}")
    return image_tag(base)


def choose_base(client: Any, progress: Progress) -> str:
    """The slim Python image if it is here or can be pulled, else Debian's base, made if need be."""
    for base in (SLIM, base_image.TAG):
        if has(client, base):
            return base
    if reachable(client):
        progress(f"pulling {SLIM}")
        client.images.pull(SLIM)
        return SLIM
    base_image.make(client, progress)
    return base_image.TAG


def reachable(client: Any, timeout_s: float = 10) -> bool:
    """Whether the engine can reach the registry: asked with a short time limit, since a closed network may just be silent."""
    import docker

    asking = Engine.find().client(timeout_s)
    try:
        asking.api.inspect_distribution(SLIM)
        return True
    except (docker.errors.APIError, OSError):  # a time-out of requests is an OSError
        return False
    finally:
        asking.close()


def install_packages(target: Path, machine: str) -> None:
    """Unpack the pinned wheels for the engine's architecture into `target`."""
    platforms = [f"--platform=manylinux_{glibc}_{machine}" for glibc in ("2_17", "2_27", "2_28")] + [
        f"--platform=manylinux2014_{machine}"
    ]
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        "--no-compile",
    ]
    command += [f"--python-version={PYTHON}", "--implementation=cp", "--abi=cp311", "--abi=none", *platforms]
    done = subprocess.run([*command, f"--target={target}", "-r", str(source() / "packages.txt")], capture_output=True, text=True)
    if done.returncode:
        raise SetupError(
            f"pip could not fetch the sandbox's packages: {done.stderr.strip()[-600:]}\n"
            "Give pip an index or wheels (`pip config set global.index-url ...`, PIP_FIND_LINKS); if pip is missing, "
            "`python -m ensurepip`."
        )


def strip(packages: Path) -> None:
    """Remove what no cell imports: the packages' own tests, and matplotlib's sample data."""
    for pattern in UNNEEDED:
        for folder in list(packages.glob(pattern)):
            shutil.rmtree(folder, ignore_errors=True)


def write_context(file: Any, packages: Path) -> None:
    """The build context: the Dockerfile, the runner, the packages."""

    def readable(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.mode = 0o755 if entry.isdir() else 0o644
        return entry

    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.add(packages, "site-packages", filter=readable)
        tar.add(source() / "Dockerfile", "Dockerfile", filter=readable)
        folder = tarfile.TarInfo("runner")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder, io.BytesIO())
        for path in sorted(source().glob("runner*.py")):
            tar.add(path.resolve(), f"runner/{path.name}", filter=readable)
    file.seek(0)


def build_image(client: Any, context: Any, base: str) -> None:
    lines: list[str] = []
    settings = {"tag": image_tag(base), "buildargs": {"BASE": base}, "network_mode": "none", "rm": True, "forcerm": True}
    for event in client.api.build(fileobj=context, custom_context=True, decode=True, **settings):
        lines.append(str(event.get("stream") or event.get("error") or ""))
        if "error" in event:
            raise SetupError(f"the image could not be built: {''.join(lines)[-1500:]}")


if __name__ == "__main__":
    try:
        build()
    except SetupError as error:
        raise SystemExit(f"error: {error}") from None
