"""Pictures that the tests draw themselves."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

WHITE, RED, BLUE = (255, 255, 255), (255, 0, 0), (0, 0, 255)


def shapes() -> Image.Image:
    """60 x 40, white: a red square 10 x 10 at (5, 5), another 4 x 4 at (40, 30), a blue bar 30 x 2 at (20, 20)."""
    image = Image.new("RGB", (60, 40), WHITE)
    draw = ImageDraw.Draw(image)
    draw.rectangle((5, 5, 14, 14), RED)
    draw.rectangle((40, 30, 43, 33), RED)
    draw.rectangle((20, 20, 49, 21), BLUE)
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def save(path: Path, image: Image.Image | None = None) -> str:
    """A picture at this path: the shapes, or another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(image or shapes()))
    return str(path)


def bomb(width: int, height: int) -> bytes:
    """A small PNG file that claims to be, and would become, this large: one bit a pixel, all alike."""
    line = b"\0" + bytes((width + 7) // 8)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(line) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
