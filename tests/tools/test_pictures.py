"""The functions that look at pictures: what they measure, against slower ways to count, and what they say of bad input."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from tests import pictures as drawn
from tests.pictures import BLUE, RED, WHITE
from toolreason.tools import pictures


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The work folder, with one picture."""
    monkeypatch.chdir(tmp_path)
    drawn.save(tmp_path / "map.png")
    return tmp_path


def test_regions_are_found_largest_first_with_box_size_and_middle() -> None:
    assert pictures.regions("map.png", "red") == [((5, 5, 15, 15), 100, (9.5, 9.5)), ((40, 30, 44, 34), 16, (41.5, 31.5))]
    assert pictures.regions("map.png", "#0000ff") == [((20, 20, 50, 22), 60, (34.5, 20.5))]
    assert pictures.count_regions("map.png", "red", least=17) == 1
    assert pictures.count_regions("map.png", (0, 255, 0)) == 0
    first = pictures.regions("map.png", "red")[0]
    assert (first.box, first.pixels, first.center) == first
    assert pictures.main_colors(pictures.crop("map.png", first.box)) == [(RED, 1.0)]


def test_a_region_hangs_together_over_corners_and_around_holes() -> None:
    image = Image.new("RGB", (9, 9))
    for x, y in [(1, 1), (2, 2), (3, 1), (4, 0)]:
        image.putpixel((x, y), WHITE)
    for at in range(5, 9):
        for x, y in [(at, 5), (at, 8), (5, at), (8, at)]:
            image.putpixel((x, y), WHITE)
    assert [one.pixels for one in pictures.regions(image, "white", least=1)] == [12, 4]
    assert [one.pixels for one in pictures.regions(image, "black", least=1)] == [81 - 12 - 4 - 4, 4]


def flooded(points: set[tuple[int, int]]) -> list[set[tuple[int, int]]]:
    """The parts of these points that touch, found by walking from one to the next."""
    left, parts = set(points), []
    while left:
        part, edge = set[tuple[int, int]](), [left.pop()]
        while edge:
            y, x = edge.pop()
            part.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            edge += near
        parts.append(part)
    return parts


@given(arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_regions_are_what_walking_from_pixel_to_touching_pixel_finds(mask: Any) -> None:
    wanted = []
    for part in flooded({(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}):
        ys, xs = [y for y, _ in part], [x for _, x in part]
        middle = (round(sum(xs) / len(part), 2), round(sum(ys) / len(part), 2))
        wanted.append(((min(xs), min(ys), max(xs) + 1, max(ys) + 1), len(part), middle))
    image = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
    found = pictures.regions(image, "white", least=1)
    assert sorted((one.box, one.pixels) for one in found) == sorted((box, size) for box, size, _ in wanted)
    for one, two in zip(sorted(found), sorted(wanted), strict=True):
        assert one.center == pytest.approx(two[2], abs=0.011)


def test_tolerance_counts_for_each_of_red_green_and_blue() -> None:
    image = Image.new("RGB", (2, 2), (210, 45, 38))
    assert pictures.count_regions(image, "red", 45) == 1
    assert pictures.count_regions(image, "red", 44) == 0


def test_colors_come_with_their_shares() -> None:
    found = pictures.main_colors("map.png")
    assert found == [(WHITE, 1 - 176 / 2400), (RED, 116 / 2400), (BLUE, 60 / 2400)]
    assert pictures.main_colors("map.png", 1) == found[:1]
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 60, (50, 50, 3), dtype=np.uint8))
    many = pictures.main_colors(noise, 4)
    assert len(many) == 4
    assert sum(share for _, share in many) == pytest.approx(1)
    assert all(max(color) < 60 for color, _ in many)


def test_points_and_distances() -> None:
    assert pictures.color_at("map.png", 5, 14) == RED
    assert pictures.color_at("map.png", 5.9, 14.9) == RED
    assert pictures.color_at("map.png", 4, 14) == WHITE
    assert pictures.distance((0, 0), (3, 4)) == 5
    red, blue = pictures.regions("map.png", "red")[0], pictures.regions("map.png", "blue")[0]
    assert pictures.distance(red.center, blue.center) == math.hypot(25, 11)


def test_a_box_is_cut_to_the_picture_and_enlarged() -> None:
    assert pictures.crop("map.png", (5, 5, 15, 15)).size == (10, 10)
    assert pictures.crop("map.png", (-5, -5, 5.5, 1000)).size == (6, 40)
    larger = pictures.zoom("map.png", (5, 5, 15, 15), 8)
    assert larger.size == (80, 80)
    assert pictures.color_at(larger, 40, 40) == RED
    assert pictures.zoom("map.png", (0, 0, 60, 40), 0.5).size == (30, 20)


