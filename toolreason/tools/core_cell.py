"""What runs inside the sandbox to put a problem's files there. The host sends this file's text; nothing of toolreason is in it."""

import base64
import importlib
import sys


def install(files: dict[str, str]) -> None:
    """Write these files (base64 by name) into the work folder, over what is there, and forget the module as it was."""
    for name, data in files.items():
        with open(name, "wb") as out:
            out.write(base64.b64decode(data))
    sys.modules.pop("pictures", None)
    importlib.invalidate_caches()
