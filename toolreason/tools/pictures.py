"""Looking at pictures and files by code: read, crop, zoom, show, measure.

A picture is the name of a file or what `picture` gives. Coordinates are pixels, x from the left and y from the top; a box is
(left, top, right, bottom), right and bottom just outside. A color is a name ("red"), "#ff0000" or (255, 0, 0).
"""

import csv
import math
import os
import warnings
from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
from PIL import Image, ImageColor, ImageOps

Box = tuple[int, int, int, int]
RGB = tuple[int, int, int]
Color = str | Sequence[int]
Picture = Image.Image | str

_MOST_PIXELS = 1 << 24
_SHOWN = 1024  # pixels of the longer side of a figure
_MOST_RUNS = 200_000
_OWN = ("pictures.py", ".matplotlib")


class Region(NamedTuple):
    """Pixels that hang together, over corners too: the box around them, how many, and their middle."""

    box: Box
    pixels: int
    center: tuple[float, float]


def read(name: str, most: int = 2000) -> str:
    """What a file is: a picture's format, size and mode; a text's or table's size and its first `most` characters."""
    with open(_there(name), "rb") as file:
        data = file.read()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(name) as image:
                return f"{image.format} picture, {image.width} x {image.height} pixels, mode {image.mode}"
    except (OSError, ValueError, Image.DecompressionBombError):
        pass
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return f"{len(data)} bytes that are neither a picture nor text, beginning {data[:16].hex(' ')}"
    rest = "" if len(text) <= most else f"\n[... {len(text) - most} characters more]"
    return f"{_table(name, text) or f'text of {len(text.splitlines())} lines'}\n{text[:most]}{rest}"


def picture(name: str) -> Image.Image:
    """The picture in a file, upright and in RGB; what is transparent is white, of an animation the first frame."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(_there(name)) as image:
                if image.width * image.height > _MOST_PIXELS:
                    raise ValueError(f"it has {image.width} x {image.height} pixels; the most are {_MOST_PIXELS} in all")
                return _rgb(ImageOps.exif_transpose(image))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{name!r} is no picture that can be opened: {error}") from None


def crop(image: Picture, box: Sequence[float]) -> Image.Image:
    """The part of a picture in this box."""
    whole = _of(image)
    return whole.crop(_inside(whole, box))


def zoom(image: Picture, box: Sequence[float], factor: float = 4) -> Image.Image:
    """The part in this box, enlarged: its pixel (x, y) is (left + x / factor, top + y / factor) of the picture."""
    part = crop(image, box)
    largest = math.sqrt(_MOST_PIXELS / (part.width * part.height))
    if not 0 < factor <= largest:
        raise ValueError(f"factor {factor} is not between 0 and {largest:.1f}, which is the most for this box")
    size = (max(1, round(part.width * factor)), max(1, round(part.height * factor)))
    return part.resize(size, Image.Resampling.BICUBIC)


def show(image: Picture) -> None:
    """Look at a picture: it becomes a figure of this cell's result, a large one made smaller."""
    from matplotlib import pyplot

    whole = _of(image)
    factor = max(1.0, max(whole.size) / _SHOWN)
    size = (max(1, round(whole.width / factor)), max(1, round(whole.height / factor)))
    shown = whole if size == whole.size else whole.resize(size, Image.Resampling.BICUBIC)
    figure = pyplot.figure(figsize=((size[0] + 0.01) / 100, (size[1] + 0.01) / 100), dpi=100)
    figure.figimage(np.asarray(shown), origin="upper")
    print(f"[a figure of {size[0]} x {size[1]} pixels{f', {factor:.3g} times smaller than the picture' if factor > 1 else ''}]")


def distance(a: Sequence[float], b: Sequence[float]) -> float:
    """How many pixels lie between two points (x, y)."""
    return math.dist(a, b)


def color_at(image: Picture, x: float, y: float) -> RGB:
    """The color of the pixel at (x, y)."""
    whole = _of(image)
    if not (0 <= x < whole.width and 0 <= y < whole.height):
        raise ValueError(f"({x}, {y}) is outside of the picture, which is {whole.width} x {whole.height}")
    return cast(RGB, whole.getpixel((int(x), int(y))))


