"""What the image is made of."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest
import requests
import urllib3

from toolreason.errors import SetupError
from toolreason.execution import base_image, image


def test_the_tag_changes_with_any_file_and_with_the_base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("Dockerfile", "packages.txt", "runner.py", "runner_cell.py"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(image, "source", lambda: tmp_path)
    seen = {image.image_tag(), image.image_tag(base_image.TAG)}
    for path in tmp_path.iterdir():
        path.write_text("changed")
        seen.add(image.image_tag())
    assert len(seen) == 6
    (tmp_path / "notes.md").write_text("no part of it")
    assert image.image_tag() in seen
    monkeypatch.setattr(image, "UNNEEDED", ())
    assert image.image_tag() not in seen


def test_of_the_packages_only_what_no_cell_imports_is_left_out(tmp_path: Path) -> None:
    kept = ("numpy/testing/utils.py", "matplotlib/mpl-data/fonts/a.ttf", "six.py")
    gone = ("numpy/linalg/tests/test_linalg.py", "tests/a.py", "matplotlib/mpl-data/sample_data/a.csv")
    for name in (*kept, *gone):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    image.strip(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == set(kept)


def test_every_package_is_pinned_by_version_and_hash() -> None:
    text = (image.source() / "packages.txt").read_text().replace("\\\n", " ")
    rows = [row for row in text.splitlines() if row and not row.startswith("#")]
    hashes = {row.split("==")[0]: row.count("--hash=sha256:") for row in rows}
    compiled = {name for name, count in hashes.items() if count == 2}  # a wheel for each architecture
    assert compiled == {"contourpy", "fonttools", "kiwisolver", "matplotlib", "numpy", "pillow"}
    assert all(hashes[name] == 1 for name in hashes.keys() - compiled)
    assert {"mpmath", "networkx", "sympy"} <= hashes.keys()


def test_the_build_context_is_the_runner_the_dockerfile_and_the_packages(tmp_path: Path) -> None:
    (tmp_path / "mpmath").mkdir()
    (tmp_path / "mpmath/__init__.py").write_text("")
    file = io.BytesIO()
    image.write_context(file, tmp_path)
    with tarfile.open(fileobj=file) as tar:
        entries = {entry.name: entry for entry in tar}
    assert {"Dockerfile", "runner/runner.py", "runner/runner_session.py", "site-packages/mpmath/__init__.py"} <= entries.keys()
    assert all((entry.uid, entry.gid) == (0, 0) and not entry.issym() for entry in entries.values())
    assert all(entry.mode & 0o005 for entry in entries.values())


def test_the_mirror_comes_from_either_notation_of_apts_sources(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("# deb http://no/ bookworm main\ndeb [arch=amd64] http://one/debian bookworm main\n")
    (tmp_path / "sources.list.d/a.list").write_text("deb http://other/ jammy main\n")
    (tmp_path / "sources.list.d/b.sources").write_text(
        "Types: deb\nURIs: http://two/debian http://three/debian\nSuites: bookworm bookworm-updates\n\n"
        "Types: deb\nURIs: http://security/\nSuites: bookworm-security\n"
    )
    assert list(base_image.debian_mirrors(tmp_path)) == ["http://one/debian", "http://two/debian", "http://three/debian"]


def test_without_root_the_error_names_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(SetupError, match="docker load"):
        base_image.make(None, print)


def test_packages_that_pip_cannot_get_are_a_setup_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "packages.txt").write_text("toolreason-nonesuch==1.0 --hash=sha256:" + "0" * 64)
    monkeypatch.setattr(image, "source", lambda: tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SetupError, match="index or wheels"):
        image.install_packages(tmp_path / "out", "x86_64")


class FakeEngine:
    """Knows which images it has, and what is pulled."""

    def __init__(self, *tags: str) -> None:
        self.tags, self.pulled = set(tags), list[str]()
        self.api, self.images = SimpleNamespace(images=self.listed), self

    def listed(self, name: str, quiet: bool) -> list[str]:
        return [name] if name in self.tags else []

    def pull(self, tag: str) -> None:
        self.pulled.append(tag)


def test_the_base_is_what_is_here_else_what_can_be_pulled_else_debian(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(base_image, "make", lambda *_: made.append("debian"))
    for reachable, engine, base, pulled, makes in [
        (True, FakeEngine(image.SLIM), image.SLIM, [], 0),
        (True, FakeEngine(base_image.TAG), base_image.TAG, [], 0),
        (True, FakeEngine(), image.SLIM, [image.SLIM], 0),
        (False, FakeEngine(), base_image.TAG, [], 1),
    ]:
        monkeypatch.setattr(image, "reachable", lambda _, answer=reachable: answer)
        assert image.choose_base(engine, lambda _: None) == base
        assert (engine.pulled, len(made)) == (pulled, makes)


class Refusing(FakeEngine):
    """Does all up to one call, which raises."""

    def __init__(self, call: str, error: Exception) -> None:
        super().__init__()
        self.closed = False

        def refuse(*_: Any, **__: Any) -> Any:
            raise error

        if call == "images":
            self.listed = refuse  # type: ignore[method-assign]
        if call == "pull":
            self.pull = refuse  # type: ignore[method-assign]
        self.api = SimpleNamespace(images=self.listed, build=refuse)

    def version(self) -> dict[str, str]:
        return {"Arch": "amd64"}

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("call", ["images", "pull", "build"])
@pytest.mark.parametrize(
    "kind", [docker.errors.APIError, requests.ConnectionError, urllib3.exceptions.ProtocolError], ids=["refused", "gone", "cut off"]
)
def test_what_the_engine_says_is_a_setup_error_and_the_client_is_closed(
    monkeypatch: pytest.MonkeyPatch, call: str, kind: type[Exception]
) -> None:
    engine = Refusing(call, kind("no space left"))
    monkeypatch.setattr(image.Engine, "find", lambda: SimpleNamespace(client=lambda timeout_s=0: engine))
    monkeypatch.setattr(image, "reachable", lambda _: True)
    monkeypatch.setattr(image, "install_packages", lambda target, machine: target.mkdir())
    with pytest.raises(SetupError, match="no space left"):
        image.build(lambda _: None)
    assert engine.closed
    assert not image.exists()


@pytest.mark.docker
def test_a_built_image_is_found_and_not_built_again() -> None:
    said: list[str] = []
    assert image.exists()
    assert image.build(said.append).startswith("toolreason-sandbox:")
    assert said == []


FIRST_FIGURE = """
import os
os.mkdir("/tmp/settings")
[name] = os.listdir("/opt/toolreason/matplotlib")
os.symlink(f"/opt/toolreason/matplotlib/{name}", f"/tmp/settings/{name}")
import matplotlib.pyplot
matplotlib.pyplot.plot([1, 2])
matplotlib.pyplot.title("fonts")
matplotlib.pyplot.savefig("/tmp/figure.png")
print(matplotlib.get_backend(), os.listdir("/tmp/settings") == [name] and os.path.islink(f"/tmp/settings/{name}"))
"""


@pytest.mark.docker
def test_any_user_draws_in_a_read_only_container_with_the_list_of_fonts_that_the_image_has() -> None:
    client = image.Engine.find().client()
    try:
        said = client.containers.run(
            image.find(client),
            entrypoint=["python3", "-W", "error", "-c", FIRST_FIGURE],
            user="4321:4321",
            read_only=True,
            network_disabled=True,
            environment={"MPLCONFIGDIR": "/tmp/settings"},
            tmpfs={"/tmp": "rw,mode=1777"},
            stderr=True,
            remove=True,
        )
    finally:
        client.close()
    assert said == b"agg True\n"  # nor is anything said on standard error
