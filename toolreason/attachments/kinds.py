"""What a file is, by its first bytes: pictures with their size in pixels, text, or neither. Nothing is decoded here.

The sizes are read from the headers alone, since a picture that was made to do harm should meet a decoder in the sandbox only.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

Pixels = tuple[int, int]  # width, height

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff")  # names that promise a picture
TABLES = {".csv": "text/csv", ".tsv": "text/tab-separated-values"}
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # JPEG: the markers after which the size stands
BARE = {0x01, *range(0xD0, 0xD9)}  # JPEG: the markers with no length


@dataclass(frozen=True, slots=True)
class Kind:
    """`mime` is its MIME type, `words` what a person calls it; `pixels` where it is a picture whose header tells."""

    mime: str
    words: str
    pixels: Pixels | None = None

    @property
    def picture(self) -> bool:
        return self.mime.startswith("image/")


def kind(data: bytes, suffix: str) -> Kind:
    """What this file is. `suffix` (`.csv`) only tells texts apart. Raises ValueError for a picture whose header is no header."""
    for starts, mime, words, measure in PICTURES:
        if starts(data):
            try:
                pixels = measure(data)
            except (struct.error, IndexError):
                raise ValueError(f"it begins like a {words}, but that is cut off") from None
            if pixels is not None and min(pixels) < 1:
                raise ValueError(f"it begins like a {words}, but its size is {pixels[0]} x {pixels[1]}")
            return Kind(mime, words, pixels)
    if data.startswith(b"%PDF-"):
        return Kind("application/pdf", "PDF")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return Kind("application/octet-stream", "data")
    return Kind("application/octet-stream", "data") if "\0" in text else Kind(TABLES.get(suffix, "text/plain"), "text")


def _png(data: bytes) -> Pixels:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _gif(data: bytes) -> Pixels:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _bmp(data: bytes) -> Pixels:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return width, abs(height)  # rows from the top have a height below 0


def _webp(data: bytes) -> Pixels:
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _jpeg(data: bytes) -> Pixels:
    at = 2
    while True:
        if data[at] != 0xFF:
            raise IndexError(at)
        marker = data[at + 1]
        if marker == 0xFF:  # a filler
            at += 1
        elif marker in BARE:
            at += 2
        elif marker in FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        else:
            at += 2 + max(2, *struct.unpack_from(">H", data, at + 2))


PICTURES: tuple[tuple[Callable[[bytes], bool], str, str, Callable[[bytes], Pixels | None]], ...] = (
    (lambda data: data.startswith(b"\x89PNG\r\n\x1a\n"), "image/png", "PNG picture", _png),
    (lambda data: data.startswith(b"\xff\xd8\xff"), "image/jpeg", "JPEG picture", _jpeg),
    (lambda data: data.startswith((b"GIF87a", b"GIF89a")), "image/gif", "GIF picture", _gif),
    (lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", "image/webp", "WebP picture", _webp),
    (lambda data: data[:2] == b"BM" and data[6:10] == b"\0\0\0\0", "image/bmp", "BMP picture", _bmp),
    (lambda data: data.startswith((b"II*\0", b"MM\0*")), "image/tiff", "TIFF picture", lambda data: None),
)
