"""The wire to the host: frames of JSON, each behind its length."""

from __future__ import annotations

import json
import os
import struct
from typing import Any

MAX_FRAME = 16 << 20


class Wire:
    """Frames of JSON over two descriptors: four bytes of length, big-endian, then UTF-8."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd, self.write_fd = read_fd, write_fd
        self.buffer = bytearray()
        self.outgoing: list[bytes] = []

    def fill(self) -> None:
        """Read what is there. Raises EOFError when the host has gone."""
        chunk = os.read(self.read_fd, 1 << 18)
        if not chunk:
            raise EOFError
        self.buffer += chunk

    def frame(self) -> dict[str, Any] | None:
        """The next frame that has come whole. Raises EOFError on a host that talks nonsense."""
        if len(self.buffer) < 4:
            return None
        (size,) = struct.unpack_from(">I", self.buffer)
        if size > MAX_FRAME:
            raise EOFError
        if len(self.buffer) < 4 + size:
            return None
        frame = json.loads(bytes(self.buffer[4 : 4 + size]))
        del self.buffer[: 4 + size]
        return dict(frame)

    def send(self, frame: dict[str, Any]) -> None:
        """Have this go out with the next `flush`: one write for many answers wakes those on the way to the host once."""
        body = json.dumps(frame).encode()
        self.outgoing += struct.pack(">I", len(body)), body

    def flush(self) -> None:
        data = memoryview(b"".join(self.outgoing))
        self.outgoing.clear()
        while data:
            data = data[os.write(self.write_fd, data) :]

    def close(self) -> None:
        os.close(self.read_fd)
        os.close(self.write_fd)