def main_colors(image: Picture, count: int = 8) -> list[tuple[RGB, float]]:
    """The colors that cover most of the picture, each with its share of the pixels.

    Where there are more than 256, similar ones are taken together.
    """
    if not 1 <= count <= 256:
        raise ValueError(f"count {count} is not between 1 and 256")
    whole = _of(image)
    pixels = whole.width * whole.height
    found = whole.getcolors(256)
    if found is None:
        few = whole.quantize(count, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        found = few.convert("RGB").getcolors(256) or []
    shares = sorted(((number / pixels, cast(RGB, color)) for number, color in found), key=lambda one: (-one[0], one[1]))
    return [(color, share) for share, color in shares[:count]]


def regions(image: Picture, color: Color, tolerance: int = 40, least: int = 4) -> list[Region]:
    """The connected regions of a color, the largest first, each with its `box`, `pixels` and `center`.

    `tolerance` is how far each of red, green and blue may be off. Regions of fewer than `least` pixels are left out.
    """
    whole = _of(image)
    wanted = np.array(_color(color), dtype=np.int16)
    near = np.ones((whole.height, whole.width), dtype=bool)
    for channel, value in zip(whole.split(), wanted, strict=True):
        near &= np.abs(np.asarray(channel, dtype=np.int16) - value) <= tolerance
    found = [one for one in _connected(near) if one.pixels >= least]
    return sorted(found, key=lambda one: (-one.pixels, one.box[1], one.box[0]))


def count_regions(image: Picture, color: Color, tolerance: int = 40, least: int = 4) -> int:
    """How many connected regions of this color there are."""
    return len(regions(image, color, tolerance, least))


def _there(name: str) -> str:
    if os.path.isfile(name):
        return name
    files = sorted(entry.name for entry in os.scandir() if entry.is_file() and entry.name not in _OWN)
    raise FileNotFoundError(f"there is no file {name!r}; there are: {', '.join(files) or 'none'}")


def _table(name: str, text: str) -> str:
    """A line on the rows and columns of a table; nothing where it is none."""
    if os.path.splitext(name)[1].lower() not in (".csv", ".tsv"):
        return ""
    try:
        rows = list(csv.reader(text.splitlines(), csv.Sniffer().sniff(text[:8000], ",;\t|")))
    except csv.Error:
        rows = list(csv.reader(text.splitlines()))
    head = rows[0] if rows else []
    return f"table of {max(0, len(rows) - 1)} rows below the head, {len(head)} columns: {', '.join(head)}"


def _of(image: Picture) -> Image.Image:
    if isinstance(image, str):
        return picture(image)
    if not isinstance(image, Image.Image):
        raise TypeError(f"a picture is the name of a file, or what picture(name) gives, not {type(image).__name__}")
    return image if image.mode == "RGB" else _rgb(image)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # 16 bits or more of grey
        grey = np.asarray(image, dtype=np.float64)
        scale = 255 / 65535 if grey.max(initial=0) > 255 else 1
        return Image.fromarray((grey * scale).clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    full = image.convert("RGBA")
    white = Image.new("RGBA", full.size, "white")
    return Image.alpha_composite(white, full).convert("RGB")


def _inside(image: Image.Image, box: Sequence[float]) -> Box:
    if len(box) != 4:
        raise ValueError(f"a box is (left, top, right, bottom), not {box!r}")
    left, top = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    right, bottom = min(image.width, math.ceil(box[2])), min(image.height, math.ceil(box[3]))
    if left >= right or top >= bottom:
        raise ValueError(f"the box {tuple(box)} holds nothing of the picture, which is {image.width} x {image.height}")
    return left, top, right, bottom


def _color(color: Color) -> RGB:
    found = ImageColor.getrgb(color)[:3] if isinstance(color, str) else tuple(color)
    if len(found) != 3 or not all(0 <= value <= 255 for value in found):
        raise ValueError(f"{color!r} is no color: give a name, '#ff0000' or (255, 0, 0)")
    return found


def _connected(mask: np.ndarray) -> list[Region]:
    """The regions of a mask, from its horizontal runs: those of neighbouring rows that touch are one."""
    height, width = mask.shape
    edges = np.zeros((height, width + 2), dtype=np.int8)
    edges[:, 1:-1] = mask
    steps = np.diff(edges, axis=1)
    rows, starts = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    if len(rows) > _MOST_RUNS:
        raise ValueError("this color is in too many small pieces: crop the picture first, or take a smaller tolerance")
    labels = _joined(rows.tolist(), starts.tolist(), ends.tolist())
    names, label = np.unique(np.array(labels, dtype=np.int64), return_inverse=True)
    long = ends - starts
    box = [np.full(len(names), start) for start in (width, height, 0, 0)]
    for side, least, values in zip(box, (True, True, False, False), (starts, rows, ends, rows + 1), strict=True):
        (np.minimum if least else np.maximum).at(side, label, values)
    pixels = np.bincount(label, long, len(names))
    across = np.bincount(label, long * (starts + ends - 1) / 2, len(names)) / np.maximum(pixels, 1)
    down = np.bincount(label, long * rows, len(names)) / np.maximum(pixels, 1)
    sides = np.stack(box, axis=1).tolist()
    middles = zip(across.round(2).tolist(), down.round(2).tolist(), strict=True)
    return [Region(tuple(side), int(size), middle) for side, size, middle in zip(sides, pixels, middles, strict=True)]


def _joined(rows: list[int], starts: list[int], ends: list[int]) -> list[int]:
    """For each run the number of the first run of its region. Runs come row by row, from the left."""
    first = list(range(len(rows)))

    def root(run: int) -> int:
        while first[run] != run:
            first[run] = first[first[run]]
            run = first[run]
        return run

    above = 0
    for run, row in enumerate(rows):
        while above < run and (rows[above] < row - 1 or (rows[above] == row - 1 and ends[above] < starts[run])):
            above += 1
        other = above
        while other < run and rows[other] == row - 1 and starts[other] <= ends[run]:
            one, two = sorted((root(other), root(run)))
            first[two] = one
            other += 1
    return [root(run) for run in range(len(rows))]
