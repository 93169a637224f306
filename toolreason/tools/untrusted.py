"""Texts of models, tools and sandboxes, made fit to stand in a prompt: what hides or acts in them is gone, and the marks with which
chats are written are broken. What they say stays what somebody says.
"""

from __future__ import annotations

import re
import unicodedata

_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_MARK = re.compile(r"<(?=[|\uff5c]|/?\w{1,40}>)|\[(?=/?INST\])")  # \uff5c: DeepSeek's bar


def line(text: str, most: int = 300) -> str:
    """`text` in one line of at most `most` characters."""
    return _cut(" ".join(block(text[: 4 * most], 4 * most).split()), most).replace("```", "'''")


def block(text: str, most: int) -> str:
    """`text` with its lines, at most `most` characters of it."""
    shown = "".join(
        char if char in "\n\t" or unicodedata.category(char) not in _HIDDEN else " " for char in text.replace("\r\n", "\n")[:most]
    )
    return _cut(_MARK.sub(lambda mark: f"{mark.group()} ", shown), most)


def fenced(code: str, most: int = 20_000, language: str = "python") -> str:
    """`code` in a fence that nothing in it closes."""
    text = block(code, most).rstrip()
    longest = max((len(run) for run in re.findall("`{3,}", text)), default=2)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
