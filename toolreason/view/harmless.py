"""What a model wrote, made fit to be looked at."""

from __future__ import annotations

import math
from typing import Any, TypeVar, cast

from toolreason.render import visible

T = TypeVar("T")


def harmless(value: T) -> T:
    """The same plain data; in its texts a sign stands for every control, bidi mark, zero-width character and lone surrogate, and
    numbers for which JSON has no word are none.
    """
    return cast(T, _harmless(value))


def _harmless(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() and value.isprintable() else visible(value)
    if isinstance(value, dict):
        return {_harmless(key): _harmless(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_harmless(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def shortened(text: str, most: int) -> tuple[str, int]:
    """The text's beginning, harmless, and how many characters are left out."""
    return harmless(text[:most]), max(0, len(text) - most)
