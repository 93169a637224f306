"""The files of a problem: what they are, which are turned away and what is said then, what they are called in a session."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests import pictures
from toolreason import attachments
from toolreason.attachments import MOST_BYTES, MOST_FILES
from toolreason.attachments.kinds import Kind, kind
from toolreason.errors import ProblemError

FORMATS = {
    "PNG": ("image/png", {}),
    "JPEG": ("image/jpeg", {}),
    "GIF": ("image/gif", {}),
    "BMP": ("image/bmp", {}),
    "WEBP": ("image/webp", {}),
}


def image_kind(name: str, size: tuple[int, int], **options: Any) -> Any:
    return kind(pictures.encoded(Image.new("RGB", size, "red"), name, **options), "")


def kind_or_fault(data: bytes) -> Kind | str:
    try:
        return kind(data, ".png")
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (3, 500), (640, 481)])
def test_a_picture_s_kind_and_size_are_read_from_its_header(name: str, size: tuple[int, int]) -> None:
    found = image_kind(name, size)
    assert (found.mime, found.pixels, found.picture) == (FORMATS[name][0], size, True)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("JPEG", {"progressive": True}),
        ("JPEG", {"exif": b"Exif\0\0" + bytes(3000), "comment": b"x" * 900, "dpi": (300, 300)}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0" + bytes(100)}),
    ],
)
def test_variants_of_a_format_are_measured_too(name: str, options: dict[str, Any]) -> None:
    assert image_kind(name, (70, 33), **options).pixels == (70, 33)


def test_a_tiff_is_a_picture_whose_header_is_not_read() -> None:
    found = image_kind("TIFF", (5, 5))
    assert (found.mime, found.pixels, found.words) == ("image/tiff", None, "TIFF picture")


@pytest.mark.parametrize(
    ("data", "suffix", "mime", "words"),
    [
        (b"a,b\n1,2\n", ".csv", "text/csv", "text"),
        ("Größe".encode(), ".txt", "text/plain", "text"),
        (b"<svg/>", ".svg", "text/plain", "text"),
        (b"BM is how this text begins", ".txt", "text/plain", "text"),
        (b"%PDF-1.7\n\xff", ".pdf", "application/pdf", "PDF"),
        (b"\xff\xfe\x00", "", "application/octet-stream", "data"),
        (b"a\0b", ".txt", "application/octet-stream", "data"),
    ],
)
def test_what_is_no_picture_is_text_or_data(data: bytes, suffix: str, mime: str, words: str) -> None:
    found = kind(data, suffix)
    assert (found.mime, found.words, found.picture) == (mime, words, False)


@pytest.mark.parametrize("name", FORMATS)
def test_a_header_that_is_cut_off_is_refused_wherever_it_is(name: str) -> None:
    data = pictures.encoded(pictures.shapes(), name)
    whole = kind(data, "")
    for length in range(12, 60):
        found = kind_or_fault(data[:length])
        assert "cut off" in found if isinstance(found, str) else found in (whole, kind(b"\xff", ""))


@given(st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF0000WEBP", b"BM0000\0\0\0\0", b""]), st.binary())
def test_no_bytes_make_it_fail_in_another_way(start: bytes, rest: bytes) -> None:
    found = kind_or_fault(start + rest)
    assert "it begins like a" in found if isinstance(found, str) else found.pixels is None or min(found.pixels) > 0


def test_files_are_read_in_order_with_what_they_are(tmp_path: Path) -> None:
    picture = pictures.save(tmp_path / "map.png")
    table = tmp_path / "t.csv"
    table.write_text("a,b\n1,2\n")
    one, two = attachments.read([picture, str(table)])
    assert (one.path, one.name, one.data) == (picture, "map.png", (tmp_path / "map.png").read_bytes())
    assert one.described == f"PNG picture, 60 x 40 pixels, {len(one.data)} bytes"
    assert (two.name, two.described) == ("t.csv", "text, 8 bytes")
    assert attachments.read([]) == ()


def test_the_digest_follows_name_and_content_and_not_the_folder(tmp_path: Path) -> None:
    here, there = pictures.save(tmp_path / "a" / "map.png"), pictures.save(tmp_path / "b" / "map.png")
    assert attachments.digest([here]) == attachments.digest([there])
    before = attachments.digest([here])
    pictures.save(tmp_path / "a" / "map.png", Image.new("RGB", (60, 40), "blue"))
    assert attachments.digest([here]) != before
    assert attachments.digest([pictures.save(tmp_path / "other.png")]) != attachments.digest([there])


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/1.png", "b/1.png", "c/1.PNG"], ["1.png", "1-2.png", "1-3.PNG"]),
        (["Größe 1.png"], ["Gr__e_1.png"]),
        (["../../x;rm -rf *.csv"], ["x_rm_-rf__.csv"]),
        (["-rf.txt", ".hidden.txt", "..."], ["rf.txt", "hidden.txt", "file.bin"]),
        (["numpy.py", "x.SO", "lib.pth"], ["numpy.py.txt", "x.SO.txt", "lib.pth.txt"]),
        (["toolbox", "pictures"], ["toolbox.bin", "pictures.bin"]),
        (["x" * 300 + ".png"], ["x" * 60 + ".png"]),
        (["x" * 300 + "1.png", "x" * 300 + "2.png"], ["x" * 60 + ".png", "x" * 60 + "-2.png"]),
        (["a\nb.png", "\x1b[31m.png"], ["a_b.png", "__31m.png"]),
    ],
)
def test_names_in_a_session_are_plain_unlike_each_other_and_hide_no_module(paths: list[str], names: list[str]) -> None:
    assert attachments.names(paths) == names


@given(st.lists(st.text(min_size=1), max_size=MOST_FILES))
def test_names_are_safe_whatever_the_paths(paths: list[str]) -> None:
    names = attachments.names(paths)
    assert len({name.lower() for name in names}) == len(paths)
    for name in names:
        assert name.isascii()
        assert not set(name) & set("/\\ \n\0'\"")
        assert not name.startswith((".", "-"))
        assert len(name) < 128
        assert os.path.splitext(name)[1].lower() not in ("", ".py", ".so", ".pth")


def refused(*paths: Path | str) -> str:
    with pytest.raises(ProblemError) as caught:
        attachments.read([str(path) for path in paths])
    return str(caught.value)


def test_what_is_not_there_or_no_file_is_refused_at_once(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "none.png")
    assert "no regular file" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in refused(tmp_path / "pipe")
    assert "no regular file" in refused("/dev/zero")
    (tmp_path / "empty.txt").touch()
    assert "empty" in refused(tmp_path / "empty.txt")
    assert "cannot be read" in refused("a\0b")


def test_what_is_too_much_is_refused_with_its_size_and_the_limit(tmp_path: Path) -> None:
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(100_000_000)
    text = refused(tmp_path / "large.png")
    assert "100.0 MB" in text
    assert "700.0 kB" in text
    assert "smaller" in text
    half = tmp_path / "half.txt"
    half.write_bytes(b"x" * (MOST_BYTES // 2))
    assert len(attachments.read([str(half)] * 2)) == 2
    assert "at most together" in refused(half, half, half)
    (tmp_path / "small.txt").write_text("x")
    assert "9 attachments" in refused(*[tmp_path / "small.txt"] * 9)


def test_a_picture_that_is_none_is_refused_and_one_with_another_ending_is_not(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("hello")
    assert "though its name says so: it is text" in refused(tmp_path / "x.png")
    (tmp_path / "y.JPG").write_bytes(b"\xff\xd8\xff\xe0")
    assert "cut off" in refused(tmp_path / "y.JPG")
    (tmp_path / "z.png").write_bytes(pictures.encoded(pictures.shapes(), "JPEG"))
    assert attachments.read([str(tmp_path / "z.png")])[0].kind.mime == "image/jpeg"


def test_a_bomb_is_refused_before_anything_unpacks_it(tmp_path: Path) -> None:
    data = pictures.bomb(20_000, 20_000)
    assert len(data) < 100_000
    (tmp_path / "bomb.png").write_bytes(data)
    text = refused(tmp_path / "bomb.png")
    assert "20000 x 20000 pixels" in text
    assert "make it smaller" in text


def test_a_path_stays_in_the_folder_of_the_problems(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    path = pictures.save(folder / "deep" / "map.png")
    outside = pictures.save(tmp_path / "outside.png")
    assert attachments.locate(folder, "deep/map.png") == path
    (folder / "inner").symlink_to("deep/map.png")
    assert attachments.locate(folder, "inner") == path
    (folder / "link.png").symlink_to(outside)
    (folder / "out").symlink_to(tmp_path)
    for wrong, reason in [
        ("../outside.png", "leads out"),
        ("deep/../../outside.png", "leads out"),
        ("deep/../deep/map.png", "leads out"),
        (outside, "leads out"),
        ("link.png", "a link that leads out"),
        ("out/outside.png", "a link that leads out"),
        ("", "names no file"),
        ("a\0b", "names no file"),
    ]:
        with pytest.raises(ProblemError, match=reason):
            attachments.locate(folder, wrong)
