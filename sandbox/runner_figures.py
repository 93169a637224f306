"""The figures that a cell leaves open in matplotlib, as PNG files. Like a notebook, a cell starts with none."""

from __future__ import annotations

import io
import os
import sys
import warnings
from typing import Any


def collect(settings: dict[str, Any]) -> tuple[list[int], list[int]] | None:
    """The descriptor of a memory file with the figures one after the other, and their sizes; None when there are none. Closes them.

    What does not fit is said on standard error. Raises what drawing raises.
    """
    pyplot = sys.modules.get("matplotlib.pyplot")
    numbers = pyplot.get_fignums() if pyplot else []
    if not numbers or pyplot is None:
        return None
    fd = os.memfd_create("figures")
    sizes: list[int] = []
    try:
        for number in numbers[: settings["figures"]]:
            png = io.BytesIO()
            pyplot.figure(number).savefig(png, format="png")
            data = png.getvalue()
            if sum(sizes) + len(data) > settings["figures_mb"] << 20:
                break
            os.write(fd, data)
            sizes.append(len(data))
    finally:
        pyplot.close("all")
    if len(sizes) < len(numbers):
        print(f"[{len(numbers) - len(sizes)} of {len(numbers)} figures are too many or too large]", file=sys.stderr)
    return [fd], sizes


def quiet() -> None:
    """`pyplot.show()` does nothing where there is no screen, and need not say so."""
    warnings.filterwarnings("ignore", message=".*is non-interactive, and thus cannot be shown")