@pytest.mark.parametrize(
    ("mode", "color", "rgb"),
    [("L", 128, (128, 128, 128)), ("1", 1, WHITE), ("RGBA", (255, 0, 0, 0), WHITE), ("LA", (0, 255), (0, 0, 0)),
     ("CMYK", (0, 255, 255, 0), RED), ("I;16", 65535, WHITE), ("I;16", 32896, (128, 128, 128)), ("F", 7.2, (7, 7, 7))],
)  # fmt: skip
def test_every_kind_of_pixel_becomes_red_green_and_blue(folder: Path, mode: str, color: Any, rgb: Any) -> None:
    kind = {"CMYK": "JPEG", "F": "TIFF"}.get(mode, "PNG")
    (folder / "x").write_bytes(drawn.encoded(Image.new(mode, (3, 3), color), kind))
    assert pictures.color_at("x", 1, 1) == pytest.approx(rgb, abs=2)


def test_a_picture_is_upright_and_of_an_animation_the_first_frame(folder: Path) -> None:
    image = drawn.shapes()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    (folder / "turned.jpg").write_bytes(drawn.encoded(image, "JPEG", exif=exif))
    assert pictures.picture("turned.jpg").size == (40, 60)
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    (folder / "two.gif").write_bytes(drawn.encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert pictures.color_at("two.gif", 1, 1) == RED


def test_what_a_file_is(folder: Path) -> None:
    assert pictures.read("map.png") == "PNG picture, 60 x 40 pixels, mode RGB"
    (folder / "t.csv").write_text("name;x\n" + "".join(f"n{at};{at}\n" for at in range(500)))
    told = pictures.read("t.csv", 20)
    assert told == "table of 500 rows below the head, 2 columns: name, x\nname;x\nn0;0\nn1;1\nn2;\n[... 4267 characters more]"
    (folder / "one.csv").write_text("")
    assert pictures.read("one.csv").startswith("table of 0 rows below the head, 0 columns")
    (folder / "t.txt").write_bytes("\ufeffzwei\nZeilen ä".encode())
    assert pictures.read("t.txt") == "text of 2 lines\nzwei\nZeilen ä"
    (folder / "d.bin").write_bytes(b"\xff\x00\x01")
    assert pictures.read("d.bin") == "3 bytes that are neither a picture nor text, beginning ff 00 01"


def test_names_that_are_wrong_are_answered_with_those_that_are_there(folder: Path) -> None:
    (folder / "pictures.py").touch()
    for call in (pictures.read, pictures.picture, pictures.main_colors):
        with pytest.raises(FileNotFoundError, match=r"no file 'mpa.png'; there are: map.png$"):
            call("mpa.png")


def test_pictures_that_cannot_be_opened_are_a_clear_error(folder: Path) -> None:
    data = drawn.encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)))
    for wrong in (b"hello", b"", data[:40], data[:5000], b"\x89PNG\r\n\x1a\n" + bytes(40)):
        (folder / "x.png").write_bytes(wrong)
        with pytest.raises(ValueError, match=r"'x\.png' is no picture that can be opened"):
            pictures.picture("x.png")


@pytest.mark.parametrize("side", [5_000, 12_000, 30_000])
def test_a_bomb_is_not_unpacked(folder: Path, side: int) -> None:
    (folder / "bomb.png").write_bytes(drawn.bomb(side, side))
    with pytest.raises(ValueError, match="no picture that can be opened"):
        pictures.picture("bomb.png")
    assert isinstance(pictures.read("bomb.png"), str)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: pictures.crop("map.png", (1, 2, 3)), ValueError, "a box is (left, top, right, bottom)"),
        (lambda: pictures.crop("map.png", (60, 0, 70, 10)), ValueError, "holds nothing of the picture, which is 60 x 40"),
        (lambda: pictures.crop("map.png", (20, 10, 10, 20)), ValueError, "holds nothing"),
        (lambda: pictures.zoom("map.png", (0, 0, 60, 40), 1000), ValueError, "factor 1000 is not between 0 and 83.6"),
        (lambda: pictures.zoom("map.png", (0, 0, 60, 40), -1), ValueError, "factor -1"),
        (lambda: pictures.color_at("map.png", 60, 0), ValueError, "outside of the picture, which is 60 x 40"),
        (lambda: pictures.color_at("map.png", -1, 0), ValueError, "outside"),
        (lambda: pictures.regions("map.png", "reddish"), ValueError, "unknown color"),
        (lambda: pictures.regions("map.png", (1, 2)), ValueError, "is no color"),
        (lambda: pictures.regions("map.png", (1, 2, 256)), ValueError, "is no color"),
        (lambda: pictures.main_colors("map.png", 0), ValueError, "count 0"),
        (lambda: pictures.crop(5, (0, 0, 1, 1)), TypeError, "not int"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_are_named(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)


def test_noise_is_turned_away_rather_than_counted_for_ever() -> None:
    noise = Image.fromarray((np.random.default_rng(0).integers(0, 2, (1500, 1500)) * 255).astype(np.uint8))
    with pytest.raises(ValueError, match="too many small pieces"):
        pictures.regions(noise, "white")
