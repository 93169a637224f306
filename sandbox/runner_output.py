"""What is kept of a stream: its head and its tail."""

from __future__ import annotations

import codecs


class Kept:
    """Takes bytes, keeps at most `limit` characters, and counts those it leaves out. `seen` is in bytes."""

    def __init__(self, limit: int) -> None:
        self.tail_limit = limit // 2
        self.head_limit = limit - self.tail_limit
        self.head, self.tail = "", ""
        self.dropped = self.seen = 0
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> None:
        self.seen += len(data)
        self._take(self.decoder.decode(data))

    def text(self) -> tuple[str, int]:
        """The text, with a mark where something is missing, and the number of characters that are."""
        self._take(self.decoder.decode(b"", final=True))
        self._shorten()
        mark = f"\n[... {self.dropped} characters dropped ...]\n" if self.dropped else ""
        return self.head + mark + self.tail, self.dropped

    def _take(self, text: str) -> None:
        room = self.head_limit - len(self.head)
        self.head += text[:room]
        self.tail += text[room:]
        if len(self.tail) > 4 * self.tail_limit + 65536:  # now and then, not for each chunk
            self._shorten()

    def _shorten(self) -> None:
        extra = max(0, len(self.tail) - self.tail_limit)
        self.dropped += extra
        self.tail = self.tail[extra:]
